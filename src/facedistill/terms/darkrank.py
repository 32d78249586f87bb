"""DarkRank: the student ranks every image's neighbours as the teacher does."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.recipe import Count
from facedistill.terms.term import Relation


def darkrank(student: Tensor, teacher: Tensor, alpha: float = 3.0, beta: float = 3.0, length: int = 3) -> Tensor:
    """-mean_q log P(pi_T(q)), the likelihood under the student of the teacher's ranking of q's `length` nearest images.

    P(pi) = prod_i exp S(x_pi(i)) / sum_{k >= i} exp S(x_pi(k)), S(x) = -alpha ||x - q||^beta on unit embeddings: the
    hard variant of arXiv 1707.01220, eq. 1, 2 and the last one. If student = teacher, it is the entropy-like cost of
    the teacher's own ranking, not 0.

    Shapes: (B, d_S), (B, d_T) -> scalar. 0 for one image.
    """
    own, other = (_distances(F.normalize(x, dim=1)) for x in (student, teacher))
    length = min(length, len(student) - 1)
    nearest = other.fill_diagonal_(torch.inf).topk(length, largest=False).indices  # the nearest first
    scores = -alpha * own.gather(1, nearest) ** beta
    remaining = scores.flip(1).logcumsumexp(1).flip(1)
    return (remaining - scores).sum(1).mean()


def _distances(x: Tensor) -> Tensor:
    # A matrix product would lose small distances and has no gradient at distance 0.
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


class DarkRank(Relation):
    """DarkRank, the hard variant: the likelihood of the teacher's ranking of every image's nearest neighbours.

    Args:
        alpha, beta: scale and contrast of the score. length: the number of images that are ranked.
    """

    def __init__(self, alpha: float = 3.0, beta: float = 3.0, length: Count = 3) -> None:
        super().__init__()
        self.alpha, self.beta, self.length = alpha, beta, length

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return darkrank(student, teacher, self.alpha, self.beta, self.length)
