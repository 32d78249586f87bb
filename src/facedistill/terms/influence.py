"""BCT's influence loss: the new model must classify through the old model's frozen classifier."""

from dataclasses import replace

from torch import Tensor

from facedistill.data import Batch, Embeddings, Output
from facedistill.head import Classifier, ClassWeight, completed
from facedistill.terms.margin_softmax import MarginSoftmax


class Influence(MarginSoftmax):
    """The margin softmax of the new embedding against the OLD model's W, frozen, beside the student's own head.

    Backward-compatible training (arXiv 2003.11942, eq. 4 and 5): L = L(own head) + weight x L(this W). The recipe's
    teacher is the old model. A class that its classifier lacks has the mean of the old embeddings of its images as its
    row; an old model without a classifier has such rows alone. The paper's softmax has the old classifier's raw rows;
    here they have unit length, and the loss has the margin and scale of `MarginSoftmax`, whose options these are.

    It reads the class of an image: of a mixed image, that of the larger share.
    """

    needs_labels = True
    needs_weight = False
    needs_table = True
    anchors = True

    def bind_table(self, table: Embeddings, teacher: Classifier | None) -> None:
        super().bind(ClassWeight(completed(teacher, table), "nothing"), None)

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        """Do nothing: the student's own W plays no part."""

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        return super().forward(student, teacher, replace(batch, targets=[(batch.labels, 1.0)]))
