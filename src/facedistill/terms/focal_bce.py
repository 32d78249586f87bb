"""Focal loss for several labels an image: a label that is already right counts less."""

from facedistill.recipe import Positive, Rate
from facedistill.terms.asymmetric import Asymmetric


class FocalBCE(Asymmetric):
    """L = mean over images of sum_c -(1 - p_t)^gamma log p_t, p_t = p of a label that is there, else 1 - p.

    Lin et al. (arXiv 1708.02002, eq. 4), without its alpha.

    Args:
        gamma: 0 for plain binary cross-entropy.
        scale: s.
    """

    def __init__(self, gamma: Rate = 2.0, scale: Positive = 16.0) -> None:
        super().__init__(gamma, gamma, 0.0, scale)
