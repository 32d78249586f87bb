"""MarginDistillation: a margin for every image, wide if the teacher is sure of the image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Output
from facedistill.errors import UsageError
from facedistill.head import Classifier, ClassWeight
from facedistill.recipe import Positive
from facedistill.terms.margin_softmax import MarginSoftmax


class MarginDistillation(MarginSoftmax):
    """ArcFace with the margin m_i = smallest + (largest - smallest) d_i / max d, d_i = cos(f_T(x_i), w_{y_i}).

    From arXiv 2003.02586, where W is the teacher's and frozen. A reconstruction from the authors' code: the paper's
    text was not at hand. The maximum is over the batch of all processes; a negative d_i counts as 0.

    Args:
        smallest, largest: margins in radians. scale: s.

    Raises:
        UsageError: W starts at random, so the teacher's cosine to it says nothing.
    """

    needs = frozenset({"embedding"})

    def __init__(self, smallest: float = 0.2, largest: float = 0.5, scale: Positive = 64.0) -> None:
        super().__init__("arcface", {"size": largest}, scale)
        self.smallest, self.largest = smallest, largest

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        super().bind(weight, teacher)
        if not self.weight.of_teacher:
            raise UsageError(
                "margin_distillation: W starts at random, so the teacher's distance to it says nothing; set "
                "method.classifier.start to teacher, centres or fitted"
            )

    @torch.no_grad()
    def sizes(self, x: Tensor, teacher: Output | None, labels: Tensor, progress: float) -> Tensor:
        assert teacher is not None
        sure = F.cosine_similarity(teacher.embedding.float(), self.weight.rows.of(labels)).relu()
        most = parallel.gather(sure).max().clamp_min(1e-12)
        return self.smallest + (self.largest - self.smallest) * sure / most
