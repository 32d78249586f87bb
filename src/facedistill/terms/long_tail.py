"""What the losses for long tails share: a softmax of cosines, and the number of training images of each class."""

from typing import Any

from torch import Tensor

from facedistill.errors import UsageError
from facedistill.head import Classifier, ClassWeight
from facedistill.recipe import Positive
from facedistill.terms.margin_softmax import MarginSoftmax


class LongTail(MarginSoftmax):
    """A margin softmax that knows the class sizes, the number of training images of each class.

    Args:
        margin: a name in MARGINS. margin_options: its arguments; null: {size: 0}, the plain softmax of cosines.
        scale: s.
    """

    needs_counts = True

    def __init__(
        self, margin: str = "cosface", margin_options: dict[str, Any] | None = None, scale: Positive = 30.0
    ) -> None:
        super().__init__(margin, {"size": 0.0} if margin_options is None else margin_options, scale)

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        super().bind(weight, teacher)
        if not self.needs_counts:
            return
        if self.weight.counts is None:
            raise UsageError(
                f"{type(self).__name__}: needs the number of training images of each class, but W has a row for every "
                "image; set method.classifier.start to random, teacher or centres"
            )
        self.count_on(self.weight.counts.double())

    def count_on(self, counts: Tensor) -> None:
        """Receive, once, the class sizes, float64 (C,)."""
