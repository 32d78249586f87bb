"""D3still: differences between the cosines of neighbours; pairs in the wrong order count apart from the others."""

from torch import Tensor

from facedistill.data import Batch
from facedistill.errors import UsageError
from facedistill.recipe import Count
from facedistill.terms.term import CrossRelation, similarities

FLOOR = 0.1  # added to the teacher's difference, so that near ties do not dominate


def d3still(
    student: Tensor, teacher: Tensor, neighbours: int = 10, alpha: float = 50.0, beta: float = 2.0, gamma: float = 1.0
) -> Tensor:
    """alpha ||1 - x_ii||_2 / B + (beta mean_i ||hard_i||_2 + gamma mean_i ||easy_i||_2) / (K - 1).

    Of the K - 1 images nearest to i but i itself, all pairs (a, b): r = (dx - dg) / (0.1 + |dg|) with dg = g_a - g_b,
    dx = x_a - x_b, g = cos(t_i, t_a), x = cos(s_i, t_a). It is in hard_i if dx and dg differ in sign, in easy_i if they
    agree. Pairs with dg = 0 do not count: AIR-Distiller sets such a dg to 1. (D3still, CVPR 2024.)

    Shapes: (B, d), (B, d) -> scalar; holds B K^2 numbers.
    """
    g, x = similarities(student, teacher)
    others = min(neighbours, len(g)) - 1
    near = g.clone().fill_diagonal_(-2).topk(others, dim=1).indices
    dg, dx = (rows[:, :, None] - rows[:, None] for rows in (g.gather(1, near), x.gather(1, near)))
    apart = (dx - dg) / (FLOOR + dg.abs())
    agreement = (dx * dg).detach().sign()
    hard, easy = (((apart * (agreement == sign)).flatten(1)).norm(dim=1).mean() for sign in (-1, 1))
    own = (1 - x.diagonal()).norm() / len(g)
    return alpha * own + (beta * hard + gamma * easy) / max(1, others)


class D3still(CrossRelation):
    """Decoupled differential distillation (Xie et al., CVPR 2024), with the weights of its code.

    Args:
        neighbours: images of each list, itself included; all of a smaller batch. alpha, beta, gamma: weights of the
            image's own embedding, of pairs in the wrong order, and of pairs in the right one.
    """

    def __init__(self, neighbours: Count = 10, alpha: float = 50.0, beta: float = 2.0, gamma: float = 1.0) -> None:
        super().__init__()
        if neighbours < 3:
            raise UsageError(f"d3still: neighbours {neighbours}; expected 3 or more: it compares pairs of others")
        self.neighbours, self.alpha, self.beta, self.gamma = neighbours, alpha, beta, gamma

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return d3still(student, teacher, self.neighbours, self.alpha, self.beta, self.gamma)
