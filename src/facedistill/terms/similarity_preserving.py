"""Similarity-preserving distillation: images that are similar to the teacher are similar to the student."""

from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.terms.term import Relation


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_S - G_T||_F^2 / B^2, G the Gram matrix of the embeddings with unit rows (arXiv 1907.09682, eq. 2 to 4).

    Shapes: (B, d_S), (B, d_T) -> scalar.
    """
    own, other = (F.normalize(x @ x.T, dim=1) for x in (student, teacher))
    return F.mse_loss(own, other)


class SimilarityPreserving(Relation):
    """Similarity-preserving distillation (SP) of the embeddings, as in published comparisons on faces.

    The paper uses activation maps, with weight 3000. As in the paper, the rows of the Gram matrix are normalised, not
    the embeddings, so norms count.
    """

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return similarity_preserving(student, teacher)
