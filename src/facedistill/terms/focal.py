"""Focal loss: images that are already right count less."""

from typing import Any

import torch
from torch import Tensor

from facedistill.recipe import Positive, Rate
from facedistill.terms.long_tail import LongTail


def focal(losses: Tensor, gamma: float) -> Tensor:
    """Return (1 - p)^gamma l of each loss l = -log p: (B,) -> (B,). Lin et al. (arXiv 1708.02002, eq. 4).

    Made for single logits; here p is the softmax's probability of the own class, as usual for one label of many.
    """
    if gamma == 0:
        return losses
    wrong = (-torch.expm1(-losses)).clamp_min(1e-12)  # a root of 0 has no gradient
    return wrong**gamma * losses


class Focal(LongTail):
    """The focal loss of a softmax, mean over the batch. It needs no class sizes.

    Args:
        gamma: 0 for the plain softmax.
        margin, margin_options, scale: of the softmax, see `LongTail`.
    """

    needs_counts = False

    def __init__(
        self,
        gamma: Rate = 2.0,
        margin: str = "cosface",
        margin_options: dict[str, Any] | None = None,
        scale: Positive = 30.0,
    ) -> None:
        super().__init__(margin, margin_options, scale)
        self.gamma = gamma

    def weighted(self, losses: Tensor, labels: Tensor, progress: float) -> Tensor:
        return focal(losses, self.gamma)
