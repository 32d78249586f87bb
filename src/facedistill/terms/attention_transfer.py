"""Attention transfer: the student's stage maps become strong where the teacher's are."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.errors import UserError
from facedistill.terms.features import common_size
from facedistill.terms.term import Term


def attention(features: Tensor) -> Tensor:
    """Return sum_c a_c^2, the attention map (B, 1, h, w) of a stage map (B, C, h, w)."""
    return features.square().sum(1, keepdim=True)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """mean (Q_S / ||Q_S|| - Q_T / ||Q_T||)^2 over batch and positions, Q the flat attention map (arXiv 1612.03928).

    Squared and averaged as in the authors' code, whose weight is beta = 1000; equation 2 has beta / 2 times the norm.

    Shapes: (B, C, h, w), (B, C', h', w') -> scalar; if the sizes differ, the larger attention map is averaged down.
    """
    own, other = (F.normalize(q.flatten(1), dim=1) for q in common_size(attention(student), attention(teacher)))
    return F.mse_loss(own, other)


class AttentionTransfer(Term):
    """Attention transfer, summed over all stages. Both networks need the same number of stages, of any width."""

    needs = frozenset({"features"})

    def bind_features(self, student: Sequence[torch.Size], teacher: Sequence[torch.Size]) -> None:
        if len(student) != len(teacher):
            raise UserError(
                f"attention_transfer: the student has {len(student)} stages, the teacher {len(teacher)}; give the "
                "student a backbone with the same number"
            )

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        pairs = zip(student.features, teacher.features, strict=True)
        with torch.autocast(student.embedding.device.type, enabled=False):
            return torch.stack([attention_transfer(own.float(), other.float()) for own, other in pairs]).sum()
