"""Contextual similarity distillation: the student ranks its neighbours in the teacher's gallery as the teacher does."""

from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.recipe import Count, Positive
from facedistill.terms.term import CrossRelation, similarities


def csd(student: Tensor, teacher: Tensor, neighbours: int, own: float = 1.0, gallery: float = 0.01) -> Tensor:
    """mean_i KL(softmax(g_i / gallery) || softmax(x_i / own)) over the teacher's nearest images of image i.

    g_ij = cos(t_i, t_j), x_ij = cos(s_i, t_j); the image itself is the first of its neighbours (CSD, CVPR 2022, in the
    form of AIR-Distiller). Shapes: (B, d), (B, d) -> scalar.
    """
    g, x = similarities(student, teacher)
    g, nearest = g.topk(min(neighbours, len(g)), dim=1)
    wanted, found = F.log_softmax(g / gallery, dim=1), F.log_softmax(x.gather(1, nearest) / own, dim=1)
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True)


class CSD(CrossRelation):
    """Contextual similarity distillation (Wu et al., CVPR 2022).

    The paper takes the neighbours from the whole training set, before training. As in AIR-Distiller
    (SCY-X/D3still), they are those of the batch.

    Args:
        neighbours: how many; all of a smaller batch. own, gallery: temperatures of the student's and of the teacher's
            cosines.
    """

    def __init__(self, neighbours: Count = 96, own: Positive = 1.0, gallery: Positive = 0.01) -> None:
        super().__init__()
        self.neighbours, self.own, self.gallery = neighbours, own, gallery

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return csd(student, teacher, self.neighbours, self.own, self.gallery)
