"""LDAM: a class's margin grows as its images become fewer; late in training its weight does too."""

from torch import Tensor

from facedistill.data import Output
from facedistill.recipe import Positive, Share
from facedistill.terms.class_balanced import check_beta, effective_weights
from facedistill.terms.long_tail import LongTail


class LDAM(LongTail):
    """L = -log exp(s (cos_y - m_y)) / (exp(s (cos_y - m_y)) + sum_{j != y} exp(s cos_j)), mean over the batch.

    Label-distribution-aware margins m_y = C n_y^(-1/4), with C so that the smallest class has `largest`, and deferred
    re-weighting (Cao et al., arXiv 1906.07413, eq. 13 and algorithm 1). Late in training each loss has the weight of
    its class in `effective_weights`; public code divides by the batch's sum of weights instead of by the batch size.

    Args:
        largest: the largest margin. scale: s.
        defer: the share of training without weights; 1 = always without.
        beta: of the weights.
    """

    margins: Tensor
    weights: Tensor

    def __init__(
        self, largest: Positive = 0.5, scale: Positive = 30.0, defer: Share = 0.8, beta: Share = 0.9999
    ) -> None:
        super().__init__("cosface", {"size": largest}, scale)
        self.largest, self.defer, self.beta = largest, defer, check_beta(beta)

    def count_on(self, counts: Tensor) -> None:
        margins = self.largest * (counts / counts.min()) ** -0.25
        self.register_buffer("margins", margins.float(), persistent=False)
        self.register_buffer("weights", effective_weights(counts, self.beta).float(), persistent=False)

    def sizes(self, x: Tensor, teacher: Output | None, labels: Tensor, progress: float) -> Tensor:
        return self.margins[labels]

    def weighted(self, losses: Tensor, labels: Tensor, progress: float) -> Tensor:
        return self.weights[labels] * losses if progress >= self.defer < 1 else losses
