"""The margin softmax against the student's W: streaming if W is frozen, dense if it is trained."""

from typing import Any, Literal

import torch
from torch import Tensor

from facedistill.data import Batch, Output
from facedistill.errors import UsageError, UserError
from facedistill.head import (
    MARGINS,
    Classifier,
    ClassWeight,
    cached_nearest,
    frozen_margin_softmax,
    make_margin,
    margin_softmax,
    neighbourhood,
    observe,
)
from facedistill.recipe import Count, Positive, Share
from facedistill.terms.term import Term


class MarginSoftmax(Term):
    """ProxylessKD's loss when W is the teacher's and frozen (arXiv 2011.00265), ArcFace's when W is trained.

    L = mean_i -log exp(s psi(theta_iy)) / (exp(s psi(theta_iy)) + sum_{j != y} exp(s cos theta_ij))

    Args:
        margin: a name in MARGINS. margin_options: its arguments, e.g. {size: 0.35}.
        scale: s.
        margin_warmup: the share of training over which the margin's size grows linearly from the one that
            changes nothing (ArcFace and CosFace 0, SphereFace 1).
        negatives: the classes j: "exact" for all; "nearest" for the classes in the batch of all processes and the
            `nearest` nearest to each of them by the rows of W. "nearest" leaves classes out of the sum, so its loss is
            smaller and not comparable with that of "exact".
        nearest: the number of neighbours of each class for "nearest".
    """

    needs_weight = True
    prior: Tensor | None  # (C,), added to the logits; only a subclass sets it

    def __init__(
        self,
        margin: str = "arcface",
        margin_options: dict[str, Any] | None = None,
        scale: Positive = 64.0,
        margin_warmup: Share = 0.0,
        negatives: Literal["exact", "nearest"] = "exact",
        nearest: Count = 64,
    ) -> None:
        super().__init__()
        self.register_buffer("prior", None, persistent=False)
        self.margin = make_margin(margin, **(margin_options or {}))
        self.scale, self.margin_warmup = scale, margin_warmup
        self.negatives, self.nearest = negatives, nearest
        self.whole_weight = self.whole_weight or negatives == "nearest"
        if margin_warmup and self.margin.neutral is None:
            able = ", ".join(name for name, kind in MARGINS.items() if getattr(kind, "neutral", None) is not None)
            raise UsageError(
                f"margin_warmup does not work with the margin '{margin}', which has no single size that grows; set it "
                f"to 0, or use one of {able}"
            )

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        if weight is None:
            raise UserError("margin_softmax: the method has no classifier; set method.classifier.start")
        self.weight = weight
        if self.negatives == "nearest":
            if weight.moved_by != "nothing":
                raise UsageError(
                    "margin_softmax: negatives=nearest needs a W that nothing moves, because the neighbours of its "
                    f"classes are found once, but method.classifier.moved_by is {weight.moved_by}; set it to nothing, "
                    "or negatives to exact"
                )
            # A plain tensor on the CPU: it may be large, and a step reads only a few of its rows.
            self.neighbours = cached_nearest(weight.rows, self.nearest)
        self.anchors = weight.anchors

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        with torch.autocast(student.embedding.device.type, enabled=False):
            x = self.weight.place(student.embedding)
            if x.shape[1] != self.weight.weight.shape[1]:
                raise UserError(
                    f"margin_softmax: embeddings have {x.shape[1]} dimensions, W {self.weight.weight.shape[1]}; give "
                    "the student the teacher's size or a projection"
                )
            if self.training and self.margin.adapts:
                observe(self.margin, x.detach(), self.weight.rows.of(batch.targets[0][0]))
            loss = torch.zeros((), device=x.device)
            for labels, share in batch.targets:
                size = self.sizes(x, teacher, labels, batch.progress)
                losses = self.weighted(self._losses(x, labels, size), labels, batch.progress)
                loss = loss + share * losses.mean()
        return loss

    def weighted(self, losses: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the losses whose mean is the term's, (B,), from those of the softmax; here the same."""
        return losses

    def _losses(self, x: Tensor, labels: Tensor, size: float | Tensor | None) -> Tensor:
        if not self.weight.frozen:
            return margin_softmax(x, labels, self.weight.weight, self.margin, self.scale, size, self.prior)
        rows = self.weight.rows
        if self.negatives == "nearest":
            rows, labels = neighbourhood(rows, self.neighbours, labels)
        return frozen_margin_softmax(x, labels, rows, self.margin, self.scale, size, prior=self.prior)

    def sizes(self, x: Tensor, teacher: Output | None, labels: Tensor, progress: float) -> float | Tensor | None:
        """Return the margin of every sample: a number, (B,), or None if the margin has no single size."""
        if progress >= self.margin_warmup:
            return self.margin.sizes(x.detach().norm(dim=1))
        assert self.margin.size is not None and self.margin.neutral is not None
        return self.margin.neutral + (self.margin.size - self.margin.neutral) * progress / self.margin_warmup
