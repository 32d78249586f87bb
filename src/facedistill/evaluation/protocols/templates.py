"""IJB's protocols: one vector per template, 1:1 on a list of pairs, 1:N against galleries.

A template without a readable image gets the zero vector, which scores 0 with everything.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.errors import UserError
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.metrics import far_key
from facedistill.evaluation.protocols.all_pairs import Scores, Tally, bins_of, measure
from facedistill.evaluation.protocols.identification import (
    COUNTS as SEARCHED,
    FIGURES as FOUND,
    PLOTS as CURVES,
    Found,
    Identification,
    measure as measure_search,
    search,
)
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, Weights, draws, resampled_mean
from facedistill.evaluation.verification import COUNTS, FIGURES, PLOTS, Verification

if TYPE_CHECKING:
    from facedistill.data import Flip
    from facedistill.evaluation.sets import Side, TemplateSet

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RANKS = (1, 5, 10)
FPIRS = (1e-1, 1e-2)
FUSED_IMAGES = 4096  # fused at a time
GATHERED = 256  # pairs whose vectors are copied at a time: they stay in the cache
COUNTED = 1 << 20  # pairs whose scores are counted at a time
DENSE = 6000  # the most subjects for which a table of subject x subject is made
WEIGHTING = ("weight_by_norm", "weight_by_detector_score", "media_pooling")  # options of `template_vectors`


class Templates(Protocol):
    """The base of the two template protocols, which makes template vectors from images."""

    data: "TemplateSet"

    @property
    def weighting(self) -> dict[str, Any]:
        return {key: getattr(self.options, key) for key in WEIGHTING}

    def vectors(self, probe: "Side", gallery: "Side") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vectors of the probe's and the gallery's templates (one array if both are one side), and ids."""
        sides = [probe] if probe is gallery else [probe, gallery]
        pooled = [template_vectors(*self._images(side), **self.weighting, flip=self.options.flip) for side in sides]
        return pooled[0][1], pooled[-1][1], pooled[0][0]

    def _images(self, side: "Side") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        table, source = side.table("images"), self.data.source
        rows: slice | np.ndarray = slice(None)
        if len(table) < len(source):
            place = {key: i for i, key in enumerate(source.keys)}
            rows = np.array([place[key] for key in table.keys])
        return table.vectors, source.template[rows], source.media[rows], source.detector_score[rows]


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


class TemplateSearch(Templates):
    """Templates of several images, searched in galleries of templates: who is it?"""

    name = "templates 1:N"
    kinds = usual = ("galleries",)
    figures, counts, plots = FOUND, SEARCHED, CURVES

    def measure(self, probe: "Side", gallery: "Side") -> tuple["TemplateIdentification", dict[str, Any]]:
        of_probe, of_gallery, ids = self.vectors(probe, gallery)
        lists = self.data.galleries, self.data.source.probes()
        o = self.options
        found = identify_templates(of_probe, of_gallery, ids, *lists, resamples=o.resamples, seed=o.seed)
        empty = found.without_image
        return found, self.weighting | {"templates_without_image": empty, "resampled": "probe subjects"}


def template_vectors(
    vectors: np.ndarray,
    template: np.ndarray,
    media: np.ndarray,
    detector_score: np.ndarray,
    *,
    flip: "Flip" = "sum",
    weight_by_norm: bool = True,
    weight_by_detector_score: bool = True,
    media_pooling: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Pool the embeddings of each template's images. The defaults are the field's.

    The flip views of an image are summed, concatenated or left out without normalisation. A template is the normalised
    sum over its media of the mean over the medium's images.

    Args:
        vectors: raw embeddings, float32 (N, F, d), as embed.Embeddings has them.
        template, media: int64 (N,), ids; detector_score: float32 (N,), the detector's confidence in the face.
        weight_by_norm: keep the norm of each image's embedding, which is larger for sharp faces; False normalises it.
        weight_by_detector_score: multiply each image's embedding by the detector's score.
        media_pooling: False sums all images alike, so that a video counts once per frame.

    Returns:
        Template ids, int64 (T,), ascending, and unit rows, float32 (T, d), or (T, 2d) for flip "concat".
    """
    from facedistill.data import combine  # here, because it loads torch, and `results` reads the declarations above

    ids, row = np.unique(template, return_inverse=True)
    weight = np.ones(len(vectors))
    if weight_by_detector_score:
        weight *= detector_score
    if media_pooling:  # the mean over a medium is a sum with weights
        media, medium = np.unique(media, return_inverse=True)
        _, group, images = np.unique(row * len(media) + medium, return_inverse=True, return_counts=True)
        weight /= images[group]
    order = np.argsort(row, kind="stable")
    sums = np.zeros((len(ids), vectors.shape[2] * (vectors.shape[1] if flip == "concat" else 1)))
    for part in (order[start : start + FUSED_IMAGES] for start in range(0, len(order), FUSED_IMAGES)):
        image = combine(vectors[part], flip)
        if not weight_by_norm:
            image = _unit(image)
        rows, starts = np.unique(row[part], return_index=True)
        sums[rows] += np.add.reduceat(image * weight[part, None], starts, axis=0)
    return ids, _unit(sums).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def rows_of(vectors: np.ndarray, ids: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Return the vectors (K, d) of `templates` (K,) from those of ascending `ids` (T,); zero for one not in `ids`."""
    place = np.searchsorted(ids, templates).clip(max=len(ids) - 1)
    return np.where((ids[place] == templates)[:, None], vectors[place], np.zeros(1, vectors.dtype))


def without_image(ids: np.ndarray, *templates: np.ndarray) -> int:
    """Return the number of distinct `templates` that are not among `ids`, so that their vectors are zero."""
    return len(np.setdiff1d(np.concatenate(templates), ids))


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


@dataclass(frozen=True)
class TemplateIdentification(Measurement):
    """The measurement of a 1:N search in several galleries, none of which holds all subjects.

    Attributes:
        galleries: the search in each of them.
        probes: templates; mated: those whose subject some gallery has.
        rank: by k, the share found at rank k of all mated searches, in any gallery.
        tpir_at_fpir: by name of the target FPIR, the mean over the galleries; absent if one cannot measure it.
        field: by gallery and name of the target FPIR, TPIR and threshold as the field defines them (`field_tpir`).
        cmc: float64, the shares at rank 1, 2, ...
        without_image: the number of templates with the zero vector; not in the JSON.
    """

    galleries: dict[str, Identification]
    probes: int
    mated: int
    rank: dict[int, Estimate]
    tpir_at_fpir: dict[str, Estimate]
    field: dict[str, dict[str, tuple[float, float]]]
    cmc: np.ndarray
    without_image: int

    def to_json(self) -> dict[str, Any]:
        """Return the keys of an Identification for all galleries together, sizes added up, and of each in `galleries`.

        A threshold belongs to one gallery. The means come with the smallest number of non-mated probes and the mean of
        the FPIRs obtained.
        """
        galleries = {name: found.to_json() for name, found in self.galleries.items()}
        for name, points in self.field.items():
            for key, (tpir, threshold) in points.items():
                galleries[name]["tpir_at_fpir"][key]["field"] = {"tpir": tpir, "threshold": threshold}
        json: dict[str, Any] = {
            "probes": self.probes,
            "mated": self.mated,
            "non_mated": self.probes - self.mated,
            "gallery_size": sum(found.gallery_size for found in self.galleries.values()),
            "gallery_identities": sum(found.gallery_identities for found in self.galleries.values()),
            "rank": {str(k): estimate.to_json() for k, estimate in self.rank.items()},
            "tpir_at_fpir": {},
        }
        for key, estimate in self.tpir_at_fpir.items():
            each = [found.tpir_at_fpir[key][0] for found in self.galleries.values()]
            json["tpir_at_fpir"][key] = estimate.to_json() | {
                "non_mated": min(point.impostors for point in each),
                "fpir": float(np.mean([point.far for point in each])),
                "field": {"tpir": float(np.mean([field[key][0] for field in self.field.values()]))},
            }
        if len(self.cmc):
            json["curves"] = {"cmc": self.cmc.tolist()}
        return json | {"galleries": galleries}

    def estimates(self) -> dict[str, Estimate]:
        return {f"rank.{k}": estimate for k, estimate in self.rank.items()} | {
            f"tpir_at_fpir.{key}": estimate for key, estimate in self.tpir_at_fpir.items()
        }


def identify_templates(
    probe: np.ndarray,
    gallery: np.ndarray,
    ids: np.ndarray,
    galleries: Sequence[tuple[str, np.ndarray, np.ndarray]],
    probes: tuple[np.ndarray, np.ndarray],
    *,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> TemplateIdentification:
    """Search every probe template in every gallery, with the definitions of identification.identify.

    A probe whose subject a gallery lacks is a non-mated probe of that gallery. A subject may have several templates in
    a gallery: the best one counts. Intervals: the subjects of the probes are resampled, alike for all galleries.

    Args:
        probe, gallery: unit rows, float32 (T, d), of the templates `ids`, int64 (T,), ascending.
        galleries: name, template ids and subjects of each, at least one; probes: template ids and subjects, as
            IjbSource returns them.
    """
    templates, subjects = probes
    known = np.unique(np.concatenate([subjects, *(enrolled for _, _, enrolled in galleries)]))
    queries, labels = rows_of(probe, ids, templates), np.searchsorted(known, subjects)
    found: dict[str, Found] = {}
    measured: dict[str, Identification] = {}
    for name, rows, enrolled in galleries:
        searched = queries, labels, rows_of(gallery, ids, rows), np.searchsorted(known, enrolled)
        found[name] = search(*searched)
        measured[name] = measure_search(found[name], labels, searched[3], ranks, fpirs, resamples, seed)
    mate, above = (np.concatenate([getattr(one, part) for one in found.values()]) for part in ("mate", "above"))
    person, mated = np.tile(labels, len(found)), mate > -np.inf

    def found_at(k: int) -> np.ndarray:
        return np.where(mated, above < k, np.nan)

    def rank(k: int) -> Estimate:
        return Estimate(float(np.nanmean(found_at(k))), resampled_mean(found_at(k), person, resamples, seed))

    def mean(key: str) -> Estimate:
        each = [one.tpir_at_fpir[key][1] for one in measured.values()]
        return Estimate(float(np.mean([e.value for e in each])), np.mean([e.resampled for e in each], axis=0))

    def measurable(key: str) -> bool:
        return all(key in one.tpir_at_fpir for one in measured.values())

    return TemplateIdentification(
        galleries=measured,
        probes=len(templates),
        mated=int(mated.reshape(len(found), -1).any(axis=0).sum()),
        rank={k: rank(k) for k in ranks if all(k in one.rank for one in measured.values())},
        tpir_at_fpir={key: mean(key) for key in map(far_key, fpirs) if measurable(key)},
        field={
            name: {far_key(f): field_tpir(found[name], f) for f in fpirs if far_key(f) in one.tpir_at_fpir}
            for name, one in measured.items()
        },
        cmc=np.array([np.nanmean(found_at(k + 1)) for k in range(min(len(one.cmc) for one in measured.values()))]),
        without_image=without_image(ids, templates, *(rows for _, rows, _ in galleries)),
    )


def field_tpir(found: Found, fpir: float) -> tuple[float, float]:
    """Return TPIR and threshold as insightface defines them; needs mated and non-mated probes.

    The threshold is the score of rank int(fpir * n), or the highest, among the n non-mated probes' best scores. A mate
    must score above it, whereas `identify` also accepts at it: with distinct scores, one false alarm fewer passes here.
    """
    mated = found.mate > -np.inf
    alarms = np.sort(found.other[~mated])[::-1]
    threshold = alarms[max(int(len(alarms) * fpir) - 1, 0)]
    identified = (found.above == 0) & (found.mate > threshold)
    return float(identified[mated].mean()), float(threshold)
