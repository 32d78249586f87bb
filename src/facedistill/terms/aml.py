"""Asymmetric metric learning: a contrastive loss whose anchors are the student's, whose other images the teacher's."""

import torch
from torch import Tensor

from facedistill import parallel
from facedistill.data import Batch
from facedistill.recipe import Positive
from facedistill.terms.term import CrossRelation, similarities


def aml(student: Tensor, teacher: Tensor, labels: Tensor, margin: float = 0.7, plus: bool = True) -> Tensor:
    """mean over pairs of one class of d^2 / 2 + mean over other pairs of relu(margin - d)^2 / 2, d = |s_i - t_j|.

    Unit embeddings; with `plus`, (i, i) is a pair of one class, too ("Contr+"). (Budnik and Avrithis, arXiv 2006.16331.
    The authors sum over mined tuples; these are all pairs of the batch, and means.)

    Shapes: (B, d), (B, d), int64 (B,) -> scalar. A kind without a pair counts 0.
    """
    _, x = similarities(student, teacher)
    distance = (2 - 2 * x).clamp_min(1e-12).sqrt()
    same = labels[:, None] == labels
    positive = same if plus else same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    near, far = distance.square() / 2, (margin - distance).relu().square() / 2
    return _mean(near, positive) + _mean(far, ~same)


def _mean(values: Tensor, of: Tensor) -> Tensor:
    return (values * of).sum() / of.sum().clamp_min(1)


class AML(CrossRelation):
    """Asymmetric metric learning, contrastive. Needs several images of a class in a batch.

    Args:
        margin: from which distance images of different classes do not count. plus: the anchor's own teacher embedding
            is a positive, too.
    """

    needs_labels = True

    def __init__(self, margin: Positive = 0.7, plus: bool = True) -> None:
        super().__init__()
        self.margin, self.plus = margin, plus

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return aml(student, teacher, parallel.gather(batch.labels), self.margin, self.plus)
