"""Residual distillation: a student imitates the teacher, and an assistant imitates what the student lacks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.errors import UsageError
from facedistill.terms.embedding_l2 import embedding_l2
from facedistill.terms.features import common_size
from facedistill.terms.term import Term, require_same_dimension


def residual(student: Tensor, assistant: Tensor, teacher: Tensor, normalise: bool = False) -> Tensor:
    """MSE(s, t) + MSE(a, t - s), where s in the second is a constant, so that each network has a loss of its own.

    RIM (arXiv 1905.10777); the formula is that of the authors' code with its faults mended (there s is no constant, and
    the second loss moves the student in place of the assistant). MSE is the mean over batch and dimensions.

    The second is MSE(s + a, t). So with `normalise` (ours), t, s and s + a are unit vectors, and the squares are summed
    over dimensions as in `embedding_l2`: 2 - 2 cos(s, t) + 2 - 2 cos(s + a, t).

    Shapes: (B, d) three times, raw embeddings -> scalar.
    """
    pairs = ((student, teacher), (student.detach() + assistant, teacher))
    if normalise:
        return torch.stack([embedding_l2(own, other) for own, other in pairs]).sum()
    return torch.stack([F.mse_loss(own, other) for own, other in pairs]).sum()


def residual_stage(student: Tensor, assistant: Tensor, teacher: Tensor, project: nn.Module) -> Tensor:
    """MSE(r(a_l), t_l - r(s_l)) of one stage map, where s_l is a constant and r is linear.

    Shapes: (B, C, h, w) of both parts and (B, C', h', w') of the teacher; if the sizes differ, the larger is averaged
    down. r is the identity if C = C', the paper's case; else a 1x1 convolution without bias that this loss trains (a
    reconstruction).
    """
    added, target = common_size(assistant + student.detach(), teacher)
    return F.mse_loss(project(added), target)


class Residual(Term):
    """Residual distillation of a student of two networks (backbone `residual`): see `residual`, `residual_stage`.

    The sum over the stages is left out if the teacher gives no stage maps, as an ONNX file does. Gradients of student
    and assistant do not mix, so one optimiser trains them as two would, unless `schedule.clip` scales both by their
    common norm.

    Args:
        normalise: compare directions alone. The raw loss is no more than the teacher's mean square, twice, if both
            networks give 0; in short trainings they stayed near there.
    """

    needs = frozenset({"embedding", "features"})
    optional = frozenset({"features"})
    parts = ("student", "assistant")
    anchors = True

    def __init__(self, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise

    def bind_features(self, student: Sequence[torch.Size], teacher: Sequence[torch.Size]) -> None:
        if len(student) != len(teacher):
            raise UsageError(
                f"residual: the student has {len(student)} stages, the teacher {len(teacher)}; choose a student with "
                "as many stages (student.options.network)"
            )
        self.projections = nn.ModuleList(
            nn.Identity() if own[0] == other[0] else nn.Conv2d(own[0], other[0], 1, bias=False)
            for own, other in zip(student, teacher)
        )

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        require_same_dimension("residual", student, teacher)
        first, second = (student.parts[name] for name in self.parts)
        with torch.autocast(student.embedding.device.type, enabled=False):
            s, a, t = (output.embedding.float() for output in (first, second, teacher))
            loss = residual(s, a, t, self.normalise)
            if "features" in self.needs:
                maps = zip(first.features, second.features, teacher.features, self.projections, strict=True)
                for s, a, t, project in maps:
                    loss = loss + residual_stage(s.float(), a.float(), t.float(), project)
            return loss
