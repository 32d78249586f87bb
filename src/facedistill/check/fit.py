"""Measure how well a class matrix W fits a teacher's embeddings: what the teacher itself reaches through W."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Embeddings
from facedistill.errors import UserError
from facedistill.head import Classifier, Margin, frozen_margin_softmax

MOST_IMAGES = 20_000  # enough for every rate here to 1%; bounds the work at a million classes
SUGGESTED_ON = 4096  # images
COMPARED_ROWS = 16_384  # rows of W compared at once
SUGGESTED_SCALES = (8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)
SIZE_STEP = 0.05


@dataclass(frozen=True)
class ClassifierFit:
    """The measurements of `fit_of`. Shares are 0..1.

    Attributes:
        origin, classes: of W.
        images: the number measured; single: images left out because their class's centre has no other image.
        leave_one_out: each image was taken out of its own class's centre first.
        own_class: share of the images nearest to their own class's row.
        misnamed: share of the images that seem to carry another class's name (see `_misnamed`).
        cosine: mean cos(f_T, w_y), with the W that a student trains against.
        loss: the teacher's own mean loss under margin and scale, with the W that a student trains against.
        crowding: mean cosine of two different rows of W.
        suggested_size, suggested_scale: see `suggest`; the size is None for a margin without a single size.
        lost_classes: names of the classes without an image that is nearest to its own row.
    """

    origin: str
    classes: int
    images: int
    single: int
    leave_one_out: bool
    own_class: float
    misnamed: float
    cosine: float
    loss: float
    crowding: float
    suggested_size: float | None
    suggested_scale: float
    lost_classes: list[str]

    @property
    def chance_loss(self) -> float:
        """log C: the loss of a uniform guess."""
        return math.log(self.classes)


def fit_of(classifier: Classifier, embeddings: Embeddings, margin: Margin, scale: float) -> ClassifierFit:
    """Compare the teacher's embeddings (image and mirror image summed) with the rows of W.

    If W consists of the centres of the same images, rates over own and other classes are leave-one-out: the own row is
    (n c - f) / (n - 1), c the mean before normalisation; classes with one image are left out and counted. Loss, cosine
    and suggestion use W unchanged, because a student trains against it. Of more than 20,000 images, a seeded sample is
    measured.

    Args:
        classifier: rows by class name; it may have more classes than the embeddings.

    Raises:
        UserError: W lacks a class, has another dimension, or no image is left to measure.
    """
    raw = torch.from_numpy(embeddings.vectors.mean(axis=1))
    if raw.shape[1] != classifier.dim:
        raise UserError(
            f"teacher: its embeddings have {raw.shape[1]} dimensions, its classifier {classifier.dim}; they do not "
            "belong together: import the teacher again with its own classifier"
        )
    weight = classifier.weight
    labels = _rows(classifier, embeddings)
    sums, counts = _sums(raw, labels, len(weight))
    exact = classifier.origin == "centres" and _made_of(classifier, sums, counts)
    sample = _sample(len(labels))
    raw, labels = raw[sample], labels[sample]
    unit = F.normalize(raw, dim=1)
    own = (unit * weight[labels]).sum(1)
    other = _best_other(unit, labels, weight)
    held_out, kept = own, torch.ones(len(labels), dtype=torch.bool)
    if exact:
        kept = counts[labels] > 1
        held_out = (unit * F.normalize(sums[labels] - unit, dim=1)).sum(1)
    if not kept.any():
        raise UserError(
            f"check: none of the {len(labels)} images shares its class with another, so class centres say nothing "
            "about W; give data with several images per class"
        )
    right = (held_out > other)[kept]
    few = slice(None, None, -(-len(labels) // SUGGESTED_ON))
    size, suggested = suggest(raw[few], labels[few], own[few], other[few], weight, margin)
    return ClassifierFit(
        origin=classifier.origin,
        classes=len(weight),
        images=int(kept.sum()),
        single=int((~kept).sum()),
        leave_one_out=exact,
        own_class=right.float().mean().item(),
        misnamed=_misnamed(held_out[kept], other[kept]),
        cosine=own.mean().item(),
        loss=frozen_margin_softmax(raw, labels, weight, margin, scale).mean().item(),
        crowding=_crowding(weight),
        suggested_size=size,
        suggested_scale=suggested,
        lost_classes=_lost(right, labels[kept], classifier.class_names),
    )


def require_fit(
    classifier: Classifier, embeddings: Embeddings, margin: Margin, scale: float, least: float
) -> ClassifierFit:
    """Return `fit_of`. Raises UserError if the own-class accuracy is below `least` (recipe: check.own_class)."""
    fit = fit_of(classifier, embeddings, margin, scale)
    if fit.own_class < least:
        raise UserError(
            f"teacher: only {fit.own_class:.1%} of its embeddings are nearest to their own row of W ({fit.origin}), at "
            f"least {least:.1%} expected: class names, colour order or normalisation do not fit the data; run "
            "`facedistill check TEACHER --data D`, or lower check.own_class to train anyway"
        )
    return fit


def suggest(
    raw: Tensor, labels: Tensor, own: Tensor, other: Tensor, weight: Tensor, margin: Margin
) -> tuple[float | None, float]:
    """Suggest a margin's size and a scale that the teacher's own embeddings can meet: a starting point, not an optimum.

    Size: the largest, up to the margin's published default, with which at least half of the teacher's embeddings still
    win their own class. A student cannot be asked for what its teacher mostly fails.
    Scale: the one of SUGGESTED_SCALES at which, with this margin, the teacher's mean loss is smallest (temperature
    scaling).
    Below it the softmax is too flat for embeddings that fit; above it the few that do not fit dominate the loss.

    Args:
        raw: embeddings (N, d); own, other: (N,) cosine to the own row, and to the nearest other one.
    """
    size, chosen = None, margin
    if margin.size is not None:
        for candidate in _sizes(margin):
            changed = copy.deepcopy(margin)
            changed.size = candidate
            wins = changed.target(own, changed.sizes(raw.norm(dim=1))) > other
            if size is None or wins.float().mean() >= 0.5:
                size, chosen = candidate, changed
    losses = [frozen_margin_softmax(raw, labels, weight, chosen, s).mean().item() for s in SUGGESTED_SCALES]
    return size, float(SUGGESTED_SCALES[int(np.argmin(losses))])


def _sizes(margin: Margin) -> list[float]:
    """Return the sizes from no margin to the published default of its kind; SphereFace's neutral size is 1."""
    published = type(margin)().size
    assert published is not None
    first = 1.0 if published > 1 else 0.0
    steps = round((published - first) / SIZE_STEP)
    return [round(first + SIZE_STEP * i, 2) for i in range(steps + 1)]


def _rows(classifier: Classifier, embeddings: Embeddings) -> Tensor:
    """Return the row of W of every image, int64 (N,), by class name."""
    if len(embeddings) == 0:
        raise UserError("check: no images; give data with several images per class")
    used = np.unique(embeddings.labels)
    names = [embeddings.class_names[c] for c in used]
    classifier.select(names)  # raises UserError with the missing names
    row = {name: i for i, name in enumerate(classifier.class_names)}
    table = torch.zeros(len(embeddings.class_names), dtype=torch.long)
    table[torch.from_numpy(used)] = torch.tensor([row[n] for n in names])
    return table[torch.from_numpy(embeddings.labels)]


def _sums(raw: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return sums (C, d) and counts (C,) of the unit embeddings of each class."""
    sums = torch.zeros(classes, raw.shape[1]).index_add_(0, labels, F.normalize(raw, dim=1))
    return sums, torch.bincount(labels, minlength=classes)


def _made_of(classifier: Classifier, sums: Tensor, counts: Tensor) -> bool:
    """Return whether the rows of the classes that occur are the centres of the same images."""
    present = counts > 0
    if classifier.counts is not None and not torch.equal(classifier.counts[present], counts[present]):
        return False
    return bool(((classifier.weight * F.normalize(sums, dim=1)).sum(1)[present] > 1 - 1e-4).all())


def _sample(count: int) -> Tensor:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:MOST_IMAGES].sort().values


def _best_other(unit: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the largest cosine to a row that is not the image's own, (N,); -1 if W has one row."""
    best = torch.full((len(unit),), -1.0)
    for start in range(0, len(weight), COMPARED_ROWS):
        block = weight[start : start + COMPARED_ROWS]
        for part in torch.arange(len(unit)).split(1024):
            cos = unit[part] @ block.T
            inside = torch.nonzero((labels[part] >= start) & (labels[part] < start + len(block))).flatten()
            cos[inside, labels[part][inside] - start] = -1.0
            best[part] = torch.maximum(best[part], cos.amax(1))
    return best


def _misnamed(own: Tensor, other: Tensor) -> float:
    """Return the share of images that are near another class's row and far from their own.

    "Near": at least the lower quartile of the own cosines of the images that win; "far": at most the median of their
    best other cosines. An image under another's name looks like this; so do two classes of one person.
    """
    wins = own > other
    if not wins.any():
        return 1.0
    near, far = own[wins].quantile(0.25), other[wins].quantile(0.5)
    return ((other >= near) & (own <= far)).float().mean().item()


def _crowding(weight: Tensor) -> float:
    """Return the mean cosine of two different unit rows: (|sum of rows|^2 - C) / (C (C - 1))."""
    count = len(weight)
    if count < 2:
        return 0.0
    return ((weight.double().sum(0).square().sum() - count) / (count * (count - 1))).item()


def _lost(right: Tensor, labels: Tensor, names: Sequence[str]) -> list[str]:
    hits = torch.zeros(len(names)).index_add_(0, labels, right.float())
    return [
        names[int(i)] for i in torch.nonzero((hits == 0) & (torch.bincount(labels, minlength=len(names)) > 0)).flatten()
    ]
