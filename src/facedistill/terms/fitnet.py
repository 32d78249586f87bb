"""FitNet: the student's map of one stage, after a trained projection, imitates the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.errors import UsageError
from facedistill.recipe import Count
from facedistill.terms.features import common_size
from facedistill.terms.term import Term


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """mean ||r(a_S) - a_T||^2 over batch, channels and positions (arXiv 1412.6550, eq. 3, which is half of a sum).

    Shapes: projected map (B, C, h, w) of the student and map (B, C, h', w') of the teacher -> scalar; if the sizes
    differ, the larger is averaged down.
    """
    return F.mse_loss(*common_size(student, teacher))


class FitNet(Term):
    """FitNet: L2 between a stage map of the teacher and the student's, through a projection that the term trains.

    The projection is a 1x1 convolution and a batch normalisation, and the hints act throughout training, as in the
    public comparisons whose weight is 100. Without the normalisation, that weight diverges at the learning rate of a
    margin softmax. The paper uses a convolution alone, and hints in a separate stage before training.

    Args:
        stage: the number of the stage map; 1 has the highest resolution.

    Raises:
        UsageError: a network has fewer stages.
    """

    needs = frozenset({"features"})

    def __init__(self, stage: Count = 3) -> None:
        super().__init__()
        self.stage = stage

    def bind_features(self, student: Sequence[torch.Size], teacher: Sequence[torch.Size]) -> None:
        stages = min(len(student), len(teacher))
        if self.stage > stages:
            raise UsageError(f"fitnet: stage {self.stage}, but a network has {stages} stages; set stage to 1..{stages}")
        own, other = (shapes[self.stage - 1][0] for shapes in (student, teacher))
        self.projection = nn.Sequential(nn.Conv2d(own, other, 1, bias=False), nn.BatchNorm2d(other))

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        own, other = (output.features[self.stage - 1].float() for output in (student, teacher))
        with torch.autocast(own.device.type, enabled=False):
            return hint(self.projection(own), other)
