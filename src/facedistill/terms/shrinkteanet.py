"""ShrinkTeaNet's angular distillation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.terms.term import Term, require_same_dimension


def angular(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_i 1 - cos(f_S(x_i), f_T(x_i)), half of the unit embeddings' squared L2. Shapes: (B, d), (B, d) -> scalar."""
    return (1 - F.cosine_similarity(student, teacher)).mean()


class ShrinkTeaNet(Term):
    """ShrinkTeaNet: 1 - cosine of the embeddings, without regard to their norms (arXiv 1905.10620).

    A reconstruction with the formula and weight (1) of public code: the paper's text was not at hand. Its terms on
    intermediate stages are left out.
    """

    needs = frozenset({"embedding"})
    anchors = True

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        require_same_dimension("shrinkteanet", student, teacher)
        with torch.autocast(student.embedding.device.type, enabled=False):
            return angular(student.embedding.float(), teacher.embedding.float())
