"""Class-balanced loss: a class weighs as the effective number of its images says."""

from typing import Any

import torch
from torch import Tensor

from facedistill.errors import UsageError
from facedistill.recipe import Positive, Share
from facedistill.terms.long_tail import LongTail


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Return (1 - beta) / (1 - beta^n) of each class size n, scaled to a mean of 1 over the classes: (C,) -> (C,).

    Cui et al. (arXiv 1901.05555, eq. 4); as there, the weights add up to C. beta = 0: all 1. beta -> 1: 1 / n.
    """
    weights = 1 / -torch.expm1(counts.double() * torch.tensor(beta, dtype=torch.float64).log())
    return weights / weights.mean()


class ClassBalanced(LongTail):
    """The softmax's loss times its class's weight (`effective_weights`), mean over the batch.

    Args:
        beta: from 0 (no weights) to below 1 (nearly 1 / n).
        margin, margin_options, scale: of the softmax, see `LongTail`.
    """

    weights: Tensor

    def __init__(
        self,
        beta: Share = 0.9999,
        margin: str = "cosface",
        margin_options: dict[str, Any] | None = None,
        scale: Positive = 30.0,
    ) -> None:
        super().__init__(margin, margin_options, scale)
        self.beta = check_beta(beta)

    def count_on(self, counts: Tensor) -> None:
        self.register_buffer("weights", effective_weights(counts, self.beta).float(), persistent=False)

    def weighted(self, losses: Tensor, labels: Tensor, progress: float) -> Tensor:
        return self.weights[labels] * losses


def check_beta(beta: float) -> float:
    """Return beta. Raises UsageError for 1, at which all weights would be 0 / 0."""
    if beta == 1:
        raise UsageError("beta 1: expected a number from 0 to below 1, e.g. 0.9999")
    return beta
