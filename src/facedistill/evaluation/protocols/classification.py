"""Classify probes by the rows of a class matrix W: top-1, top-5, mean accuracy of the classes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.errors import some
from facedistill.evaluation.figures import Count, Figure
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.protocols.identification import search
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, resampled_mean

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side


class ByClassifier(Protocol):
    """Which class is it? The nearest row of the gallery model's classifier."""

    name = "classification"
    kinds = ("labels",)
    figures = (
        Figure("top1", "top 1", "puts {} of the images into their class", headline=True),
        Figure("top5", "top 5"),
        Figure("per_class", "mean of classes"),
    )
    counts = (Count("classes", "classes"),)

    def refusal(self, probe: "Side", gallery: "Side") -> str | None:
        known, w = gallery.table("images").class_names, gallery.model.classifier
        lacking = [] if w is None else [name for name in known if name not in set(w.class_names)]
        if w is None:
            why = "it has none"
        elif lacking:
            why = f"its classifier lacks {some(lacking)}"
        elif self.options.flip == "concat":
            why = "--flip concat has no classifier"
        else:
            return None
        return (
            f"classification on {self.data.path}: needs a gallery model whose classifier knows its classes; {why}: "
            "ask for --protocol retrieval instead"
        )

    def measure(self, probe: "Side", gallery: "Side") -> tuple["Classification", dict[str, Any]]:
        table, w = gallery.table("images"), gallery.model.classifier
        assert w is not None
        place = {name: row for row, name in enumerate(w.class_names)}
        found = classify(
            probe.unit("images"),
            table.labels,
            w.weight.float().cpu().numpy(),
            np.array([place[name] for name in table.class_names]),
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        return found, {"classifier": w.origin, "resampled": "classes"}


@dataclass(frozen=True)
class Classification(Measurement):
    """The measurement of a classification.

    Attributes:
        top1, top5: share of images whose own row is the nearest, or among the five nearest.
        per_class: mean over the classes that have images of their top-1 accuracies.
        classes: rows of W. With five or fewer, top5 would be 1 and is None.
    """

    top1: Estimate
    top5: Estimate | None
    per_class: Estimate
    classes: int

    def to_json(self) -> dict[str, Any]:
        return {name: estimate.to_json() for name, estimate in self.estimates().items()} | {"classes": self.classes}

    def estimates(self) -> dict[str, Estimate]:
        found = {"top1": self.top1, "top5": self.top5, "per_class": self.per_class}
        return {name: estimate for name, estimate in found.items() if estimate is not None}


def classify(
    probe: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    rows: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Classification:
    """Compare every image with every row of W, in tiles; a row that ties with the image's own counts against it.

    Intervals: classes are resampled.

    Args:
        probe: unit rows, float32 (N, d), at least one. labels: int64 (N,), 0 <= label < K.
        weight: unit rows, float32 (C, d). rows: int64 (K,), the row of W of each label.
    """
    above = search(probe, rows[labels], weight, np.arange(len(weight))).above

    def estimate(right: np.ndarray, clusters: np.ndarray) -> Estimate:
        return Estimate(float(right.mean()), resampled_mean(right.astype(np.float64), clusters, resamples, seed))

    classes, kind, images = np.unique(labels, return_inverse=True, return_counts=True)
    return Classification(
        top1=estimate(above < 1, labels),
        top5=estimate(above < 5, labels) if len(weight) > 5 else None,
        per_class=estimate(np.bincount(kind, above < 1) / images, classes),
        classes=len(weight),
    )
