"""Imitation of the teacher's embedding: L2KD, and the added L2 of "vanilla KD" and PocketNet."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.terms.term import Term, require_same_dimension


def embedding_l2(student: Tensor, teacher: Tensor, normalise: bool = True) -> Tensor:
    """mean_i ||f_S(x_i) - f_T(x_i)||^2 over the batch; of unit embeddings, = 2 - 2 cos, when `normalise`.

    Shapes: (B, d) and (B, d) -> scalar. Summed over dimensions, so PocketNet's mean-reduced MSE times 100 is a weight
    of 100 / d here (arXiv 2108.10710).
    """
    if normalise:
        student, teacher = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    return (student - teacher).square().sum(1).mean()


class EmbeddingL2(Term):
    """L2 between the embeddings: L2KD of arXiv 2011.00265. It is unknown whether that normalises, so both are here."""

    needs = frozenset({"embedding"})
    anchors = True

    def __init__(self, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        require_same_dimension("embedding_l2", student, teacher)
        with torch.autocast(student.embedding.device.type, enabled=False):
            return embedding_l2(student.embedding.float(), teacher.embedding.float(), self.normalise)
