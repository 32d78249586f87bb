"""IJB's protocols against loops over templates and pairs, written from the definitions of the field."""

import json
from collections.abc import Iterable
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from facedistill.data.embeddings import Flip
from facedistill.data.sources.ijb import IjbSource
from facedistill.errors import UserError
from facedistill.evaluation.protocols import all_pairs, template_verification, templates
from facedistill.evaluation.protocols.template_search import identify_templates
from facedistill.evaluation.protocols.template_verification import TemplatePairs, verify_templates
from facedistill.evaluation.protocols.templates import rows_of, template_vectors, without_image
from facedistill.evaluation.statistics import draws

DIM = 8


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def grid_rows(rng: np.random.Generator, centres: np.ndarray, noise: float) -> np.ndarray:
    """Nearly unit rows in multiples of 1/64: their products are exact in float32, whatever the order of summation."""
    return (np.round(60 * unit(centres + noise * rng.normal(size=centres.shape))) / 64).astype(np.float32)


# --- template vectors


def images(seed: int = 0, count: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Raw embeddings with mirror images, templates in no order, media that several templates share, and scores."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(5, 25, size=(count, 1, 1))
    vectors = (lengths * rng.normal(size=(count, 2, DIM))).astype(np.float32)
    template, media = rng.integers(0, 12, count) * 1000 + 3, rng.integers(0, 5, count) * 7 - 2
    return vectors, template, media, rng.uniform(0.1, 1, count).astype(np.float32)


def test_the_defaults_are_the_field() -> None:
    vectors, template, media, score = images()
    ids, rows = template_vectors(vectors, template, media, score)
    assert ids.tolist() == sorted(set(template.tolist()))
    feature = (vectors[:, 0] + vectors[:, 1]) * score[:, None]  # flip sum, norms kept, detector score
    for t, row in zip(ids, rows, strict=True):
        total = np.zeros(DIM)
        for m in set(media[template == t]):
            frames = feature[(template == t) & (media == m)]
            total += frames.mean(axis=0)
        np.testing.assert_allclose(row, unit(total), atol=1e-6)
    assert rows.dtype == np.float32


@pytest.mark.parametrize("flip", ["sum", "concat", "none"])
@pytest.mark.parametrize(("norm", "detector", "pooled"), list(product([True, False], repeat=3)))
def test_every_setting_means_what_its_name_says(
    flip: Flip, norm: bool, detector: bool, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "FUSED_IMAGES", 7)
    vectors, template, media, score = images(1)
    ids, rows = template_vectors(
        vectors,
        template,
        media,
        score,
        flip=flip,
        weight_by_norm=norm,
        weight_by_detector_score=detector,
        media_pooling=pooled,
    )
    for t, row in zip(ids, rows, strict=True):
        by_medium: dict[int, list[np.ndarray]] = {}
        for i in np.flatnonzero(template == t):
            image = {"sum": vectors[i, 0] + vectors[i, 1], "concat": vectors[i].ravel(), "none": vectors[i, 0]}[flip]
            image = image if norm else unit(image)
            image = image * score[i] if detector else image
            by_medium.setdefault(int(media[i]) if pooled else int(i), []).append(image)
        np.testing.assert_allclose(row, unit(sum(np.mean(frames, axis=0) for frames in by_medium.values())), atol=1e-6)


def test_no_mirror_images_no_difference() -> None:
    vectors, template, media, score = images(2)
    one = [template_vectors(vectors[:, :1], template, media, score, flip=f)[1] for f in ("sum", "concat", "none")]
    np.testing.assert_array_equal(one[0], one[1])
    np.testing.assert_array_equal(one[0], one[2])


def test_a_template_of_nothing_but_zeros_is_zero() -> None:
    vectors, template, media, score = images(3)
    score[template == template[0]] = 0
    ids, rows = template_vectors(vectors, template, media, score)
    assert not rows[ids == template[0]].any()
    assert np.isfinite(rows).all()


def test_templates_without_an_image() -> None:
    ids, vectors = np.array([2, 5, 9]), np.arange(6, dtype=np.float32).reshape(3, 2) + 1
    wanted = np.array([9, 1, 5, 5, 10, 2, 6])
    assert rows_of(vectors, ids, wanted).tolist() == [[5, 6], [0, 0], [3, 4], [3, 4], [0, 0], [1, 2], [0, 0]]
    assert rows_of(vectors, ids, wanted).dtype == np.float32
    assert without_image(ids, wanted, np.array([10, 11, 2])) == 4  # 1, 6, 10, 11


# --- 1:1

Listed = list[tuple[int, int, bool]]


def blocks(pairs: Listed, size: int = 7) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for start in range(0, len(pairs), size):
        first, second, same = zip(*pairs[start : start + size], strict=True)
        yield np.array(first), np.array(second), np.array(same)


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, Listed, dict[int, int]]:
    """Two models' templates, their ids, a list of pairs with repetitions, and the subject of every listed template.

    As in IJB-C each subject has one template that genuine pairs link to all its others. Two listed templates have no
    image, one of them in genuine pairs.
    """
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(1000, 40, replace=False)) * 3
    listed = np.r_[ids, 5000, 5001]
    subject = dict(zip(listed.tolist(), rng.permutation(len(listed)) % 9, strict=True))
    centres = unit(rng.normal(size=(9, DIM)))[[subject[i] for i in ids.tolist()]]
    first, second = grid_rows(rng, centres, 0.35), grid_rows(rng, centres, 0.25)
    enrolled: dict[int, int] = {}
    pairs = []
    for t, s in subject.items():
        if enrolled.setdefault(s, t) != t:
            pairs.append((enrolled[s], t, True))
    for _ in range(400):
        a, b = rng.choice(listed, 2)
        if subject[a] != subject[b]:
            pairs.append((int(a), int(b), False))
    pairs += pairs[:3] + pairs[-3:]
    return first, second, ids, [pairs[i] for i in rng.permutation(len(pairs))], subject


def compared(
    probe: np.ndarray, gallery: np.ndarray, ids: np.ndarray, pairs: Listed
) -> list[tuple[float, int, int, bool]]:
    """(score, template, template, same) of every comparison."""
    place = {t: i for i, t in enumerate(ids.tolist())}
    found = []
    for a, b, same in pairs:
        for p, g in [(a, b)] if probe is gallery else [(a, b), (b, a)]:
            score = float(probe[place[p]] @ gallery[place[g]]) if p in place and g in place else 0.0
            found.append((score, a, b, same))
    return found


def tar_at(scores: list[tuple[float, bool]], far: float) -> float:
    genuine, impostor = (np.array([s for s, same in scores if same == kind]) for kind in (True, False))
    allowed = [t for t in impostor if (impostor >= t).sum() <= far * len(impostor) + 1e-9]
    return (genuine >= min(allowed)).mean() if allowed else (genuine > impostor.max()).mean()


@pytest.fixture(params=[True, False], ids=["symmetric", "crossed"])
def symmetric(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=[1, 10**6], ids=["small blocks", "one block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == 1:
        monkeypatch.setattr(template_verification, "COUNTED", 11)
        monkeypatch.setattr(template_verification, "GATHERED", 3)
        monkeypatch.setattr(all_pairs, "HELD_IMPOSTORS", 1)


@pytest.mark.usefixtures("_blocks")
def test_counts_and_tar_equal_a_loop(symmetric: bool) -> None:
    probe, other, ids, pairs, _ = example()
    gallery = probe if symmetric else other
    found = verify_templates(probe, gallery, ids, TemplatePairs.of(blocks(pairs)), fars=(0.1, 0.01), resamples=0)
    scores = [(score, same) for score, _, _, same in compared(probe, gallery, ids, pairs)]
    for kind, counts in ((True, found.roc.genuine), (False, found.roc.impostor)):
        values, number = np.unique([s for s, same in scores if same == kind], return_counts=True)
        np.testing.assert_array_equal(found.roc.scores[counts > 0], values)
        np.testing.assert_array_equal(counts[counts > 0], number)
    for key, far in (("1e-1", 0.1), ("1e-2", 0.01)):
        assert found.tar_at_far[key][0].tar == tar_at(scores, far)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.usefixtures("_blocks")
def test_intervals_weigh_each_pair_by_its_subjects(
    symmetric: bool, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not dense:
        monkeypatch.setattr(template_verification, "DENSE", 0)
    probe, other, ids, pairs, subject = example(1)
    gallery = probe if symmetric else other
    listed = TemplatePairs.of(blocks(pairs))
    found = verify_templates(probe, gallery, ids, listed, fars=(0.05,), resamples=12)
    number = dict(zip(listed.ids.tolist(), listed.subject.tolist(), strict=True))
    assert len(set(number.values())) == len({(number[t], subject[t]) for t in number}) == 9
    everything = compared(probe, gallery, ids, pairs)
    for r, draw in enumerate(draws(9, 12)):
        scores = [
            (score, same)
            for score, a, b, same in everything
            for _ in range(draw[number[a]] * (1 if same else draw[number[b]]))
        ]
        assert found.tar_at_far["5e-2"][1].resampled[r] == pytest.approx(tar_at(scores, 0.05))
        genuine, impostor = (np.array([s for s, same in scores if same == kind]) for kind in (True, False))
        threshold = found.thresholds["5e-2"].resampled[r]
        assert (impostor >= threshold).mean() <= 0.05 + 1e-9
        assert (genuine >= threshold).mean() == found.tar_at_far["5e-2"][1].resampled[r]


@pytest.mark.parametrize("seed", range(5))
def test_the_field_prints_closest(symmetric: bool, seed: int) -> None:
    """insightface: roc_curve, turned over, the first point of the smallest |FPR - target|."""
    probe, other, ids, pairs, _ = example(seed)
    gallery = probe if symmetric else other
    fars = (0.2, 0.1, 0.05, 0.01)
    found = verify_templates(probe, gallery, ids, TemplatePairs.of(blocks(pairs)), fars=fars, resamples=0)
    scores = compared(probe, gallery, ids, pairs)
    fpr, tpr, _ = roc_curve([same for *_, same in scores], [score for score, *_ in scores])
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    for (key, entry), far in zip(found.to_json()["tar_at_far"].items(), fars, strict=True):
        place = min((abs(x - far), i) for i, x in enumerate(fpr))[1]
        assert entry["closest"] == {"tar": tpr[place], "far": fpr[place]}, key


@pytest.mark.parametrize("seed", range(20))
def test_subjects_are_the_components_of_genuine_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = rng.permutation(60)[rng.integers(0, 60, (rng.integers(1, 60), 2))]
    pairs = [(int(a), int(b), True) for a, b in edges] + [(int(a), 59 - int(a), False) for a in range(60)]
    found = TemplatePairs.of(blocks(pairs))
    assert found.ids.tolist() == list(range(60))
    reached = np.eye(60, dtype=bool)
    for _ in range(60):
        for a, b in edges:
            reached[a] = reached[b] = reached[a] | reached[b]
    np.testing.assert_array_equal(found.subject[:, None] == found.subject[None, :], reached | reached.T)
    assert set(found.subject.tolist()) == set(range(found.subject.max() + 1))


def test_a_long_chain_of_genuine_pairs_is_one_subject() -> None:
    order = np.random.default_rng(0).permutation(500)
    found = TemplatePairs.of(blocks([(int(a), int(b), True) for a, b in pairwise(order)]))
    assert not found.subject.any()


def test_the_pair_list_keeps_its_order_and_repetitions() -> None:
    pairs = [(9, 4, True), (4, 7, False), (9, 4, True)]
    found = TemplatePairs.of(blocks(pairs, size=2))
    assert found.ids.tolist() == [4, 7, 9]
    assert found.ids[found.first].tolist() == [9, 4, 9]
    assert found.ids[found.second].tolist() == [4, 7, 4]
    assert found.same.tolist() == [True, False, True]
    with pytest.raises(UserError, match="list of template pairs is empty"):
        TemplatePairs.of([])


def test_equal_templates_tie() -> None:
    """A collapsed model must not look perfect because of rounding."""
    _, _, ids, pairs, _ = example()
    one = unit(np.random.default_rng(0).normal(size=(1, 512)))
    vectors = np.repeat(one, len(ids) + 2, axis=0).astype(np.float32)
    every = np.r_[ids, 5000, 5001]
    found = verify_templates(vectors, vectors, every, TemplatePairs.of(blocks(pairs)), fars=(0.1,), resamples=3)
    assert len(found.roc.scores) == 1
    assert found.tar_at_far["1e-1"][0].tar == 0


@pytest.mark.parametrize("same", [True, False])
def test_one_kind_of_pair_gives_counts_only(same: bool) -> None:
    probe, _, ids, pairs, _ = example()
    one = [pair for pair in pairs if pair[2] == same]
    found = verify_templates(probe, probe, ids, TemplatePairs.of(blocks(one)), resamples=3).to_json()
    assert found["pairs"] == len(one)
    assert found["tar_at_far"] == {}
    assert json.dumps(found, allow_nan=False)


# --- 1:N


def search_example(
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[str, np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Two models, template ids, galleries G1 and G2 of 7 and 6 subjects, some with two templates, and 80 probes.

    Subjects 13 and 14 are in no gallery. One probe and one gallery template have no image.
    """
    rng = np.random.default_rng(seed)
    subject = np.r_[np.arange(13), 0, 3, 8, np.arange(80) % 15]
    ids = np.sort(rng.choice(5000, len(subject), replace=False))
    centres = unit(rng.normal(size=(15, DIM)))[subject]
    probe, gallery = grid_rows(rng, centres, 0.3), grid_rows(rng, centres, 0.3)
    names = np.array([f"s{s}" for s in subject])
    g1, g2 = np.flatnonzero(subject[:16] < 7), np.flatnonzero(subject[:16] >= 7)
    galleries = [
        ("G1", np.r_[ids[g1], 9000], np.append(names[g1], "s6")),
        ("G2", ids[g2], names[g2]),
    ]
    return probe, gallery, ids, galleries, (np.r_[ids[16:], 9001], np.append(names[16:], "s2"))


def brute_search(
    probe: np.ndarray, gallery: np.ndarray, ids: np.ndarray, enrolled: np.ndarray, persons: np.ndarray, probes: tuple
) -> list[tuple[str, float | None, float, int]]:
    """(subject, best score of a mate, best of others, others at least as high as the mate) of each probe."""
    place = {t: i for i, t in enumerate(ids.tolist())}
    zero = np.zeros(DIM, np.float32)
    found = []
    for t, s in zip(*probes, strict=True):
        query = probe[place[t]] if t in place else zero
        scores = [
            (float(query @ (gallery[place[e]] if e in place else zero)), p == s)
            for e, p in zip(enrolled, persons, strict=True)
        ]
        mates, others = ([x for x, mate in scores if mate == kind] for kind in (True, False))
        best = max(mates) if mates else None
        found.append((s, best, max(others), sum(x >= best for x in others) if best is not None else 0))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crossed", [False, True])
def test_ranks_equal_a_loop(seed: int, crossed: bool) -> None:
    gallery, probe, ids, galleries, probes = search_example(seed)
    probe = probe if crossed else gallery
    found = identify_templates(probe, gallery, ids, galleries, probes, ranks=(1, 3, 5), resamples=0)
    hits, mated = dict.fromkeys((1, 3, 5), 0), 0
    for name, enrolled, persons in galleries:
        searched = [r for r in brute_search(probe, gallery, ids, enrolled, persons, probes) if r[1] is not None]
        mated += len(searched)
        assert found.galleries[name].mated == len(searched)
        for k in hits:
            right = sum(above < k for *_, above in searched)
            assert found.galleries[name].rank[k].value == right / len(searched)
            hits[k] += right
    assert {k: found.rank[k].value for k in hits} == {k: hits[k] / mated for k in hits}
    assert found.cmc[[0, 2, 4]].tolist() == [found.rank[k].value for k in (1, 3, 5)]
    assert (found.probes, found.mated, mated) == (81, 81 - 10, 81 - 10)
    assert found.without_image == 2


@pytest.mark.parametrize("seed", range(4))
def test_open_set_equals_a_loop_and_the_field_its_own_definition(seed: int) -> None:
    probe, gallery, ids, galleries, probes = search_example(seed)
    found = identify_templates(probe, gallery, ids, galleries, probes, fpirs=(0.2, 0.05), resamples=0)
    tpir: dict[str, list[float]] = {key: [] for key in ("2e-1", "5e-2")}
    field: dict[str, list[float]] = {key: [] for key in tpir}
    for name, enrolled, persons in galleries:
        searched = brute_search(probe, gallery, ids, enrolled, persons, probes)
        alarms = np.array([other for _, mate, other, _ in searched if mate is None])
        mates = [(mate, above) for _, mate, _, above in searched if mate is not None]
        for key, fpir in (("2e-1", 0.2), ("5e-2", 0.05)):
            passing = [t for t in alarms if (alarms >= t).sum() <= fpir * len(alarms)]
            threshold = min(passing) if passing else np.nextafter(alarms.max(), np.inf)
            tpir[key].append(np.mean([above == 0 and mate >= threshold for mate, above in mates]))
            assert found.galleries[name].tpir_at_fpir[key][0].tar == tpir[key][-1]
            at = np.sort(alarms)[::-1][max(int(len(alarms) * fpir) - 1, 0)]
            field[key].append(np.mean([above == 0 and mate > at for mate, above in mates]))
            assert found.field[name][key] == (field[key][-1], at)
    output = found.to_json()
    for key in tpir:
        assert found.tpir_at_fpir[key].value == pytest.approx(np.mean(tpir[key]))
        assert output["tpir_at_fpir"][key]["field"] == {"tpir": pytest.approx(np.mean(field[key]))}


def test_intervals_draw_the_subjects_of_the_probes_alike_for_all_galleries() -> None:
    probe, gallery, ids, galleries, probes = search_example()
    found = identify_templates(probe, gallery, ids, galleries, probes, ranks=(1,), fpirs=(0.2,), resamples=8)
    persons = sorted(set(probes[1].tolist()))
    results = {name: brute_search(probe, gallery, ids, e, p, probes) for name, e, p in galleries}
    for r, draw in enumerate(draws(len(persons), 8)):
        times = dict(zip(persons, draw.tolist(), strict=True))
        repeated = {n: [x for x in found_ for _ in range(times[x[0]])] for n, found_ in results.items()}
        right = [above == 0 for one in repeated.values() for _, mate, _, above in one if mate is not None]
        assert found.rank[1].resampled[r] == pytest.approx(np.mean(right))
        each = [found.galleries[name].tpir_at_fpir["2e-1"][1].resampled[r] for name in results]
        assert found.tpir_at_fpir["2e-1"].resampled[r] == pytest.approx(np.mean(each))
    assert set(found.estimates()) == {"rank.1", "tpir_at_fpir.2e-1"}


def test_the_json_of_a_search() -> None:
    probe, gallery, ids, galleries, probes = search_example()
    output = identify_templates(probe, gallery, ids, galleries, probes, ranks=(1, 5, 10), resamples=20).to_json()
    assert json.loads(json.dumps(output, allow_nan=False)) == output
    assert (output["probes"], output["mated"], output["non_mated"]) == (81, 71, 10)
    assert (output["gallery_size"], output["gallery_identities"]) == (10 + 7, 7 + 6)
    assert list(output["rank"]) == ["1", "5"]  # G2 has 7 templates
    assert list(output["tpir_at_fpir"]) == ["1e-1"]  # too few non-mated probes for 1e-2
    assert set(output["tpir_at_fpir"]["1e-1"]) == {"value", "ci95", "non_mated", "fpir", "field"}
    assert len(output["curves"]["cmc"]) == 7
    assert list(output["galleries"]) == ["G1", "G2"]
    one = output["galleries"]["G1"]
    assert set(one["tpir_at_fpir"]["1e-1"]) == {"value", "ci95", "non_mated", "fpir", "threshold", "field"}
    assert set(one["tpir_at_fpir"]["1e-1"]["field"]) == {"tpir", "threshold"}


def test_a_single_gallery_that_has_everyone() -> None:
    probe, gallery, ids, galleries, probes = search_example()
    known = np.isin(probes[1], galleries[0][2])
    found = identify_templates(
        probe, gallery, ids, galleries[:1], (probes[0][known], probes[1][known]), resamples=5
    ).to_json()
    assert found["non_mated"] == 0
    assert found["tpir_at_fpir"] == {}
    assert found["rank"]["1"]["value"] == found["galleries"]["G1"]["rank"]["1"]["value"]
    nobody = identify_templates(
        probe, gallery, ids, galleries[:1], (probes[0][~known], probes[1][~known]), resamples=5
    ).to_json()
    assert (nobody["mated"], nobody["rank"], nobody["tpir_at_fpir"]) == (0, {}, {})
    assert json.dumps([found, nobody], allow_nan=False)


# --- from the files on


def test_from_the_files_to_the_numbers(tmp_path: Path) -> None:
    """Six templates of three people, told apart by colour; the embedding of an image is its mean colour."""
    meta, crops = tmp_path / "meta", tmp_path / "loose_crop"
    meta.mkdir()
    crops.mkdir()
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    landmarks, belongs = "", ""
    for i, colour in enumerate([c for c in colours for _ in range(4)], start=1):  # two templates of two images each
        Image.new("RGB", (150, 150), colours[colour]).save(crops / f"{i}.jpg")
        landmarks += f"{i}.jpg 55.0 65.0 90.0 65.0 72.0 85.0 58.0 105.0 87.0 105.0 0.9{i}\n"
        belongs += f"{i}.jpg {(i + 1) // 2} {i}\n"
    (meta / "ijbc_name_5pts_score.txt").write_text(landmarks)
    (meta / "ijbc_face_tid_mid.txt").write_text(belongs)
    (meta / "ijbc_template_pair_label.txt").write_text(
        "".join(f"{a} {b} {int((a + 1) // 2 == (b + 1) // 2)}\n" for a in range(1, 7) for b in range(a + 1, 7))
    )
    (meta / "ijbc_1N_gallery_G1.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n1,10,a\n1,10,b\n3,20,c\n")
    (meta / "ijbc_1N_gallery_G2.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n5,30,d\n3,20,c\n")
    (meta / "ijbc_1N_probe_mixed.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n2,10,e\n4,20,f\n6,30,g\n")
    source = IjbSource(tmp_path)
    vectors = np.stack([source.read(i).reshape(-1, 3).mean(0) for i in range(len(source))])[:, None]
    ids, rows = template_vectors(vectors.astype(np.float32), source.template, source.media, source.detector_score)
    assert ids.tolist() == [1, 2, 3, 4, 5, 6]
    verified = verify_templates(rows, rows, ids, TemplatePairs.of(source.pairs()), fars=(0.1,), resamples=5).to_json()
    assert (verified["pairs"], verified["genuine"], verified["auc"]) == (15, 3, 1)
    assert verified["tar_at_far"]["1e-1"]["closest"] == {"tar": 1, "far": 0}
    found = identify_templates(rows, rows, ids, source.galleries(), source.probes(), ranks=(1,), resamples=5)
    assert (found.rank[1].value, found.mated, found.without_image) == (1, 3, 0)
    assert found.galleries["G1"].mated == found.galleries["G2"].mated == 2
