"""RAML: the teacher's embedding, and its cosines, also between student and teacher and among the student's own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.terms.term import CrossRelation, similarities


def raml(student: Tensor, teacher: Tensor, cross: float = 0.7482, own: float = 0.6778) -> Tensor:
    """mean_i (1 - cos(s_i, t_i))^2 + cross mean_{i != j} (x_ij - g_ij)^2 + own mean_{i != j} (h_ij - g_ij)^2.

    g, x, h: the cosines teacher-teacher, student-teacher, student-student (Suma and Tolias, WACV 2023). Shapes: (B, d),
    (B, d) -> scalar; the last two are 0 for one image.
    """
    g, x = similarities(student, teacher)
    s = F.normalize(student, dim=1)
    apart = ~torch.eye(len(g), dtype=torch.bool, device=g.device)
    count = apart.sum().clamp_min(1)

    def mean_square(a: Tensor) -> Tensor:
        return ((a - g).square() * apart).sum() / count

    return (1 - x.diagonal()).square().mean() + cross * mean_square(x) + own * mean_square(s @ s.T)


class RAML(CrossRelation):
    """RAML (Suma and Tolias, WACV 2023), with the weights of its code.

    AIR-Distiller reads the weight of the first relation for both, by a slip of the pen; here they differ as published.

    Args:
        cross: weight of the cosines student-teacher. own: of those student-student.
    """

    def __init__(self, cross: float = 0.7482, own: float = 0.6778) -> None:
        super().__init__()
        self.cross, self.own = cross, own

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return raml(student, teacher, self.cross, self.own)
