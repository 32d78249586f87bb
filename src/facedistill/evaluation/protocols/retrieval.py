"""Each image of a labelled set searches for its own class among all others: recall@k, mAP, R-precision, a k-NN vote.

Scores are rounded to multiples of 2^-20, so that equal embeddings tie (all_pairs.py). Among images that tie, wrong ones
come before right ones, and then earlier ones before later ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.evaluation.figures import Count, Figure
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.protocols.all_pairs import SCORE_GRID
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, resampled_mean

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side

KS = (1, 5, 10)
VOTERS = 5
HELD_SCORES = 2**21  # scores held at once


class AmongOthers(Protocol):
    """Every image searches its class among all others."""

    name = "retrieval"
    kinds = ("labels",)
    figures = (
        Figure("recall_at", "recall at {}", "has the right class among the nearest {of} for {}", headline=True),
        Figure("map", "mAP"),
        Figure("r_precision", "R-precision"),
        Figure("knn", "vote of {}"),
    )
    counts = (Count("queries", "queries"), Count("alone", "more are alone in their class"))

    def measure(self, probe: "Side", gallery: "Side") -> tuple["Retrieval", dict[str, Any]]:
        found = retrieve(
            probe.unit("images"),
            gallery.unit("images"),
            gallery.table("images").labels,
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        return found, {"resampled": "classes"}


@dataclass(frozen=True)
class Retrieval(Measurement):
    """The measurement of a retrieval.

    Attributes:
        queries: images that have another one of their class; alone: those that have none, and do not count.
        recall_at: by k, share of queries with an image of their class among the k nearest; only for k below the number
            of other images, else it is 1.
        map: mean average precision. r_precision: mean share of right images among the R nearest, if R right ones exist.
            Both are None without queries.
        knn: by k, share of queries whose k nearest vote for their class. The majority wins; of classes with equal
            votes, the one with the nearest image. One voter is recall@1.
    """

    queries: int
    alone: int
    recall_at: dict[int, Estimate]
    map: Estimate | None
    r_precision: Estimate | None
    knn: dict[int, Estimate]

    def to_json(self) -> dict[str, Any]:
        json: dict[str, Any] = {"queries": self.queries, "alone": self.alone}
        json["recall_at"] = {str(k): estimate.to_json() for k, estimate in self.recall_at.items()}
        if self.map and self.r_precision:
            json |= {"map": self.map.to_json(), "r_precision": self.r_precision.to_json()}
        return json | {"knn": {str(k): estimate.to_json() for k, estimate in self.knn.items()}}

    def estimates(self) -> dict[str, Estimate]:
        found = {f"recall_at.{k}": estimate for k, estimate in self.recall_at.items()}
        if self.map and self.r_precision:
            found |= {"map": self.map, "r_precision": self.r_precision}
        return found | {f"knn.{k}": estimate for k, estimate in self.knn.items()}


def retrieve(
    probe: np.ndarray,
    gallery: np.ndarray,
    labels: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Retrieval:
    """Query with each image's `probe` embedding the `gallery` embeddings of all other images.

    Intervals: classes are resampled.

    Args:
        probe, gallery: unit rows, float32 (N, d), of the same images.
        labels: int64 (N,), any numbers.
    """
    kind = np.unique(labels, return_inverse=True)[1]
    queries = np.flatnonzero(np.bincount(kind)[kind] > 1)
    others = len(labels) - 1
    answers = [_answer(ranking) for ranking in _rankings(probe, gallery, kind, queries)]
    first, precision, r_precision, vote = np.concatenate(answers, axis=1) if answers else np.empty((4, 0))

    def estimate(values: np.ndarray) -> Estimate:
        return Estimate(float(values.mean()), resampled_mean(values, kind[queries], resamples, seed))

    return Retrieval(
        queries=len(queries),
        alone=len(labels) - len(queries),
        recall_at={k: estimate((first < k).astype(np.float64)) for k in ks if len(queries) and k < others},
        map=estimate(precision) if len(queries) else None,
        r_precision=estimate(r_precision) if len(queries) else None,
        knn={VOTERS: estimate(vote)} if len(queries) and others >= VOTERS else {},
    )


@dataclass(frozen=True)
class Ranking:
    """All other images for each query of a block, nearest first.

    right: bool (Q, N), the image is of the query's class; the query itself comes last and counts as wrong.
    nearest: int64 (Q, VOTERS or less), classes of the first images. own: int64 (Q,), the query's class.
    """

    right: np.ndarray
    nearest: np.ndarray
    own: np.ndarray


def _rankings(probe: np.ndarray, gallery: np.ndarray, kind: np.ndarray, queries: np.ndarray) -> Iterator[Ranking]:
    number = len(kind)
    shift = number.bit_length()
    gallery = gallery.astype(np.float64)  # float32 would sometimes round equal embeddings differently
    step = max(1, HELD_SCORES // max(1, number))
    for start in range(0, len(queries), step):
        rows = queries[start : start + step]
        # One integer per image sorts by descending score, then wrong before right, then by place.
        key = np.rint(probe[rows].astype(np.float64) @ gallery.T * -SCORE_GRID).astype(np.int64)
        key *= 2
        key -= kind[rows, None] != kind
        key <<= shift
        key += np.arange(number)
        key[np.arange(len(rows)), rows] = np.iinfo(np.int64).max  # odd above the shift, as a wrong one is
        key.sort(axis=1)
        nearest = key[:, : min(VOTERS, number - 1)] & ((1 << shift) - 1)
        yield Ranking(right=(key >> shift) & 1 == 0, nearest=kind[nearest], own=kind[rows])


def _answer(ranking: Ranking) -> np.ndarray:
    """Return float64 (4, Q): place of the first right image, average precision, R-precision, vote (1 if right)."""
    number = len(ranking.own)
    query, place = np.nonzero(ranking.right)
    there = np.bincount(query, minlength=number)
    start = np.cumsum(there) - there
    seen = np.arange(1, len(query) + 1) - start[query]  # right images up to this one
    precision = np.bincount(query, seen / (place + 1), number) / there
    r_precision = np.bincount(query, place < there[query], number) / there
    votes = (ranking.nearest[:, :, None] == ranking.nearest[:, None, :]).sum(axis=2)
    vote = ranking.nearest[np.arange(number), votes.argmax(axis=1)] == ranking.own
    return np.stack([place[start], precision, r_precision, vote])
