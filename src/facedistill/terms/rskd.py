"""RSKD: a teacher that knows a subset of the classes or labels tells the student about the images of that subset."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Batch, Output
from facedistill.errors import UserError, some
from facedistill.head import Classifier, ClassWeight
from facedistill.recipe import Positive
from facedistill.terms.multi_label import logits_of, require_weight
from facedistill.terms.term import Term


class RSKD(Term):
    """The distillation of one subset teacher; a recipe has a term for each teacher, and their sum is RSKD's.

    A **reconstruction** of Ju et al. (arXiv 2104.11057), whose formulas are not public. S are the names that the
    teacher's own classifier knows. The mean is over the images of the batch that belong to S:

    several labels: sum_{c in S} BCE(sigmoid(z_c / T), sigmoid(t_c / T)), as the first author's later code has it (arXiv
        2111.08913), for images with a label in S or without any: healthy ones, which every subset teacher has seen.
    one class: T^2 KL(softmax(t / T) || softmax(z_S / T)), for images with a class in S (LFME, arXiv 2001.01536).

    z_c = scale cos(x, w_c) + b_c are the student's logits. The teacher's t have the scale it was trained with.

    Args:
        temperature: T.
        scale: of the student's logits, as its loss has it; of the teacher's too, if its own is unknown.
        images: "subset", those that belong to S, as above; or "all": a teacher's answer on images that it was not
            trained on says more than one that it knows by heart.
        balance: "none", or "inverse_frequency": times the mean number of training images of all labels by that of the
            subset's labels, so that a subset of rare ones weighs more; "self_paced": see `self_paced`.
    """

    needs = frozenset({"logits"})
    needs_weight = True
    whole_weight = True
    takes_several = True
    knows_a_subset = True
    size: float = 1.0
    subset: Tensor
    inside: Tensor
    share: Tensor

    def __init__(
        self,
        temperature: Positive = 10.0,
        scale: Positive = 16.0,
        images: Literal["subset", "all"] = "subset",
        balance: Literal["none", "inverse_frequency", "self_paced"] = "none",
    ) -> None:
        super().__init__()
        self.paced = balance == "self_paced"
        self.register_buffer("share", torch.ones(()))
        self.temperature, self.scale, self.images, self.balance = temperature, scale, images, balance

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        if teacher is None:
            raise UserError("rskd: needs the teacher's classifier; train the teacher, or import it with its own")
        self.weight = require_weight("rskd", weight)
        row = {name: i for i, name in enumerate(self.weight.class_names)}
        if missing := [name for name in teacher.class_names if name not in row]:
            raise UserError(f"rskd: the teacher knows {some(missing)}, which the student's classifier lacks")
        self.register_buffer("subset", torch.tensor([row[name] for name in teacher.class_names]), persistent=False)
        inside = torch.zeros(len(row), dtype=torch.bool)
        inside[self.subset] = True
        self.register_buffer("inside", inside, persistent=False)
        self.teacher_weight = ClassWeight(teacher, "nothing")
        self.teacher_scale = teacher.scale or self.scale
        if self.balance == "inverse_frequency" and self.weight.counts is not None:
            counts = self.weight.counts.double()
            self.size = float(counts.mean() / counts[self.subset.cpu()].mean())

    def pace(self, student: float, teacher: float) -> None:
        self.share.fill_(self_paced(student, teacher))

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        with torch.autocast(student.embedding.device.type, enabled=False):
            own = logits_of(student.embedding, self.weight, self.scale)[:, self.subset]
            other = logits_of(teacher.embedding, self.teacher_weight, self.teacher_scale)
            t = self.temperature
            if batch.multi_hot is None:
                belongs = self.inside[batch.labels]
                losses = t**2 * F.kl_div(
                    F.log_softmax(own / t, 1), F.log_softmax(other / t, 1), reduction="none", log_target=True
                ).sum(1)
            else:
                has = batch.multi_hot > 0
                belongs = has[:, self.subset].any(1) | ~has.any(1)
                losses = F.binary_cross_entropy_with_logits(own / t, (other / t).sigmoid(), reduction="none").sum(1)
            counted = belongs if self.images == "subset" else torch.ones_like(belongs)
            return self.size * self.share * _mean_of_all(losses, counted)


def self_paced(student: float, teacher: float, behind: float = 0.3) -> float:
    """Return 1 while the student reaches less than `behind` of the teacher; then less, and 0 once it is as good.

    w = min(1, max(0, (a_T - a_S) / a_T) / (1 - behind)) (LFME, arXiv 2001.01536).
    """
    return min(1.0, max(0.0, (teacher - student) / max(teacher, 1e-12)) / (1 - behind))


def _mean_of_all(losses: Tensor, belongs: Tensor) -> Tensor:
    """Return the mean over the images of all processes that belong, times what makes DDP's average exactly that."""
    count = parallel.gather(belongs.float()).sum()
    return (losses * belongs).sum() * parallel.world() / count.clamp_min(1)
