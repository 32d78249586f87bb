"""IJB's 1:N protocol: templates searched in galleries of templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.metrics import far_key
from facedistill.evaluation.protocols.identification import (
    COUNTS,
    FIGURES,
    PLOTS,
    Found,
    Identification,
    measure,
    search,
)
from facedistill.evaluation.protocols.templates import Templates, rows_of, without_image
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, resampled_mean

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side

RANKS = (1, 5, 10)
FPIRS = (1e-1, 1e-2)


class TemplateSearch(Templates):
    """Templates of several images, searched in galleries of templates: who is it?"""

    name = "templates 1:N"
    kinds = usual = ("galleries",)
    figures, counts, plots = FIGURES, COUNTS, PLOTS

    def measure(self, probe: "Side", gallery: "Side") -> tuple["TemplateIdentification", dict[str, Any]]:
        of_probe, of_gallery, ids = self.vectors(probe, gallery)
        lists = self.data.galleries, self.data.source.probes()
        o = self.options
        found = identify_templates(of_probe, of_gallery, ids, *lists, resamples=o.resamples, seed=o.seed)
        empty = found.without_image
        return found, self.weighting | {"templates_without_image": empty, "resampled": "probe subjects"}


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
        measured[name] = measure(found[name], labels, searched[3], ranks, fpirs, resamples, seed)
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
