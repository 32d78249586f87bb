"""Classify images of a labelled set: by the rows of a class matrix W, and by the nearest class centre."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.errors import some
from facedistill.evaluation.figures import Count, Figure
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.protocols.identification import TIE
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.ranking import Ranking
from facedistill.evaluation.shots import SHOTS, by_shots
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, draws

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side
    from facedistill.head import Classifier

HELD_SCORES = 2**22  # scores held at once; mAP and AUC are measured if those of all images are no more
BINS = 15  # of the calibration error


class ByClassifier(Protocol):
    """Which class is it? The nearest row of the gallery model's classifier, and its nearest class centre.

    Without a classifier that knows the set's classes, only the centres are measured.
    """

    name = "classification"
    kinds = ("labels",)
    figures = (
        Figure("top1", "top 1", "puts {} of the images into their class", headline=True),
        Figure("top5", "top 5"),
        Figure("per_class", "mean of classes"),
        *(Figure(f"{shots}_shots", f"mean of {shots}-shot classes") for shots in SHOTS),
        Figure("macro_f1", "macro F1"),
        Figure("map", "mAP"),
        Figure("class_auc", "AUC of classes"),
        Figure("ece", "calibration error"),
        Figure("centre_top1", "top 1 by centres", "puts {} next to the centre of their class", headline=True),
    )
    counts = (Count("classes", "classes"),)

    def measure(self, probe: "Side", gallery: "Side") -> tuple["Classification", dict[str, Any]]:
        table, w = gallery.table("images"), gallery.model.classifier
        lacking = self._lacking(w, table.class_names)
        head = None
        if w is not None and not lacking:
            place = {name: row for row, name in enumerate(w.class_names)}
            rows = np.array([place[name] for name in table.class_names])
            counts = None if w.counts is None else w.counts.cpu().numpy()[rows]
            head = Head(w.weight.float().cpu().numpy(), rows, counts, w.scale)
        found = classify(
            probe.unit("images"),
            gallery.unit("images"),
            table.labels,
            table.class_names,
            head,
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        return found, {"classifier": w.origin if w and not lacking else f"none: {lacking}", "resampled": "images"}

    def _lacking(self, w: "Classifier | None", class_names: Sequence[str]) -> str:
        """Return why W cannot classify these classes, "" if it can."""
        if w is None:
            return "the gallery's model has none"
        if self.options.flip == "concat":
            return "it has half the dimensions of --flip concat"
        missing = sorted(set(class_names) - set(w.class_names))
        return f"it lacks {some(missing)}" if missing else ""


@dataclass(frozen=True)
class Head:
    """A classifier: weight, unit rows float32 (C, d); rows, int64 (K,), the row of W of each label of the set.

    counts: int64 (K,), training images of each label; scale: s, with which softmax(s cos) gives its probabilities.
    """

    weight: np.ndarray
    rows: np.ndarray
    counts: np.ndarray | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Classification(Measurement):
    """The measurement of a classification.

    Attributes:
        figures: top1, top5: share of images whose own row is the nearest, or among the five nearest (absent for five
            rows or fewer). per_class: mean of the classes' top 1, their balanced accuracy; many_shots (100 training
            images and more), medium_shots, few_shots (20 and fewer): the same over some of the classes, if their
            numbers are known. macro_f1: mean of the classes' F1. map, class_auc: mean over the classes of average
            precision and AUC of each class against the rest. ece: expected calibration error in 15 equal bins,
            if s is known.
            centre_top1: share of images that are nearest to the mean of their class's other images in the gallery.
        classes: rows of W, or classes of the set if there is no W.
        of_classes: the figures of each class of the set that has images.
    """

    figures: dict[str, Estimate]
    classes: int
    of_classes: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        json = {name: estimate.to_json() for name, estimate in self.figures.items()}
        return json | {"classes": self.classes, "of_classes": self.of_classes}

    def estimates(self) -> dict[str, Estimate]:
        return dict(self.figures)


def classify(
    probe: np.ndarray,
    gallery: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    head: Head | None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Classification:
    """Classify every image of `probe`; a class that ties with the image's own counts against it.

    Intervals: images are resampled.

    Args:
        probe, gallery: unit rows, float32 (N, d), of the same images, at least one. labels: int64 (N,), below K.
        class_names: K names. head: None to measure the centres alone.
    """
    measures: list[Callable[[np.ndarray], dict[str, float]]] = []
    kinds, kind, images = np.unique(labels, return_inverse=True, return_counts=True)
    table: list[dict[str, Any]] = [
        {"class": class_names[k], "images": n} for k, n in zip(kinds.tolist(), images.tolist(), strict=True)
    ]
    if head is not None:
        answers = _Answers(probe, kind, Head(head.weight, head.rows[kinds], _some(head.counts, kinds), head.scale))
        measures.append(answers.figures)
        table = [row | of for row, of in zip(table, answers.table(np.ones(len(labels))), strict=True)]
    right = _by_centres(probe, gallery, kind)
    if np.isfinite(right).any():
        measures.append(lambda weight: {"centre_top1": _mean(right, weight)})

    def figures(weight: np.ndarray) -> dict[str, float]:
        return {name: value for measure in measures for name, value in measure(weight).items()}

    values = figures(np.ones(len(labels)))
    drawn = [figures(draw) for draw in draws(len(labels), resamples, seed)]
    estimates = {
        name: Estimate(value, np.array([one[name] for one in drawn], dtype=np.float64))
        for name, value in values.items()
        if np.isfinite(value)
    }
    return Classification(estimates, len(kinds) if head is None else len(head.weight), table)


class _Answers:
    """What a classifier says of every image, and the figures of it for any weights of the images.

    Args:
        kind: int64 (N,), 0 <= kind < K, all of which occur.
    """

    def __init__(self, probe: np.ndarray, kind: np.ndarray, head: Head) -> None:
        self.kind, self.head, own = kind, head, head.rows[kind]
        number, classes = len(probe), len(head.weight)
        self.above, rival = np.zeros(number, np.int64), np.zeros(number, np.int64)
        self.sure = np.zeros(number)
        ranked = number * len(head.rows) <= HELD_SCORES
        scores = np.zeros((number, len(head.rows)) if ranked else (0, 0), np.float32)
        step = max(1, HELD_SCORES // classes)
        for start in range(0, number, step):
            rows = slice(start, start + step)
            cos = probe[rows] @ head.weight.T
            if ranked:
                scores[rows] = cos[:, head.rows]
            if head.scale is not None:
                logits = head.scale * cos.astype(np.float64)
                self.sure[rows] = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
            image = np.arange(len(cos))
            limit = cos[image, own[rows]] - np.float32(TIE)
            cos[image, own[rows]] = -np.inf
            self.above[rows] = (cos >= limit[:, None]).sum(1)
            rival[rows] = cos.argmax(1)
        place = np.full(classes, len(head.rows))  # of a row among the set's classes; the last one is all others
        place[head.rows] = np.arange(len(head.rows))
        self.answer = np.where(self.above < 1, kind, place[rival])
        self.ranking = Ranking(scores, kind) if ranked else None

    def of_classes(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Return top 1 (recall), precision, F1, average precision and AUC of each class, (K,)."""
        number = len(self.head.rows)
        images = np.bincount(self.kind, weight, number)
        answered = np.bincount(self.answer, weight, number + 1)[:number]
        right = np.bincount(self.kind, weight * (self.above < 1), number)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {
                "top1": right / images,
                "precision": np.where(answered > 0, right / answered, 0),
                "f1": np.where(images > 0, 2 * right / (images + answered), np.nan),
            }
        if self.ranking is not None:
            found["average_precision"], found["auc"] = self.ranking.measured(weight)
        return found

    def figures(self, weight: np.ndarray) -> dict[str, float]:
        """Return the figures over all classes. Classes without images in a resample do not count in it."""
        each = self.of_classes(weight)
        found = {"top1": _mean(self.above < 1, weight)}
        if len(self.head.weight) > 5:
            found["top5"] = _mean(self.above < 5, weight)
        found["per_class"] = _nanmean(each["top1"])
        if self.head.counts is not None:
            for shots, chosen in by_shots(self.head.counts).items():
                found[f"{shots}_shots"] = _nanmean(each["top1"][chosen])
        found["macro_f1"] = _nanmean(each["f1"])
        if "auc" in each:
            found |= {"map": _nanmean(each["average_precision"]), "class_auc": _nanmean(each["auc"])}
        if self.head.scale is not None:
            found["ece"] = calibration_error(self.sure, self.above < 1, weight)
        return found

    def table(self, weight: np.ndarray) -> list[dict[str, Any]]:
        each = self.of_classes(weight)
        counts = {} if self.head.counts is None else {"training_images": self.head.counts}
        return [
            {name: int(values[k]) for name, values in counts.items()}
            | {name: float(values[k]) for name, values in each.items() if np.isfinite(values[k])}
            for k in range(len(self.head.rows))
        ]


def calibration_error(sure: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """Return sum_b |sum_{i in b} w_i (right_i - p_i)| / sum_i w_i over 15 equal bins (l, u] of the probability p.

    The expected calibration error of Guo et al. (arXiv 1706.04599, eq. 3). All arguments are (N,).
    """
    bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return float(np.abs(np.bincount(bins, weight * (right - sure), BINS)).sum() / weight.sum())


def _by_centres(probe: np.ndarray, gallery: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Return 1 for each image that is nearest to its own class's centre, else 0; NaN for one alone in its class.

    A centre is the mean of the gallery's embeddings; of the image's own class, without the image itself.
    """
    number = np.bincount(kind)
    sums = np.zeros((len(number), gallery.shape[1]))
    np.add.at(sums, kind, gallery.astype(np.float64))
    right = np.full(len(kind), np.nan)
    step = max(1, HELD_SCORES // len(number))
    for start in range(0, len(kind), step):
        rows = slice(start, start + step)
        own, x = kind[rows], probe[rows].astype(np.float64)
        cos = x @ _unit(sums).T
        image = np.arange(len(own))
        mate = (x * _unit(sums[own] - gallery[rows])).sum(1)
        cos[image, own] = -np.inf
        right[rows] = np.where(number[own] > 1, mate - TIE > cos.max(1), np.nan)
    return right


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _some(values: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[chosen]


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted mean of the values that are not NaN; NaN if none has a weight."""
    known = np.isfinite(values)
    total = weight[known].sum()
    return float((values[known] * weight[known]).sum() / total) if total else np.nan


def _nanmean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
