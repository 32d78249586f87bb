"""1:N search against loops over probes and gallery, and scikit-learn where nothing ties."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from facedistill.evaluation.protocols import identification as module
from facedistill.evaluation.protocols.identification import FPIRS, Identification, identify, split_gallery
from facedistill.evaluation.statistics import draws

ENROLLED, STRANGERS = 20, 12


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def coarse(x: np.ndarray) -> np.ndarray:
    """Nearly unit rows of multiples of 1/16: their products are exact in any order, and many of them tie."""
    return (np.round(15 * unit(x)) / 16).astype(np.float32)


class Example:
    """Persons of one to three gallery images, distractors inside the gallery and after it, probes of both kinds."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        centre = rng.normal(size=(ENROLLED + STRANGERS, 5))
        self.gallery_labels = np.concatenate([np.arange(ENROLLED), rng.integers(0, ENROLLED, 15), [-1, -1, -7]])
        self.gallery_labels = rng.permutation(self.gallery_labels)
        self.probe_labels = rng.integers(0, ENROLLED + STRANGERS, 90)
        noise = rng.normal(size=(90, 5))
        self.probe = coarse(centre[self.probe_labels] + 0.5 * noise)
        self.gallery = coarse(centre[self.gallery_labels] + 0.4 * rng.normal(size=(len(self.gallery_labels), 5)))
        self.distractors = [coarse(rng.normal(size=(n, 5))) for n in (3, 0, 1, 6)]
        self.excluded = rng.integers(-1, len(self.gallery), 90)

    def measure(self, **options: Any) -> Identification:
        data = (self.probe, self.probe_labels, self.gallery, self.gallery_labels)
        return identify(*data, distractors=iter(self.distractors), excluded=self.excluded, **options)

    def brute(self) -> list[tuple[float | None, int, float]]:
        """For each probe: best mate or None, how many others score as high, the highest of the others."""
        found = []
        for p, x in enumerate(self.probe):
            mates: list[float] = []
            others = [float(x @ row) for block in self.distractors for row in block]
            for g, row in enumerate(self.gallery):
                if g != self.excluded[p]:
                    mate = self.gallery_labels[g] == self.probe_labels[p]
                    (mates if mate else others).append(float(x @ row))
            best = max(mates) if mates else None
            found.append((best, sum(best is not None and other >= best for other in others), max(others)))
        return found


def brute_tpir(probes: list[tuple[float | None, int, float]], fpir: float) -> tuple[float, float]:
    """TPIR and the threshold: every score of a non-mated probe is tried."""
    alarms = np.array([other for best, _, other in probes if best is None])
    allowed = [t for t in alarms if (alarms >= t).sum() <= fpir * len(alarms) + 1e-9]
    threshold = min(allowed) if allowed else float(np.nextafter(max(alarms), 2))
    mated = [(best, above) for best, above, _ in probes if best is not None]
    return float(np.mean([above == 0 and best >= threshold for best, above in mated])), threshold


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tile", [(7, 5), (1024, 4096)])
def test_equals_brute_force(seed: int, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    example = Example(seed)
    found = example.measure(ranks=(1, 2, 5), fpirs=(0.3, 0.1), resamples=0)
    probes = example.brute()
    above = np.array([above for best, above, _ in probes if best is not None])
    assert (found.probes, found.mated) == (90, len(above))
    assert (found.gallery_size, found.distractors, found.gallery_identities) == (48, 13, ENROLLED)
    assert {k: e.value for k, e in found.rank.items()} == {k: (above < k).mean() for k in (1, 2, 5)}
    np.testing.assert_array_equal(found.cmc, [(above < k).mean() for k in range(1, 49)])
    for fpir, (point, estimate) in zip((0.3, 0.1), found.tpir_at_fpir.values(), strict=True):
        assert (estimate.value, point.threshold) == brute_tpir(probes, fpir)
        assert point.impostors == int(fpir * (90 - len(above)) + 1e-9)


def test_intervals_repeat_the_probes_of_the_drawn_persons() -> None:
    example = Example(1)
    found, probes = example.measure(ranks=(1, 3), fpirs=(0.2,), resamples=30), example.brute()
    persons = np.unique(example.probe_labels, return_inverse=True)[1]
    for r, draw in enumerate(draws(len(np.unique(persons)), 30)):
        repeated = [probe for p, probe in enumerate(probes) for _ in range(draw[persons[p]])]
        above = np.array([above for best, above, _ in repeated if best is not None])
        assert found.rank[1].resampled[r] == pytest.approx((above < 1).mean(), abs=1e-12)
        assert found.rank[3].resampled[r] == pytest.approx((above < 3).mean(), abs=1e-12)
        expected = brute_tpir(repeated, 0.2)[0]
        assert found.tpir_at_fpir["2e-1"][1].resampled[r] == pytest.approx(expected, abs=1e-12)


def test_ranks_are_those_of_sklearn_where_nothing_ties() -> None:
    rng = np.random.default_rng(0)
    gallery, labels = unit(rng.normal(size=(40, 16))), np.arange(200) % 40
    probe = unit(gallery[labels] + 0.6 * rng.normal(size=(200, 16)))
    found = identify(probe, labels, gallery, np.arange(40), ranks=(1, 5, 10, 20), resamples=0)
    for k, estimate in found.rank.items():
        assert 0 < estimate.value < 1 or k == 20
        assert estimate.value == top_k_accuracy_score(labels, probe @ gallery.T, k=k)


@pytest.mark.parametrize("block", [1, 2, 5, 64, 1000])
def test_equal_embeddings_tie_whatever_the_shape_of_the_tiles(block: int) -> None:
    """Products of one row, of few and of many go through different kernels and differ in their last bits."""
    rng = np.random.default_rng(0)
    gallery, labels = unit(rng.normal(size=(500, 128))), np.arange(500)
    probe = unit(gallery + 0.1 * rng.normal(size=(500, 128)))
    copies = gallery[rng.permutation(500)].copy()
    found = identify(
        probe,
        labels,
        gallery,
        labels,
        distractors=(copies[i : i + block] for i in range(0, 500, block)),
        ranks=(1, 2),
        resamples=0,
    )
    assert [found.rank[k].value for k in (1, 2)] == [0, 1]


def test_a_collapsed_model_identifies_nobody() -> None:
    one = np.repeat(unit(np.random.default_rng(0).normal(size=(1, 512))), 100, axis=0)
    found = identify(one, np.arange(100), one[:60], np.arange(60), ranks=(1, 59), fpirs=(0.1,), resamples=5)
    assert (found.rank[1].value, found.rank[59].value, found.cmc[-1]) == (0, 0, 0)
    assert found.tpir_at_fpir["1e-1"][1].value == 0
    assert found.tpir_at_fpir["1e-1"][0].far == 0


def test_the_best_image_of_a_person_counts() -> None:
    gallery = unit(np.array([[1, 0], [0, 1], [3, 1]]))
    found = identify(gallery[:1], np.array([4]), gallery, np.array([4, 4, 9]), ranks=(1,), resamples=0)
    assert found.rank[1].value == 1  # its other image stands last of all


def test_an_excluded_row_is_neither_mate_nor_alarm() -> None:
    gallery = unit(np.array([[1, 0], [0, 1], [1, 1]]))
    data = (gallery[:1], np.array([4]), gallery, np.array([4, 4, 9]))
    assert identify(*data, ranks=(1,), resamples=0).rank[1].value == 1
    assert identify(*data, ranks=(1,), excluded=np.array([0]), resamples=0).rank[1].value == 0
    alone = identify(gallery[:1], np.array([4]), gallery[[0, 2]], np.array([4, 9]), excluded=np.array([0]), resamples=0)
    assert alone.mated == 0


def test_a_negative_label_is_nobody_even_to_a_negative_probe() -> None:
    x = unit(np.eye(3))
    found = identify(x, np.array([-1, -1, 2]), x, np.array([-1, 1, 2]), ranks=(1,), resamples=0)
    assert (found.mated, found.distractors, found.gallery_identities) == (1, 1, 2)


def test_a_million_distractors_need_no_more_memory_than_a_few() -> None:
    """200,000 rows of 64 numbers: 51 MB as one array, and 80 MB of scores of the 100 probes."""
    rng = np.random.default_rng(0)
    probe, pool = unit(rng.normal(size=(100, 64))), unit(rng.normal(size=(1000, 64)))
    taken = []

    def blocks() -> Iterator[np.ndarray]:
        for i in range(200):
            taken.append(i)
            yield np.roll(pool, i, axis=1)

    tracemalloc.start()
    found = identify(probe, np.arange(100), probe[:1], np.arange(1), distractors=blocks(), resamples=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.gallery_size == 200_001
    assert taken == list(range(200))
    assert peak < 4e6


def test_json_has_every_estimate_at_its_path_and_no_nan() -> None:
    found = Example(0).measure(ranks=(1, 5, 47, 48), fpirs=(0.1, 1e-3), resamples=20)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(written["rank"]) == ["1", "5", "47"]  # among 48 rows everybody is found at rank 48
    assert list(written["tpir_at_fpir"]) == ["1e-1"]  # too few non-mated probes for 1e-3
    assert written["probes"] == written["mated"] + written["non_mated"]
    assert written["curves"]["cmc"][0] == written["rank"]["1"]["value"]
    for path, estimate in found.estimates().items():
        group, key = path.split(".")
        assert written[group][key]["value"] == estimate.value
        assert written[group][key]["ci95"] == estimate.ci95
    assert len(found.estimates()) == 4
    assert set(written["tpir_at_fpir"]["1e-1"]) == {"value", "ci95", "non_mated", "fpir", "threshold"}
    assert "ci95" not in Example(0).measure(resamples=0).to_json()["rank"]["1"]


def test_without_mated_or_without_non_mated_probes() -> None:
    x = unit(np.random.default_rng(0).normal(size=(30, 8)))
    strangers = identify(x, np.arange(30), x[:5], np.arange(5) + 100, resamples=5).to_json()
    assert strangers["mated"] == 0
    assert (strangers["rank"], strangers["tpir_at_fpir"]) == ({}, {})
    assert "curves" not in strangers
    known = identify(x, np.arange(30), x, np.arange(30), fpirs=FPIRS, resamples=5).to_json()
    assert known["non_mated"] == 0
    assert known["rank"]["1"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert known["tpir_at_fpir"] == {}
    nobody = identify(x, np.arange(30), x[:0], np.arange(0), resamples=5).to_json()
    assert (nobody["gallery_size"], nobody["rank"]) == (0, {})
    assert json.dumps([strangers, known, nobody], allow_nan=False)


def test_split_gallery_enrols_the_first_image_of_whoever_has_two() -> None:
    gallery, probes = split_gallery(np.array([7, 3, 7, 5, 3, 7, 1]))
    assert gallery.tolist() == [0, 1]
    assert probes.tolist() == [2, 3, 4, 5, 6]
    assert [part.tolist() for part in split_gallery(np.array([2, 1]))] == [[], [0, 1]]
