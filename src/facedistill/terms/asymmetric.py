"""Asymmetric loss: labels that an image lacks, nearly all of them, count less than those it has."""

from torch import Tensor
from torch.nn import functional as F

from facedistill.recipe import Positive, Rate, Share
from facedistill.terms.multi_label import MultiLabel


class Asymmetric(MultiLabel):
    """L = mean over images of sum_c -y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q), q = max(p - shift, 0).

    Ridnik et al. (arXiv 2009.14119, eqs. 4 to 7), with its gradient as the formula has it; their code holds the powers
    constant in it. With negative = positive and shift = 0 it is the focal loss (arXiv 1708.02002), with 0 plain binary
    cross-entropy.

    Args:
        positive, negative: g+ and g-, the focusing of labels that an image has, and lacks.
        shift: a probability below it costs a label that the image lacks nothing.
        scale: s.
    """

    def __init__(self, positive: Rate = 1.0, negative: Rate = 4.0, shift: Share = 0.05, scale: Positive = 16.0) -> None:
        super().__init__(scale)
        self.positive, self.negative, self.shift = positive, negative, shift

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        yes = -F.logsigmoid(logits) * wrong(-logits, self.positive)
        if self.shift:
            p = (logits.sigmoid() - self.shift).clamp_min(0)
            no = -(1 - p).log() * (p.clamp_min(1e-12) ** self.negative if self.negative else 1)
        else:
            no = -F.logsigmoid(-logits) * wrong(logits, self.negative)
        return labels * yes + (1 - labels) * no


def wrong(logits: Tensor, gamma: float) -> Tensor:
    """Return sigmoid(logits)^gamma."""
    return (gamma * F.logsigmoid(logits)).exp()
