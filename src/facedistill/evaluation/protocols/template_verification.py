"""IJB's 1:1 protocol: a list of pairs of templates, of the same person or not."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.errors import UserError
from facedistill.evaluation.protocols.all_pairs import Scores, Tally, bins_of, measure
from facedistill.evaluation.protocols.templates import Templates, rows_of, without_image
from facedistill.evaluation.statistics import RESAMPLES, SEED, Weights, draws
from facedistill.evaluation.verification import COUNTS, FIGURES, PLOTS, Verification

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
GATHERED = 256  # pairs whose vectors are copied at a time: they stay in the cache
COUNTED = 1 << 20  # pairs whose scores are counted at a time
DENSE = 6000  # the most subjects for which a table of subject x subject is made


class TemplateVerification(Templates):
    """Templates of several images, the official pairs of them: the same person or not."""

    name = "templates 1:1"
    kinds = usual = ("templates",)
    figures, counts, plots = FIGURES, COUNTS, PLOTS

    @cached_property
    def pairs(self) -> "TemplatePairs":
        return TemplatePairs.of(self.data.source.pairs())

    def measure(self, probe: "Side", gallery: "Side") -> tuple[Verification, dict[str, Any]]:
        of_probe, of_gallery, ids = self.vectors(probe, gallery)
        o = self.options
        found = verify_templates(
            of_probe, of_gallery, ids, self.pairs, fars=o.fars or FARS, resamples=o.resamples, seed=o.seed
        )
        empty = without_image(ids, self.pairs.ids)
        return found, self.weighting | {"templates_without_image": empty, "resampled": "subjects"}


@dataclass(frozen=True)
class TemplatePairs:
    """A list of 1:1 comparisons, read once for any number of models: 9 bytes per pair.

    The list does not identify people. Templates linked by genuine pairs, directly or through others, count as one
    subject. The bootstrap draws subjects.

    Attributes:
        ids: int64 (A,), every template of the list, ascending.
        subject: int32 (A,), the subject of each, numbered from 0.
        first, second: int32 (P,), places in `ids`; same: bool (P,), as listed.
    """

    ids: np.ndarray
    subject: np.ndarray
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray

    @classmethod
    def of(cls, blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "TemplatePairs":
        """Make the list from blocks of (template ids, template ids, same person?), as IjbSource.pairs yields them.

        Raises UserError if there is no pair.
        """
        listed = list(blocks)
        if not listed:
            raise UserError("the list of template pairs is empty; expected one line per pair: template template label")
        ids = np.unique(np.concatenate([np.unique(side) for first, second, _ in listed for side in (first, second)]))
        first, second = (
            np.concatenate([np.searchsorted(ids, block[side]).astype(np.int32) for block in listed]) for side in (0, 1)
        )
        same = np.concatenate([block[2] for block in listed])
        return cls(ids, _components(len(ids), first[same], second[same]), first, second, same)

    def impostor_weights(self, drawn: np.ndarray) -> np.ndarray:
        """Return the weight of all impostor pairs, float64 (R,), in each resample.

        Args:
            drawn: int32 (R, S), how often each resample draws each subject; a pair weighs the product of its two.
        """
        subjects = drawn.shape[1]
        first, second = (self.subject[side[~self.same]] for side in (self.first, self.second))
        if subjects > DENSE:
            return np.array([(draw[first] * draw[second]).sum() for draw in drawn], dtype=np.float64)
        between = np.zeros(subjects**2)
        np.add.at(between, first.astype(np.int64) * subjects + second, 1)
        return ((drawn @ between.reshape(subjects, subjects)) * drawn).sum(axis=1)


def _components(nodes: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number the connected components of a graph, int32 (nodes,), by the two ends of its edges."""
    root = np.arange(nodes)
    while True:
        joined = root.copy()
        lower = np.minimum(root[first], root[second])
        np.minimum.at(joined, root[first], lower)
        np.minimum.at(joined, root[second], lower)
        joined = joined[joined]
        if (joined == root).all():  # then the two ends of every edge have the same root
            return np.unique(root, return_inverse=True)[1].astype(np.int32)
        root = joined


def verify_templates(
    probe: np.ndarray,
    gallery: np.ndarray,
    ids: np.ndarray,
    pairs: TemplatePairs,
    *,
    fars: Sequence[float] = FARS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verification:
    """Evaluate `probe` against `gallery` templates on the listed pairs.

    Symmetric (`probe is gallery`): each pair once. Otherwise both directions, (first probe, second gallery) and
    (second probe, first gallery), pooled. A pair that is listed twice counts twice. Intervals: subjects are resampled.

    Args:
        probe, gallery: unit rows, float32 (T, d), of the templates `ids`, int64 (T,), ascending.
    """
    sides = [(pairs.first, pairs.second)]
    if probe is not gallery:
        sides.append((pairs.second, pairs.first))
    rows = rows_of(probe, ids, pairs.ids), rows_of(gallery, ids, pairs.ids)
    subjects = int(pairs.subject.max()) + 1
    drawn = np.array(list(draws(subjects, resamples, seed)), dtype=np.int32).reshape(resamples, subjects)
    totals = pairs.impostor_weights(drawn) * len(sides)

    def collect(held: int) -> Scores:
        tally = Tally(held)
        for first, second in sides:
            for start in range(0, len(first), COUNTED):
                a, b, same = (part[start : start + COUNTED] for part in (first, second, pairs.same))
                tally.add(bins_of(_cosines(*rows, a, b)), same, pairs.subject[a], pairs.subject[b])
        return tally.scores()

    def weigh(scores: Scores) -> Iterator[Weights]:
        return (scores.weights(draw, total) for draw, total in zip(drawn, totals, strict=True))

    return measure(collect, weigh, int((~pairs.same).sum()) * len(sides), fars)


def _cosines(probe: np.ndarray, gallery: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the product of row first[i] of `probe` with row second[i] of `gallery`, float32 (P,)."""
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), GATHERED):
        part = slice(start, start + GATHERED)
        np.einsum("nd,nd->n", probe[first[part]], gallery[second[part]], out=found[part])
    return found
