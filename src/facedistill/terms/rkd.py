"""Relational knowledge distillation: the distances and angles among the images of a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.terms.term import Relation


def rkd(student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """distance x mean_{i!=j} huber(psi_S - psi_T) + angle x mean_{i!=j!=k!=i} huber(phi_S - phi_T) (arXiv 1904.05068).

    psi_ij = ||x_i - x_j|| over its mean in the batch (eq. 5), phi_ijk = cosine of the angle at x_j (eq. 8), huber with
    delta 1 (eq. 7), on raw embeddings. Means are over the pairs and triplets that the paper sums over. The authors'
    code, the source of 25 and 50, also counts empty ones (i = j): its terms are (B - 1) / B and (B - 1)(B - 2) / B^2 as
    large.

    Shapes: (B, d_S), (B, d_T) -> scalar; holds B^2 d and B^3 numbers.
    """
    apart = [x[:, None] - x for x in (student, teacher)]
    lengths = [a.norm(dim=2) for a in apart]
    # There is no direction between two copies of one image, nor from an image to itself.
    pairs = (lengths[0] > 0) & (lengths[1] > 0)

    own, other = (length[pairs] / length[pairs].mean() for length in lengths)
    far = F.smooth_l1_loss(own, other, reduction="sum") / pairs.sum().clamp_min(1)

    units = [a / length.where(pairs, 1)[..., None] for a, length in zip(apart, lengths)]
    own, other = (unit @ unit.mT for unit in units)  # [j, i, k]
    triplets = pairs[:, :, None] & pairs[:, None] & ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    turned = (F.smooth_l1_loss(own, other, reduction="none") * triplets).sum() / triplets.sum().clamp_min(1)
    return distance * far + angle * turned


class RKD(Relation):
    """Relational knowledge distillation, distance and angle.

    Args:
        distance: weight of the pairs' distances. angle: weight of the triplets' angles.
    """

    def __init__(self, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return rkd(student, teacher, self.distance, self.angle)
