"""A Term: one named, weighted loss on (student outputs, one teacher's outputs, batch)."""

from torch import Tensor, nn

from facedistill.classifier import Classifier, ClassWeight
from facedistill.data.batch import Batch
from facedistill.model import Output


class Term(nn.Module):
    """Subclasses define `forward`. The signature of their __init__ is their schema in a recipe.

    Attributes:
        needs: what of the teacher the term reads: any of "embedding", "logits", "features".
        needs_weight: True if the term uses the student's W.
        anchors: True if the term ties the student to the teacher's space (an L2 or angle to its embeddings).
    """

    needs: frozenset[str] = frozenset()
    needs_weight: bool = False
    anchors: bool = False

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        """Receive, once, the student's W and the teacher's classifier; raise UserError where one is missing."""

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a float32 scalar."""
        raise NotImplementedError
