"""Correlation congruence: the student's embeddings correlate as the teacher's do."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.recipe import Count, Positive
from facedistill.terms.term import Relation


def bilinear(x: Tensor) -> Tensor:
    """k(x_i, x_j) = <x_i, x_j> of the unit embeddings. Shapes: (B, d) -> (B, B)."""
    x = F.normalize(x, dim=1)
    return x @ x.T


def gaussian(x: Tensor, gamma: float, order: int) -> Tensor:
    """k = exp(-gamma ||x_i - x_j||^2) of the unit embeddings, by its Taylor series up to and including `order`.

    k ~ e^{-2 gamma} sum_{p=0..P} (2 gamma)^p / p! <x_i, x_j>^p, exact as P grows. Shapes: (B, d) -> (B, B).
    """
    cosine = bilinear(x)
    powers = [(2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(powers).sum(0)


class CCKD(Relation):
    """Correlation congruence (arXiv 1904.01802): ||k(F_S) - k(F_T)||_F^2 / n^2 with a kernel k. A reconstruction.

    The paper's text was not at hand and its three public versions disagree: this one sums to `order` inclusive and
    squares the norm. The diagonal counts, as a constant 0.

    Args:
        kernel: bilinear or gaussian. gamma: of the Gaussian kernel. order: of its Taylor series.
    """

    def __init__(
        self, kernel: Literal["bilinear", "gaussian"] = "gaussian", gamma: Positive = 0.4, order: Count = 2
    ) -> None:
        super().__init__()
        self.kernel, self.gamma, self.order = kernel, gamma, order

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return F.mse_loss(self._correlations(student), self._correlations(teacher))

    def _correlations(self, x: Tensor) -> Tensor:
        return bilinear(x) if self.kernel == "bilinear" else gaussian(x, self.gamma, self.order)
