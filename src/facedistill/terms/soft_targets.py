"""Hinton's knowledge distillation on the cosine logits of student and teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.errors import UsageError, UserError
from facedistill.head import Classifier, ClassWeight
from facedistill.recipe import Count, Positive
from facedistill.terms.term import Term


def soft_targets(student: Tensor, teacher: Tensor, temperature: float, top_k: int | None = None) -> Tensor:
    """T^2 KL(softmax(z_T / T) || softmax(z_S / T)), mean over the batch (arXiv 1503.02531). Shapes: (B, C), (B, C).

    With `top_k`, both softmaxes run only over each sample's `top_k` likeliest classes by the teacher.
    """
    if top_k is not None:
        teacher, classes = teacher.topk(min(top_k, teacher.shape[1]))
        student = student.gather(1, classes)
    log_s, log_t = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


class SoftTargets(Term):
    """KD: each network's logits are scale x cosine to its own classifier, without margin (classes must be the same).

    Args:
        temperature: T; public face-recognition code uses 4 at scale 64.
        scale: s of both networks' logits.
        top_k: compare only each sample's `top_k` likeliest classes by the teacher. Use it with very many classes,
            nearly all of which carry no information; null = all.
    """

    name = "soft_targets"
    needs = frozenset({"logits"})
    needs_weight = True
    whole_weight = True

    def __init__(self, temperature: Positive = 4.0, scale: Positive = 64.0, top_k: Count | None = None) -> None:
        super().__init__()
        self.temperature, self.scale, self.top_k = temperature, scale, top_k

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        if weight is None or teacher is None:
            raise UserError(
                f"{self.name}: needs the student's and the teacher's classifier; import the teacher with its own, or "
                "with --fit-classifier"
            )
        if list(weight.class_names) != list(teacher.class_names):
            raise UserError(
                f"{self.name}: the student's and the teacher's classifier differ in classes or in their order"
            )
        if weight.weight.dtype in (torch.bfloat16, torch.int8):
            raise UsageError(f"{self.name}: reads W as float32; set method.classifier.rows=fp32")
        self.weight = weight
        self.teacher_weight = ClassWeight(teacher, "nothing")

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        with torch.autocast(student.embedding.device.type, enabled=False):
            return soft_targets(*self.logits(student, teacher), self.temperature, self.top_k)

    def logits(self, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
        """Return the logits of student and teacher, each (B, C), float32: scale x cosine to the own classifier."""
        own = self._logits(self.weight.place(student.embedding), self.weight.weight)
        return own, self._logits(teacher.embedding, self.teacher_weight.weight)

    def _logits(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.scale * F.normalize(x.float(), dim=1) @ F.normalize(weight.float(), dim=1).T
