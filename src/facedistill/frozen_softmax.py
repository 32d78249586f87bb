"""The margin softmax against a W that no gradient moves: loss and gradient in one streaming pass over W.

The B x C logits are never held: for each block of rows of W the pass adds exp(s cos) to a sum and its product with
the rows to the embeddings' gradient. DESIGN.md section 6 has the derivation.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from facedistill.classifier import Classifier
from facedistill.errors import UserError
from facedistill.margins import Margin

BLOCK = 4096  # rows of W in one pass: large enough for full matrix-product speed, small enough for the cache
# exp(+-64) x 1e8 classes is still a normal float32: up to here logits need no shift, beyond it a running maximum.
LARGEST_EXPONENT = 64.0


class _LogSumOfNegatives(torch.autograd.Function):
    """log sum_{j != y} exp(s n(cos_j)) of each sample, with its gradient computed in the same pass.

    Shapes: x (B, d) unit rows, cos_y (B,), labels (B,), weight (C, d) unit rows -> (B,); -inf where C = 1.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cos_y: Tensor, labels: Tensor, weight: Tensor, margin: Margin, scale: float
    ) -> Tensor:
        need_gradient = ctx.needs_input_grad[0]
        running = scale * margin.bound > LARGEST_EXPONENT
        shift = x.new_full((len(x),), -scale if running else 0.0)
        rows = x.T.to(weight.dtype).contiguous()
        total = x.new_zeros(len(x))
        gradient = torch.zeros_like(x) if need_gradient else None
        for start in range(0, len(weight), BLOCK):
            block = weight[start : start + BLOCK]
            cos = (block @ rows).to(x.dtype)
            slope = None
            if margin.negative is not None:
                cos, slope = margin.negative(cos, cos_y)
            own = torch.nonzero((labels >= start) & (labels < start + len(block))).flatten()
            # The own class is left out here; taking it out of the full sum afterwards would cancel catastrophically.
            logits = cos.mul_(scale)
            logits[labels[own] - start, own] = -torch.inf
            if running:
                higher = torch.maximum(shift, logits.amax(0))
                rescale = (shift - higher).exp()
                shift, total = higher, total * rescale
                gradient = None if gradient is None else gradient.mul_(rescale[:, None])
            p = (logits.sub_(shift) if running else logits).exp_()
            total += p.sum(0)
            if gradient is not None:
                p = p if slope is None else p * slope
                gradient += (p.T.to(block.dtype) @ block).to(x.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient.mul_(torch.where(total > 0, scale / total, 0)[:, None]))
        return total.log() + shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None], None, None, None, None, None


def frozen_margin_softmax(
    embeddings: Tensor,
    labels: Tensor,
    weight: Tensor,
    margin: Margin,
    scale: float,
    size: float | Tensor | None = None,
) -> Tensor:
    """Return the margin softmax loss of each sample without holding the logits.

    Args:
        embeddings: (B, d), raw, any float type; normalised here in float32.
        labels: int64 (B,), 0 <= label < C.
        weight: (C, d), unit rows, float32 or bfloat16; gets no gradient.
        margin: any margin of `margins`; its `negative` must not let gradient flow to cos_y.
        scale: s.
        size: margin of each sample (B,) or a number; None asks the margin (AdaFace: from the norms).

    Returns:
        Losses (B,), float32: -log softmax with the own class's logit s psi(theta_y).

    Raises:
        UserError: a label outside 0..C-1, or embeddings and W of different sizes.
    """
    if embeddings.shape[1] != weight.shape[1]:
        raise UserError(
            f"frozen softmax: embeddings have {embeddings.shape[1]} dimensions, the classifier {weight.shape[1]}; "
            "give the student the teacher's size or a projection"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(weight):
        raise UserError(
            f"frozen softmax: labels from {int(labels.min())} to {int(labels.max())} do not fit a classifier of "
            f"{len(weight)} classes"
        )
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    x = F.normalize(wide, dim=1)
    cos_y = (x * weight[labels].to(x.dtype)).sum(1)
    if size is None:
        size = margin.sizes(wide.detach().norm(dim=1))
    target = scale * margin.target(cos_y, size)
    log_negatives = _LogSumOfNegatives.apply(x, cos_y.detach(), labels, weight, margin, scale)
    # softplus keeps its precision where log(z + exp(t)) - t cancels.
    return F.softplus(log_negatives - target)


class FrozenMarginSoftmax(nn.Module):
    """The frozen head as a module: `head(embeddings (B, d), labels (B,)) -> mean loss`, no (B, C) tensor ever held.

    W is a plain tensor, neither parameter nor buffer, so that no optimiser, DDP or state dict touches it.
    """

    def __init__(self, classifier: Classifier, margin: Margin, scale: float = 64.0) -> None:
        super().__init__()
        self.weight, self.margin, self.scale = classifier.weight, margin, scale

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.weight = self.weight.to(embeddings.device)
        return frozen_margin_softmax(embeddings, labels, self.weight, self.margin, self.scale).mean()
