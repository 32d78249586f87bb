"""Balanced softmax, which is logit adjustment: training adds the log of the class sizes to the logits."""

from typing import Any

from torch import Tensor

from facedistill.recipe import Positive, Rate
from facedistill.terms.long_tail import LongTail


class BalancedSoftmax(LongTail):
    """L = -log exp(z_y + tau log pi_y) / sum_j exp(z_j + tau log pi_j), pi_j = n_j / N, mean over the batch.

    With tau = 1 Balanced Softmax (Ren et al., arXiv 2007.10740, eq. 3); with any tau the logit-adjusted loss (Menon et
    al., arXiv 2007.07314, eq. 10). What is learnt are the logits z of balanced classes, so nothing is added in use.

    Args:
        tau: 0 for the plain softmax.
        margin, margin_options, scale: of the softmax, see `LongTail`.
    """

    def __init__(
        self,
        tau: Rate = 1.0,
        margin: str = "cosface",
        margin_options: dict[str, Any] | None = None,
        scale: Positive = 30.0,
    ) -> None:
        super().__init__(margin, margin_options, scale)
        self.tau = tau

    def count_on(self, counts: Tensor) -> None:
        self.prior = (self.tau * (counts / counts.sum()).log()).float()
