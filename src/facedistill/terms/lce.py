"""Learning compatible embeddings: class rows at the old class centres, features within the old class boundaries."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, Embeddings, Output
from facedistill.errors import UsageError, UserError
from facedistill.head import Classifier, ClassWeight, centres
from facedistill.terms.term import Term


def alignment(weight: Tensor, centre: Tensor) -> Tensor:
    """mean_{y,k} (w_y / |w_y| - c_y)_k^2: every row of W lies at its old class centre. Shapes: (C, d), (C, d) -> ()."""
    return F.mse_loss(F.normalize(weight, dim=1), centre)


def boundary(student: Tensor, centre: Tensor, lowest: Tensor) -> Tensor:
    """mean_i relu(b_i - cos(f_i, c_i)): an image lies as near its old class centre as the farthest old member did.

    Shapes: (B, d), centres (B, d), lowest cosines b (B,) -> ().
    """
    return (lowest - F.cosine_similarity(student, centre)).relu().mean()


class LCE(Term):
    """LCE (arXiv 2108.01958) beside the student's own margin softmax: align x alignment + boundary x boundary.

    c_y is the normalised mean of the old unit embeddings of class y, and b_y the lowest cosine to c_y of one of them.
    The recipe's teacher is the old model. The formulas and weights are those of the authors' code for
    re-identification (its face code is not public), whose features in the boundary loss lack their unit length, which
    is mended here. Its transformation modules, for embeddings of different dimensions, are left out.

    Args:
        align, boundary: weights of the two losses.
    """

    needs_labels = True
    needs_weight = True
    whole_weight = True
    needs_table = True
    anchors = True
    centre: Tensor
    lowest: Tensor

    def __init__(self, align: float = 100.0, boundary: float = 1.0) -> None:
        super().__init__()
        self.align, self.boundary = align, boundary

    def bind_table(self, table: Embeddings, teacher: Classifier | None) -> None:
        old = centres(table).select(table.class_names)
        self.class_names = old.class_names
        vectors, labels = torch.from_numpy(table.fused("sum")), torch.from_numpy(table.labels)
        cosines = (vectors * old.weight[labels]).sum(1)
        lowest = torch.ones(len(old)).scatter_reduce_(0, labels, cosines, "amin")
        self.register_buffer("centre", old.weight, persistent=False)
        self.register_buffer("lowest", lowest, persistent=False)

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        if weight is None or weight.moved_by != "gradient":
            raise UsageError("lce: aligns a W that is trained; set method.classifier.moved_by=gradient and a start")
        if list(weight.class_names) != list(self.class_names):
            raise UsageError("lce: needs a W with a row for each class; set method.classifier.start=random")
        if weight.weight.shape != self.centre.shape:
            raise UserError(
                f"lce: W has {weight.weight.shape[1]} dimensions, the old model {self.centre.shape[1]}; give the "
                "student the old model's size"
            )
        self.weight = weight

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        with torch.autocast(student.embedding.device.type, enabled=False):
            near = boundary(student.embedding.float(), self.centre[batch.labels], self.lowest[batch.labels])
            return self.align * alignment(self.weight.weight, self.centre) + self.boundary * near
