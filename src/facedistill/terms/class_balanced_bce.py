"""Class-balanced loss for several labels an image: a rare label weighs more."""

import torch
from torch import Tensor

from facedistill.recipe import Positive, Share
from facedistill.terms.bce import BCE
from facedistill.terms.class_balanced import check_beta, effective_weights


class ClassBalancedBCE(BCE):
    """Binary cross-entropy, of each label times (1 - beta) / (1 - beta^n_c), scaled to a mean of 1 over the labels.

    Cui et al. (arXiv 1901.05555, eq. 4) in the form for several labels of Wu et al. (arXiv 2007.09654), whose code
    weighs a label's yes and no alike.

    Args:
        beta: from 0 (no weights) to below 1 (nearly 1 / n).
        scale: s.
    """

    weights: Tensor

    def __init__(self, beta: Share = 0.9999, scale: Positive = 16.0) -> None:
        super().__init__(scale)
        self.beta = check_beta(beta)

    def count_on(self, counts: Tensor, images: int) -> None:
        weights = effective_weights(counts.clamp_min(1), self.beta)
        self.register_buffer("weights", weights.to(torch.float32), persistent=False)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.weights * super().losses(logits, labels)
