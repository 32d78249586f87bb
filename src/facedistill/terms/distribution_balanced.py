"""Distribution-balanced loss: weights for labels that occur together, and a negative side that is soon content."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.recipe import Positive, Rate
from facedistill.terms.multi_label import MultiLabel


class DistributionBalanced(MultiLabel):
    """L = mean over images of sum_c r_c [y log(1 + exp(-(z - v_c))) + (1 - y) log(1 + exp(l (z - v_c))) / l].

    Wu et al. (arXiv 2007.09654, eqs. 2 to 8). r_c = alpha + sigmoid(beta ((1 / n_c) / sum_{k: y_k = 1} 1 / n_k - mu))
    corrects for labels that come along with others; an image without a label has the largest r. v_c = kappa log(1 / p_c
    - 1), p_c = n_c / N, moves the logits of rare labels in training alone. They average over labels; we sum.

    Args:
        alpha, beta, mu: of the weights r.
        negative: l, the tolerance of labels that the image lacks.
        kappa: of the move v.
        scale: s.
    """

    inverse: Tensor
    move: Tensor

    def __init__(
        self,
        alpha: Rate = 0.1,
        beta: Rate = 10.0,
        mu: Rate = 0.2,
        negative: Positive = 5.0,
        kappa: Rate = 0.05,
        scale: Positive = 16.0,
    ) -> None:
        super().__init__(scale)
        self.alpha, self.beta, self.mu, self.negative, self.kappa = alpha, beta, mu, negative, kappa

    def count_on(self, counts: Tensor, images: int) -> None:
        there = counts.clamp(1, max(1, images - 1))  # a label that all images have, or none, has no logarithm
        self.register_buffer("inverse", (1 / there).float(), persistent=False)
        move = self.kappa * (images / there - 1).clamp_min(1e-12).log()
        self.register_buffer("move", move.to(torch.float32), persistent=False)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        own = (labels * self.inverse).sum(1, keepdim=True)
        ratio = self.inverse / own.clamp_min(1e-12)  # without a label: so large that the sigmoid is 1
        weight = self.alpha + (self.beta * (ratio - self.mu)).sigmoid()
        moved = logits - self.move
        no = F.softplus(self.negative * moved) / self.negative
        return weight * (labels * F.softplus(-moved) + (1 - labels) * no)
