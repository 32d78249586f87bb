"""MixBCT: one margin softmax over a mixture of new embeddings and stored old ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Batch, Embeddings, Output
from facedistill.head import Classifier, ClassWeight, centres
from facedistill.recipe import Positive, Share
from facedistill.terms.margin_softmax import MarginSoftmax
from facedistill.terms.term import require_same_dimension


def credible(table: Embeddings, share: float) -> np.ndarray:
    """Return which images, bool (N,), are the `share` nearest to the mean of their class, by their cosine to it."""
    unit = table.fused("sum")
    middle = centres(table).select(table.class_names).weight.numpy()
    cosines = (unit * middle[table.labels]).sum(1)
    order = np.argsort(-cosines, kind="stable")
    found = np.zeros(len(cosines), dtype=bool)
    found[order[: round(share * len(order))]] = True
    return found


class MixBCT(MarginSoftmax):
    """MixBCT (arXiv 2308.06948): the margin softmax with its own W, on embeddings of which a share is the OLD model's.

    In each batch, `share` of the new embeddings are replaced by the old model's unit embeddings of the same images,
    drawn from the credible ones: the `credible` share of all training images that are nearest to their class mean. If
    the batch holds fewer credible images, all of them are replaced. W so has to serve both models. The recipe's
    teacher is the old model; W is trained. Shares and softmax are those of the authors' code; how that measures
    credibility (over all images, as here, or in each class) is not public.

    Args:
        share: of the batch that is replaced. credible: of the training images that may be.
        margin, margin_options, scale, margin_warmup: as in `MarginSoftmax`.
    """

    needs_labels = True
    needs = frozenset({"embedding"})
    needs_table = True
    anchors = True
    credible: Tensor

    def __init__(
        self,
        share: Share = 0.3,
        credible: Share = 0.9,
        margin: str = "arcface",
        margin_options: dict[str, Any] | None = None,
        scale: Positive = 64.0,
        margin_warmup: Share = 0.0,
    ) -> None:
        super().__init__(margin, margin_options, scale, margin_warmup)
        self.share, self.kept = share, credible

    def bind_table(self, table: Embeddings, teacher: Classifier | None) -> None:
        self.register_buffer("credible", torch.from_numpy(credible(table, self.kept)), persistent=False)

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        super().bind(weight, teacher)
        self.anchors = True  # the old embeddings among the new ones do, not W

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        if self.training:
            assert teacher is not None
            require_same_dimension("mixbct", student, teacher)
            replaced = self._drawn(self.credible[batch.index[:, 0]], batch.progress)
            old = F.normalize(teacher.embedding.float(), dim=1)
            mixture = torch.where(replaced[:, None], old, student.embedding.float())
            student = replace(student, embedding=mixture)
        return super().forward(student, None, batch)

    def _drawn(self, able: Tensor, progress: float) -> Tensor:
        """Return the images to replace, bool (b,): `share` of the batch of all processes, out of those that are able.

        The draw depends on the progress alone, so a resumed run, and any number of processes, draw the same.
        """
        mine = parallel.counts(able) if parallel.world() > 1 else [len(able)]
        whole = parallel.gather(able)
        numbers = torch.rand(len(whole), generator=torch.Generator().manual_seed(int(progress * 2**52)))
        order = numbers.to(whole.device).masked_fill(~whole, 2.0).argsort()
        count = min(int(self.share * len(whole)), int(whole.sum()))
        replaced = torch.zeros_like(whole).index_fill_(0, order[:count], True)
        return replaced.split(mine)[parallel.rank()]
