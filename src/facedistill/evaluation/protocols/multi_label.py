"""Find the labels of images that may have several, each by its row of a class matrix W."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.errors import UserError
from facedistill.evaluation.figures import Count, Figure
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.protocols.classification import calibration_error
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.ranking import Ranking
from facedistill.evaluation.shots import SHOTS, by_shots
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, draws

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side


class ByLabels(Protocol):
    """Which labels has it? A logit for each row of the gallery model's classifier, s cos(x, w_c) + b_c.

    Labels that the classifier does not know are left out; without a classifier nothing is measured.
    """

    name = "multi-label"
    kinds = ("multi-hot",)
    usual = ("multi-hot",)
    figures = (
        Figure("map", "mAP", "reaches {} mean average precision", headline=True),
        *(Figure(f"{shots}_map", f"mAP of {shots}-shot labels") for shots in SHOTS),
        Figure("label_auc", "AUC of labels"),
        Figure("macro_f1", "macro F1"),
        Figure("balanced_accuracy", "balanced accuracy"),
        Figure("ece", "calibration error"),
    )
    counts = (Count("labels", "labels"), Count("positives", "labels of images"))

    def measure(self, probe: "Side", gallery: "Side") -> tuple["MultiLabelResult", dict[str, Any]]:
        table, w, dataset = gallery.table("images"), gallery.model.classifier, self.data.parts["images"]
        resampled = "images" if dataset.unlabelled.all() else "groups"
        known = set() if w is None else set(w.class_names)
        names = [name for name in dataset.label_names if name in known]
        why = "the gallery's model has none" if w is None else "it knows none of the labels"
        why = "it has half the dimensions of --flip concat" if w and self.options.flip == "concat" else why
        if w is None or not names or self.options.flip == "concat":
            return MultiLabelResult({}, 0, 0, []), {"classifier": f"none: {why}", "resampled": resampled}
        own = w.select(names)
        logits = probe.unit("images") @ own.weight.float().cpu().numpy().T * (own.scale or 1)
        if own.bias is not None:
            logits = logits + own.bias.float().cpu().numpy()
        found = multi_label(
            logits,
            dataset.labels_of(table.keys, names),
            names,
            None if own.counts is None else own.counts.cpu().numpy(),
            table.labels,
            sure=own.scale is not None and own.bias is not None,
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        part = f", {len(names)} of {len(dataset.label_names)} labels" * (len(names) < len(dataset.label_names))
        return found, {"classifier": f"{w.origin}{part}", "resampled": resampled}


@dataclass(frozen=True)
class MultiLabelResult(Measurement):
    """The measurement of images with several labels.

    Attributes:
        figures: map, label_auc: mean over labels of average precision and AUC of the images that have the label against
            the others; many_map (100 training images and more), medium_map, few_map (20 and fewer): the same over some
            of the labels, if their numbers are known. macro_f1, balanced_accuracy: mean over labels of F1, and of the
            mean of sensitivity and specificity, where a label is said to be there if its probability is above 0.5. ece:
            expected calibration error of all probabilities in 15 equal bins. The last three only if s and b are known.
        labels: number of labels. positives: number of labels that images have.
        of_classes: the figures of each label.
    """

    figures: dict[str, Estimate]
    labels: int
    positives: int
    of_classes: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        json = {name: estimate.to_json() for name, estimate in self.figures.items()}
        return json | {"labels": self.labels, "positives": self.positives, "of_classes": self.of_classes}

    def estimates(self) -> dict[str, Estimate]:
        return dict(self.figures)


def multi_label(
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    counts: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    sure: bool = True,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> MultiLabelResult:
    """Measure logits (N, L) against labels, bool (N, L). Labels that no image has, or all, count in no mean.

    Intervals: groups are resampled with all their images; without `groups`, images.

    Args:
        names: L names. counts: int64 (L,), training images of each. groups: int64 (N,), e.g. the patient.
        sure: sigmoid(logits) are probabilities.
    """
    if not len(labels):
        raise UserError("multi-label: no images; a set needs at least one")
    of = _OfLabels(logits, labels, counts, sure)
    cluster = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    whole = np.ones(len(labels))
    values = of.figures(whole)
    drawn = [of.figures(draw[cluster]) for draw in draws(int(cluster.max()) + 1, resamples, seed)]
    estimates = {
        name: Estimate(value, np.array([one[name] for one in drawn], dtype=np.float64))
        for name, value in values.items()
        if np.isfinite(value)
    }
    each, images = of.of_labels(whole), labels.sum(0)
    table = [
        {"class": name, "images": int(images[k])}
        | ({} if counts is None else {"training_images": int(counts[k])})
        | {key: float(value[k]) for key, value in each.items() if np.isfinite(value[k])}
        for k, name in enumerate(names)
    ]
    return MultiLabelResult(estimates, len(names), int(images.sum()), table)


class _OfLabels:
    """The figures of each label and of all, for any weights of the images."""

    def __init__(self, logits: np.ndarray, labels: np.ndarray, counts: np.ndarray | None, sure: bool) -> None:
        self.labels, self.counts, self.sure = labels, counts, sure
        self.ranking, self.said = Ranking(logits, labels), logits > 0
        self.probability = 1 / (1 + np.exp(-logits.astype(np.float64)))

    def of_labels(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Return figures of each label, (L,); NaN where no image has the label, or all."""
        precision, auc = self.ranking.measured(weight)
        found = {"average_precision": precision, "auc": auc}
        if self.sure:
            right, there = weight @ (self.said & self.labels), weight @ self.labels
            said, total = weight @ self.said, weight.sum()
            with np.errstate(divide="ignore", invalid="ignore"):
                recall = right / there
                specificity = (total - there - said + right) / (total - there)
                found |= {
                    "recall": recall,
                    "precision": np.where(said > 0, right / said, 0),
                    "f1": np.where(there > 0, 2 * right / (there + said), np.nan),
                    "balanced_accuracy": (recall + specificity) / 2,
                }
        return {name: np.where(np.isfinite(auc), values, np.nan) for name, values in found.items()}

    def figures(self, weight: np.ndarray) -> dict[str, float]:
        each = self.of_labels(weight)
        found = {"map": _mean(each["average_precision"])}
        if self.counts is not None:
            for shots, chosen in by_shots(self.counts).items():
                found[f"{shots}_map"] = _mean(each["average_precision"][chosen])
        found["label_auc"] = _mean(each["auc"])
        if self.sure:
            found |= {"macro_f1": _mean(each["f1"]), "balanced_accuracy": _mean(each["balanced_accuracy"])}
            times = np.repeat(weight.astype(np.float64), self.labels.shape[1])
            found["ece"] = calibration_error(self.probability.ravel(), self.labels.ravel(), times)
        return found


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
