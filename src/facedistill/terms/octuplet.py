"""Octuplet loss: triplets within and across two resolutions of the same faces."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Batch, Output
from facedistill.errors import UsageError
from facedistill.recipe import Positive
from facedistill.terms.term import Term


def octuplet(high: Tensor, low: Tensor, labels: Tensor, margin: float = 0.5) -> Tensor:
    """mean_i over anchors of the sum of four triplet losses relu(max_p d(i, p) - min_n d(i, n) + margin).

    The four take anchor and others from (high, high), (high, low), (low, high) and (low, low) resolution; d is the
    distance of unit embeddings, p the other images of the anchor's class, n those of other classes: the hardest of
    each. (Knoche et al., arXiv 2207.06726. The authors' code takes embeddings of any length, and counts an anchor that
    lacks a p as one at distance 0; here only anchors with both p and n count.)

    Shapes: (B, d) at high and at low resolution of the same images, int64 (B,) -> scalar. 0 without an anchor.
    """
    high, low = F.normalize(high, dim=1), F.normalize(low, dim=1)
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    same = labels[:, None] == labels
    positive, negative = same & other, ~same
    counted = positive.any(1) & negative.any(1)
    if not counted.any():
        return 0 * (high.sum() + low.sum())
    losses = []
    for anchor, others in ((high, high), (high, low), (low, high), (low, low)):
        distance = (2 - 2 * anchor @ others.T).clamp_min(1e-12).sqrt()
        furthest = distance.masked_fill(~positive, 0).amax(1)
        nearest = distance.masked_fill(~negative, 3).amin(1)  # no distance of unit vectors is above 2
        losses.append((furthest - nearest + margin).relu()[counted])
    return torch.stack(losses).sum(0).mean()


class Octuplet(Term):
    """Octuplet loss on faces at high and low resolution. Needs the view `degrade` with pairs, and images of a class.

    It was made to fine-tune a trained network (`student.start`), and does not tie the student to the teacher's space.

    Args:
        margin: in distances of unit embeddings, which are 0 to 2.
    """

    def __init__(self, margin: Positive = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        if len(batch.index) % 2 or not torch.equal(batch.index[::2], batch.index[1::2]):
            raise UsageError(
                "octuplet: the batch does not hold each face at two resolutions; set method.view.kind=degrade "
                "method.view.options.pairs=true"
            )
        with torch.autocast(student.embedding.device.type, enabled=False):
            embeddings = student.embedding.float()
            high, low, labels = map(parallel.gather, (embeddings[::2], embeddings[1::2], batch.labels[::2]))
            return octuplet(high, low, labels, self.margin)
