"""What the losses for several labels an image share: a logit for each label, s cos(x, w_c) + b_c."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.errors import UsageError, UserError
from facedistill.head import Classifier, ClassWeight
from facedistill.recipe import Positive
from facedistill.terms.term import Term


class MultiLabel(Term):
    """The mean over images of the sum over labels of a loss; subclasses define `losses`.

    The logit of label c is s cos(x, w_c) + b_c. W and b may be trained, or a teacher's and frozen.

    Args:
        scale: s.
    """

    needs_weight = True
    whole_weight = True
    takes_one = False
    takes_several = True

    def __init__(self, scale: Positive = 16.0) -> None:
        super().__init__()
        self.scale = scale

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        self.weight = require_weight(type(self).__name__, weight)
        self.anchors = self.weight.anchors
        if self.weight.counts is not None:
            self.count_on(self.weight.counts.double(), self.weight.images)

    def count_on(self, counts: Tensor, images: int) -> None:
        """Receive, once, the number of training images of each label, float64 (C,), and of all images."""

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert batch.multi_hot is not None
        with torch.autocast(student.embedding.device.type, enabled=False):
            logits = logits_of(student.embedding, self.weight, self.scale)
            return self.losses(logits, batch.multi_hot).sum(1).mean()

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image and label, (B, C), from logits float32 and labels 0..1 of that shape."""
        raise NotImplementedError


def require_weight(term: str, weight: ClassWeight | None) -> ClassWeight:
    """Return W. Raises UserError if there is none, or if it is stored in fewer bits."""
    if weight is None:
        raise UserError(f"{term}: the method has no classifier; set method.classifier.start")
    if weight.weight.dtype in (torch.bfloat16, torch.int8):
        raise UsageError(f"{term}: reads W as float32; set method.classifier.rows=fp32")
    return weight


def logits_of(embeddings: Tensor, weight: ClassWeight, scale: float) -> Tensor:
    """Return s cos(x, w_c) + b_c, float32 (B, C), for embeddings (B, d); without the bias if W has none."""
    logits = scale * F.normalize(weight.place(embeddings), dim=1) @ F.normalize(weight.weight.float(), dim=1).T
    return logits if weight.bias is None else logits + weight.bias
