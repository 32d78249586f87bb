"""ProxylessKD, subset-wise: the margin softmax against the W of a teacher that knows a subset of the classes."""

from dataclasses import replace

from torch import Tensor

from facedistill import parallel
from facedistill.data import Batch, Output
from facedistill.errors import UsageError
from facedistill.head import Classifier, ClassWeight
from facedistill.terms.margin_softmax import MarginSoftmax


class SubsetSoftmax(MarginSoftmax):
    """The margin softmax against one subset teacher's W; a recipe has a term for each teacher.

    The mean is over the images of the batch whose class the teacher knows; the others do not count. **Ours**: RSKD's
    subset teachers (arXiv 2104.11057), with classifiers that are inherited (ProxylessKD) in place of soft targets. The
    options are those of `MarginSoftmax`; a margin that adapts to the batch is refused.
    """

    whole_weight = True  # shares of W would meet in collective operations, which a batch without the subset leaves out
    knows_a_subset = True

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        super().bind(weight, teacher)
        if self.margin.adapts:
            raise UsageError("subset_softmax: this margin adapts to all images of a batch; choose arcface or cosface")

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        loss = self.weight.place(student.embedding).sum() * 0  # all that is trained gets a gradient, as DDP needs
        for labels, share in batch.targets:
            rows = self.weight.rows_of(labels)
            inside = rows >= 0
            count, whole = inside.float().sum(), parallel.gather(inside.float()).sum()
            if count:
                part = replace(batch, targets=[(rows[inside], 1.0)])
                mean = super().forward(Output(student.embedding[inside]), teacher, part)
                loss = loss + share * mean * (count * parallel.world() / whole)
        return loss
