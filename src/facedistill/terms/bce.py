"""Binary cross-entropy: each label is a yes or no of its own."""

from torch import Tensor
from torch.nn import functional as F

from facedistill.terms.multi_label import MultiLabel


class BCE(MultiLabel):
    """L = mean over images of sum_c -y_c log p_c - (1 - y_c) log(1 - p_c), p = sigmoid(s cos + b).

    Args:
        scale: s.
    """

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
