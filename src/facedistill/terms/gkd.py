"""Grouped knowledge distillation: how likely the few likeliest classes are together, and how they share that."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.recipe import Count, Positive, Share
from facedistill.terms.soft_targets import SoftTargets


def gkd(
    student: Tensor, teacher: Tensor, labels: Tensor, group: int, temperature: float = 4.0, primary: float = 8.0
) -> Tensor:
    """T^2 (KL_binary + primary KL_primary), mean over the batch.

    The group is the `group` classes that are likeliest by the student, the sample's own among them. KL_binary compares
    the probability of the group and of the rest; KL_primary the softmax over the group's classes alone. (GKD, arXiv
    2304.04462; the third part of the paper, the rest's own softmax, has weight 0 there.) The gradient does not flow
    through the choice of the group.

    Shapes: logits (B, C), (B, C), int64 (B,) -> scalar.
    """
    forced = student.detach().scatter(1, labels[:, None], float("inf"))
    classes = forced.topk(min(group, student.shape[1]), dim=1).indices
    logs = [F.log_softmax(z / temperature, dim=1) for z in (student, teacher)]
    inside = [log.gather(1, classes) for log in logs]
    mass = [torch.logsumexp(log, 1) for log in inside]
    binary = [torch.stack([m, log_rest(m)], 1) for m in mass]
    within = [log - m[:, None] for log, m in zip(inside, mass)]
    losses = [F.kl_div(s, t, reduction="batchmean", log_target=True) for s, t in (binary, within)]
    return temperature**2 * (losses[0] + primary * losses[1])


def log_rest(log_mass: Tensor) -> Tensor:
    """Return log(1 - exp(log_mass)), without infinity where the mass is all."""
    return torch.log1p(-log_mass.exp().clamp_max(1 - 1e-7))


class GKD(SoftTargets):
    """GKD on the cosine logits of student and teacher. (The authors' logits contain the margin.)

    Args:
        group: the number of classes in the group. primary: weight of the loss within the group.
        warmup: the share of training over which the term's weight grows linearly from 0.
    """

    needs_labels = True
    name = "gkd"

    def __init__(
        self,
        group: Count = 10_000,
        temperature: Positive = 4.0,
        scale: Positive = 64.0,
        primary: float = 8.0,
        warmup: Share = 0.5,
    ) -> None:
        super().__init__(temperature, scale)
        self.group, self.primary, self.warmup = group, primary, warmup

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        with torch.autocast(student.embedding.device.type, enabled=False):
            z_student, z_teacher = self.logits(student, teacher)
            found = gkd(z_student, z_teacher, batch.labels, self.group, self.temperature, self.primary)
        return found * min(1.0, batch.progress / self.warmup if self.warmup else 1.0)
