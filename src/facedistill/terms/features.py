"""A helper for the terms on stage maps."""

from torch import Tensor
from torch.nn import functional as F


def common_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps (B, ., h, w), the larger averaged down to the other's height and width."""
    size = min(student.shape[-2], teacher.shape[-2]), min(student.shape[-1], teacher.shape[-1])
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
