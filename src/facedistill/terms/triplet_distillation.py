"""Triplet distillation: a triplet loss whose margin grows with the teacher's gap."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Batch
from facedistill.terms.term import Relation


def triplet_distillation(
    student: Tensor, teacher: Tensor, labels: Tensor, smallest: float = 0.2, largest: float = 0.5
) -> Tensor:
    """mean relu(d_ap - d_an + m) over all triplets of the batch, d the squared L2 of unit embeddings.

    m = smallest + (largest - smallest) D / max D, D = relu(d_an - d_ap) of the teacher, maximum over the triplets.
    The formula is that of public code for arXiv 1905.04457. It is a reconstruction: the paper's text, and so its choice
    of triplets, was not at hand.

    Shapes: (B, d_S), (B, d_T), int64 (B,) -> scalar; holds (pairs of one class) x B numbers. 0 without a triplet.
    """
    same = labels[:, None] == labels
    anchor, positive = torch.nonzero(same.clone().fill_diagonal_(False), as_tuple=True)
    triplets = ~same[anchor]
    if not triplets.any():
        return 0 * student.sum()

    def gaps(x: Tensor) -> Tensor:
        """Return d_ap - d_an of every anchor and positive with every image as the negative."""
        x = F.normalize(x, dim=1)
        distances = 2 - 2 * x @ x.T
        return distances[anchor, positive][:, None] - distances[anchor]

    seen = F.relu(-gaps(teacher)) * triplets
    margin = smallest + (largest - smallest) * seen / seen.max().clamp_min(1e-12)
    return (F.relu(gaps(student) + margin) * triplets).sum() / triplets.sum()


class TripletDistillation(Relation):
    """Triplet distillation: the teacher's distances set each triplet's margin. Needs several images of a class.

    Args:
        smallest: margin if the teacher has no gap. largest: margin at the batch's widest gap.
    """

    needs_labels = True

    def __init__(self, smallest: float = 0.2, largest: float = 0.5) -> None:
        super().__init__()
        self.smallest, self.largest = smallest, largest

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        labels = parallel.gather(batch.labels)
        return triplet_distillation(student, teacher, labels, self.smallest, self.largest)
