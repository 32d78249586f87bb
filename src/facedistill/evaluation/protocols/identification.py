"""1:N search: find the person on a probe image, closed set (rank-k, CMC) and open set (TPIR at FPIR).

A mated probe has its person in the gallery, a non-mated one does not. Ties count against the system. Any number of
distractors may follow the gallery: they are read once, in blocks, and at most a tile of scores is held.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.evaluation.figures import Count, Figure, Line, Target
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.metrics import OperatingPoint, Roc, far_key, tar_at_far
from facedistill.evaluation.protocols.all_pairs import SCORE_GRID
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.statistics import (
    RESAMPLES,
    SEED,
    Estimate,
    Weights,
    draws,
    resampled_mean,
    resampled_points,
)

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side

RANKS = (1, 5, 10, 20)
FPIRS = (1e-1, 1e-2, 1e-3)
CMC = 50  # ranks of the curve
TILE = (1024, 4096)
# Products of equal embeddings differ in their last bits between shapes of tile; scores closer than this are equal.
TIE = 1 / SCORE_GRID
NOBODY = np.iinfo(np.int64).min

RANK = Figure("rank", "rank {}", "finds the right identity within rank {of} for {}", headline=True)
TPIR = Figure(
    "tpir_at_fpir",
    "TPIR at FPIR {}",
    "finds {} of the enrolled",
    target=Target("FPIR", obtained="fpir", decided_by="non_mated"),
)
FIGURES = (RANK, TPIR)
COUNTS = (
    Count("probes", "probes"),
    Count("mated", "of them mated"),
    Count("non_mated", "not mated"),
    Count("gallery_size", "images in the gallery"),
    Count("gallery_identities", "identities there"),
    Count("distractors", "distractors"),
)
PLOTS = (
    Line(
        "cmc",
        "CMC",
        x="rank",
        y="right identity within rank",
        about="share of mated probes whose identity is among the first k",
    ),
)


class InGallery(Protocol):
    """Who is it? Probes are searched in a gallery that may lack them."""

    name = "identification"
    kinds = ("labels", "gallery")
    usual = ("gallery",)
    figures, counts, plots = FIGURES, COUNTS, PLOTS

    def refusal(self, probe: "Side", gallery: "Side") -> str | None:
        if "gallery" in self.data.kinds or all(len(rows) for rows in split_gallery(gallery.table("images").labels)):
            return None
        return (
            f"{self.data.path}: no identity has two images, so nobody can be enrolled and searched for; "
            "give more images, or a separate gallery with --gallery"
        )

    def measure(self, probe: "Side", gallery: "Side") -> tuple["Identification", dict[str, Any]]:
        of_set = "gallery" in self.data.kinds
        probes, enrolled = _searched(probe, gallery) if of_set else _split(probe, gallery)
        found = identify(
            *probes,
            *enrolled,
            distractors=gallery.blocks("distractors"),
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        about = "given" if of_set else "the first image of each identity with several"
        return found, {"gallery": about, "resampled": "probe identities"}


Labelled = tuple[np.ndarray, np.ndarray]  # unit rows and their labels


def _searched(probe: "Side", gallery: "Side") -> tuple[Labelled, Labelled]:
    """Return probes and gallery of two data sets, whose classes are matched by name."""
    probes, enrolled = probe.table("probes"), gallery.table("gallery")
    number = {name: i for i, name in enumerate(dict.fromkeys([*enrolled.class_names, *probes.class_names]))}
    labels = [np.array([number[t.class_names[label]] for label in t.labels]) for t in (probes, enrolled)]
    return (probe.unit("probes"), labels[0]), (gallery.unit("gallery"), labels[1])


def _split(probe: "Side", gallery: "Side") -> tuple[Labelled, Labelled]:
    """Return probes and gallery from one labelled set."""
    labels = gallery.table("images").labels
    enrolled, probes = split_gallery(labels)
    return (probe.unit("images")[probes], labels[probes]), (gallery.unit("images")[enrolled], labels[enrolled])


@dataclass(frozen=True)
class Identification(Measurement):
    """The measurement of a 1:N search.

    Attributes:
        probes, mated: images; the probes that are not mated are the non-mated ones.
        gallery_size: rows that are searched, including distractors; gallery_identities: persons in the gallery.
        rank: by k, the share of mated probes found at rank k; only for k below the gallery's size, else it is 1.
        tpir_at_fpir: by name of the target FPIR ("1e-2"); absent if non-mated probes are too few to measure it.
        cmc: float64, the shares at rank 1, 2, ..., 50 or the gallery's size; empty without mated probes.
    """

    probes: int
    mated: int
    gallery_size: int
    gallery_identities: int
    distractors: int
    rank: dict[int, Estimate]
    tpir_at_fpir: dict[str, tuple[OperatingPoint, Estimate]]
    cmc: np.ndarray

    def to_json(self) -> dict[str, Any]:
        json: dict[str, Any] = {
            "probes": self.probes,
            "mated": self.mated,
            "non_mated": self.probes - self.mated,
            "gallery_size": self.gallery_size,
            "gallery_identities": self.gallery_identities,
        }
        if self.distractors:
            json["distractors"] = self.distractors
        json["rank"] = {str(k): estimate.to_json() for k, estimate in self.rank.items()}
        json["tpir_at_fpir"] = {
            key: estimate.to_json() | {"non_mated": point.impostors, "fpir": point.far, "threshold": point.threshold}
            for key, (point, estimate) in self.tpir_at_fpir.items()
        }
        return json | ({"curves": {"cmc": self.cmc.tolist()}} if len(self.cmc) else {})

    def estimates(self) -> dict[str, Estimate]:
        return {f"rank.{k}": estimate for k, estimate in self.rank.items()} | {
            f"tpir_at_fpir.{key}": estimate for key, (_, estimate) in self.tpir_at_fpir.items()
        }


def identify(
    probe: np.ndarray,
    probe_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    distractors: Iterable[np.ndarray] = (),
    excluded: np.ndarray | None = None,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Identification:
    """Search every probe in the gallery.

    Closed set: a mated probe is found at rank k if fewer than k rows of others score as high as its best mate.
    Open set: a non-mated probe raises a false alarm if its highest score is at or above the threshold; a mated one is
    identified if its mate is at rank 1 and at or above the threshold. Thresholds are as in metrics.tar_at_far.
    Intervals: the persons of the probes are resampled, not the gallery, which is part of the system.

    Args:
        probe, gallery: unit rows, float32 (P, d) and (G, d).
        probe_labels, gallery_labels: int64 (P,) and (G,), one numbering of persons; a negative one in the gallery is a
            distractor, who is nobody's mate.
        distractors: blocks of unit rows (n, d), each read once.
        excluded: int64 (P,), a row of the gallery that the probe is not compared with (the same image), or -1. If it is
            the only mate, the probe is non-mated.
    """
    found = search(probe, probe_labels, gallery, gallery_labels, distractors, excluded)
    return measure(found, probe_labels, gallery_labels, ranks, fpirs, resamples, seed)


def measure(
    found: "Found",
    probe_labels: np.ndarray,
    gallery_labels: np.ndarray,
    ranks: Sequence[int],
    fpirs: Sequence[float],
    resamples: int,
    seed: int,
) -> Identification:
    """Return the measurement of a search, see `identify`."""
    mated, labelled = found.mate > -np.inf, gallery_labels[gallery_labels >= 0]

    def found_at(k: int) -> np.ndarray:
        return np.where(mated, found.above < k, np.nan)

    def estimate(k: int) -> Estimate:
        return Estimate(float(np.nanmean(found_at(k))), resampled_mean(found_at(k), probe_labels, resamples, seed))

    longest = min(CMC, found.size) if mated.any() else 0
    return Identification(
        probes=len(probe_labels),
        mated=int(mated.sum()),
        gallery_size=found.size,
        gallery_identities=len(np.unique(labelled)),
        distractors=found.size - len(labelled),
        rank={k: estimate(k) for k in ranks if mated.any() and k < found.size},
        tpir_at_fpir=_open_set(found, mated, probe_labels, fpirs, resamples, seed),
        cmc=np.array([np.nanmean(found_at(k)) for k in range(1, longest + 1)]),
    )


def _open_set(
    found: "Found", mated: np.ndarray, probe_labels: np.ndarray, fpirs: Sequence[float], resamples: int, seed: int
) -> dict[str, tuple[OperatingPoint, Estimate]]:
    score = np.where(mated, np.where(found.above == 0, found.mate, -np.inf), found.other)
    score = np.rint(score.astype(np.float64) * SCORE_GRID) / SCORE_GRID
    genuine, impostor = (np.flatnonzero(kind)[np.argsort(-score[kind], kind="stable")] for kind in (mated, ~mated))
    person = np.unique(probe_labels, return_inverse=True)[1]
    weights = (draw[person] for draw in draws(int(person.max(initial=-1)) + 1, resamples, seed))
    tpir, _ = resampled_points(
        score[genuine],
        score[impostor],
        fpirs,
        (Weights(w[genuine], w[impostor], w[impostor].sum()) for w in weights),
        complete=True,
    )
    roc = Roc.of(score[genuine], score[impostor])
    points = {far_key(fpir): (tar_at_far(roc, fpir), tpir[:, f]) for f, fpir in enumerate(fpirs)}
    return {key: (point, Estimate(point.tar, values)) for key, (point, values) in points.items() if point}


def split_gallery(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split one labelled set (int64 (N,)) into gallery and probes: rows of each, int64, ascending.

    If a person has several images, the first one is enrolled and the others are mated probes. The image of a person
    with a single one is a non-mated probe.
    """
    _, first, images = np.unique(labels, return_index=True, return_counts=True)
    gallery = np.sort(first[images > 1])
    return gallery, np.setdiff1d(np.arange(len(labels)), gallery)


@dataclass(frozen=True)
class Found:
    """The result of a search for each probe.

    Attributes:
        mate: float32 (P,), the highest score of a mate; -inf if there is none.
        other: float32 (P,), the highest score of all other rows; -1, the lowest cosine, if there is none.
        above: int64 (P,), the number of other rows that score at least as high as the best mate; 0 without a mate.
        size: rows searched.
    """

    mate: np.ndarray
    other: np.ndarray
    above: np.ndarray
    size: int


def search(
    probe: np.ndarray,
    probe_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    distractors: Iterable[np.ndarray] = (),
    excluded: np.ndarray | None = None,
) -> Found:
    """Compare every probe with every row of the gallery and of the distractors, tile by tile; args as in `identify`."""
    gallery_labels = np.where(gallery_labels < 0, NOBODY, gallery_labels)
    excluded = np.full(len(probe), -1) if excluded is None else excluded
    mate = _best_mates(probe, probe_labels, gallery, gallery_labels, excluded)
    limit = np.where(mate > -np.inf, mate - np.float32(TIE), np.float32(np.inf))
    other, above, size = np.full(len(probe), -1, np.float32), np.zeros(len(probe), np.int64), 0

    def count(rows: slice, score: np.ndarray) -> None:
        other[rows] = np.maximum(other[rows], score.max(axis=1))
        above[rows] += (score >= limit[rows, None]).sum(axis=1)

    for columns in _slices(len(gallery), TILE[1]):
        size += columns.stop - columns.start
        for rows in _slices(len(probe), TILE[0]):
            score = probe[rows] @ gallery[columns].T
            mates = probe_labels[rows, None] == gallery_labels[columns]
            score[mates | (excluded[rows, None] == np.arange(columns.start, columns.stop))] = -np.inf
            count(rows, score)
    for block in distractors:
        for columns in _slices(len(block), TILE[1]):
            size += columns.stop - columns.start
            for rows in _slices(len(probe), TILE[0]):
                count(rows, probe[rows] @ block[columns].T)
    return Found(mate, other, above, size)


def _best_mates(
    probe: np.ndarray, probe_labels: np.ndarray, gallery: np.ndarray, gallery_labels: np.ndarray, excluded: np.ndarray
) -> np.ndarray:
    """Return the highest score of a mate, float32 (P,); -inf if there is none."""
    best = np.full(len(probe), -np.inf, np.float32)
    for rows in _slices(len(probe), TILE[0]):
        enrolled = np.flatnonzero(np.isin(gallery_labels, probe_labels[rows]))
        for part in _slices(len(enrolled), TILE[1]):
            columns = enrolled[part]
            mates = (probe_labels[rows, None] == gallery_labels[columns]) & (excluded[rows, None] != columns)
            score = np.where(mates, probe[rows] @ gallery[columns].T, -np.inf)
            best[rows] = np.maximum(best[rows], score.max(axis=1))
    return best


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
