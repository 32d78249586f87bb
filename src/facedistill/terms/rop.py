"""Rank order preservation: the student's query orders the teacher's gallery as the teacher's query does."""

import torch
from torch import Tensor

from facedistill.data import Batch
from facedistill.recipe import Count, Positive
from facedistill.terms.term import CrossRelation, similarities


def rop(student: Tensor, teacher: Tensor, neighbours: int, temperature: float = 0.1, sharpness: float = 0.2) -> Tensor:
    """mean_i 1/K sum_{a, b} v_a (1[g_b > g_a] - sigmoid((x_b - g_a) / temperature))^2 over K nearest images of i.

    g_a = cos(t_i, t_a), x_b = cos(s_i, t_b), a and b in the teacher's order; v_a = a softmax(sharpness g)_a, a from 1;
    a tie counts a half. (ROP, ICLR 2023, equations 8 to 10, in the form of AIR-Distiller.)

    Shapes: (B, d), (B, d) -> scalar; holds B K^2 numbers.
    """
    g, x = similarities(student, teacher)
    g, nearest = g.topk(min(neighbours, len(g)), dim=1)
    x = x.gather(1, nearest)
    count = g.shape[1]
    higher = ((g[:, None] - g[:, :, None]).sign() + 1) / 2  # [i, a, b]
    soft = torch.sigmoid((x[:, None] - g[:, :, None]) / temperature)
    rank = torch.arange(1, count + 1, device=g.device, dtype=g.dtype)
    value = (sharpness * g).softmax(1) * rank
    return ((higher - soft).square().sum(2) * value).sum(1).mean() / count


class ROP(CrossRelation):
    """Rank order preservation (Wu et al., ICLR 2023). The neighbours are those of the batch, as in AIR-Distiller.

    Args:
        neighbours: how many; all of a smaller batch. temperature: of the student's comparisons. sharpness: how much
            more a near image counts than its rank says.
    """

    def __init__(self, neighbours: Count = 96, temperature: Positive = 0.1, sharpness: float = 0.2) -> None:
        super().__init__()
        self.neighbours, self.temperature, self.sharpness = neighbours, temperature, sharpness

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return rop(student, teacher, self.neighbours, self.temperature, self.sharpness)
