"""The margin softmax against a W that no gradient moves: loss and gradient in one streaming pass over W.

The B x C logits are never held: for each block of rows of W, the pass adds exp(s cos) to a sum, and exp(s cos) times
the rows to the embeddings' gradient. W may be sharded: each process compares the embeddings of all processes with its
own rows, and the sums are added. Values per sample, as opposed to per logit, are computed in float64.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier
from facedistill.head.margins import Margin, observe
from facedistill.head.products import make_products, product_type
from facedistill.head.rows import Rows, as_rows

BLOCK_ROWS = 1024  # rows of W in one pass: large enough for full matrix-product speed, small enough for the cache
# exp(+-64) x 1e8 classes is still a normal float32. Up to here logits need no shift; beyond, a running maximum.
LARGEST_EXPONENT = 64.0


class _LogSumOfNegatives(torch.autograd.Function):
    """log sum_{j != y} exp(s n(cos_j) + b_j) of each sample, with its gradient computed in the same pass.

    Shapes: x (b, d) unit rows, cos_y (b,), labels (b,) of this process's samples -> float64 (b,); -inf if C = 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        cos_y: Tensor,
        labels: Tensor,
        rows: Rows,
        margin: Margin,
        scale: float,
        prior: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        need_gradient = ctx.needs_input_grad[0]
        counts = parallel.counts(x) if rows.sharded else []
        x = x.to(torch.float64 if dtype == torch.float64 else torch.float32)
        cos_y = cos_y.to(x.dtype)
        if rows.sharded:
            x, cos_y, labels = parallel.gather(x), parallel.gather(cos_y), parallel.gather(labels)
        shift, total, gradient = _stream(
            x, cos_y, labels - rows.first, rows, margin, scale, prior, dtype, need_gradient
        )
        if rows.sharded:
            shift, total, gradient = _add_up(shift, total, gradient, counts)
        if gradient is not None:
            ctx.save_for_backward(gradient * torch.where(total > 0, scale / total, 0)[:, None])
        return total.log() + shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None], None, None, None, None, None, None, None


def _stream(
    x: Tensor,
    cos_y: Tensor,
    labels: Tensor,
    rows: Rows,
    margin: Margin,
    scale: float,
    prior: Tensor | None,
    dtype: torch.dtype,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pass once over the rows and return (shift (B,), total (B,), gradient (B, d)).

    With z_j = s n(cos_j) + b_j: total = sum_{j != y} exp(z_j - shift), and gradient = sum_{j != y} exp(z_j - shift)
    n'(cos_j) w_j.
    """
    largest = scale * margin.bound + (0.0 if prior is None else float(prior.abs().max()))
    running = largest > LARGEST_EXPONENT
    shift = x.new_full((len(x),), -largest if running else 0.0)
    total = x.new_zeros(len(x), dtype=torch.float64)
    gradient = torch.zeros_like(x) if need_gradient else None
    scaled = margin.negative is None
    products = make_products(rows, scale * x if scaled else x, dtype, BLOCK_ROWS, 1.0 if scaled else scale)
    order, bounds = _by_block(labels, len(rows))
    for start, first, last in zip(range(0, len(rows), BLOCK_ROWS), bounds, bounds[1:]):
        samples = order[first:last]
        logits, slope = products.start(start, start + BLOCK_ROWS, (labels[samples] - start, samples)), None
        if margin.negative is not None:
            logits, slope = margin.negative(logits, cos_y)
            logits = logits.mul_(scale)
        if prior is not None:
            logits = logits.add_(prior[rows.first + start : rows.first + start + len(logits), None])
        if running:
            higher = torch.maximum(shift, logits.amax(0))
            rescale = (shift - higher).exp_()
            shift, total = higher, total.mul_(rescale)
            gradient = None if gradient is None else gradient.mul_(rescale[:, None])
            logits.sub_(shift)
        p = logits.exp_()
        total += p.sum(0)
        if gradient is not None:
            products.add_to(gradient, p if slope is None else p * slope)
    return shift, total, gradient


def _by_block(labels: Tensor, count: int) -> tuple[Tensor, list[int]]:
    """Return the samples in the order of their labels, and the bounds of each block's samples in that order."""
    ordered, order = labels.sort()
    starts = torch.arange(-(-count // BLOCK_ROWS) + 1, device=labels.device).mul_(BLOCK_ROWS).clamp_(max=count)
    return order, torch.searchsorted(ordered, starts).tolist()


def _add_up(
    shift: Tensor, total: Tensor, gradient: Tensor | None, counts: list[int]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Add the processes' sums over their rows at one common shift, and return those of this process's samples."""
    common = parallel.maximum(shift)
    rescale = (shift - common).exp()
    sums = (total * rescale).to(shift.dtype)[:, None]
    if gradient is not None:
        sums = torch.cat([sums, gradient.mul_(rescale[:, None])], 1)
    sums = parallel.scatter_sum(sums, counts)
    mine = common.split(counts)[parallel.rank()]
    return mine, sums[:, 0].double(), None if gradient is None else sums[:, 1:]


def frozen_margin_softmax(
    embeddings: Tensor,
    labels: Tensor,
    weight: Tensor | Rows,
    margin: Margin,
    scale: float,
    size: float | Tensor | None = None,
    products: torch.dtype | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """Return the margin softmax loss of each sample without holding the logits.

    If `weight` is a share of the rows, all processes call it together, each with its own samples.

    Args:
        embeddings: (b, d), raw, any float type; normalised here.
        labels: int64 (b,), 0 <= label < C.
        weight: (C, d), unit rows, float32 or bfloat16, or `Rows`; gets no gradient.
        margin: any margin of `margins`; its `negative` must not let gradient flow to cos_y.
        scale: s.
        size: margin of each sample (b,) or a number; None asks the margin (AdaFace: from the norms).
        products: type of the matrix products: float32, bfloat16, int8 (for int8 rows); None: `product_type` decides.
        prior: (C,), b: added to the logits of each class, the sample's own one too. None for zeros.

    Returns:
        Losses (b,), float32 or wider: -log softmax with the own class's logit s psi(theta_y) + b_y.

    Raises:
        UserError: a label outside 0..C-1, an embedding that is not finite, or embeddings and W of different sizes.
    """
    rows = as_rows(weight)
    if embeddings.shape[1] != rows.dim:
        raise UserError(
            f"frozen softmax: embeddings have {embeddings.shape[1]} dimensions, the classifier {rows.dim}; "
            "give the student the teacher's size or a projection"
        )
    bad = torch.nonzero(~torch.isfinite(embeddings.detach()).all(1)).flatten()
    if len(bad):
        raise UserError(
            f"frozen softmax: embedding {int(bad[0])} of the batch is not finite ({len(bad)} of {len(embeddings)} are "
            "not); the network has diverged, or its input is damaged: lower the learning rate or add warm-up"
        )
    with torch.autocast(embeddings.device.type, enabled=False):
        wide = embeddings.double()
        x = F.normalize(wide, dim=1)
        cos_y = (x * rows.of(labels)).sum(1)
        if size is None:
            size = margin.sizes(wide.detach().norm(dim=1))
        target = scale * margin.target(cos_y, size)
        if prior is not None:
            target = target + prior[labels]
        log_negatives = _LogSumOfNegatives.apply(
            x, cos_y.detach(), labels, rows, margin, scale, prior, products or product_type(rows)
        )
        # softplus keeps its precision where log(z + exp(t)) - t cancels.
        loss = F.softplus(log_negatives - target)
    return loss.to(torch.promote_types(embeddings.dtype, torch.float32))


class FrozenMarginSoftmax(nn.Module):
    """The frozen head as a module: `head(embeddings (b, d), labels (b,)) -> mean loss`, no (b, C) tensor ever held.

    W is a plain tensor, neither parameter nor buffer, so that no optimiser, DDP or state dict touches it. In training
    mode, a margin that adapts (AdaFace, CurricularFace) first updates its running statistics with each batch.

    Args:
        classifier: a Classifier, or Rows, which may be in fewer bits, memory-mapped or sharded (`load_rows`).
        products: see `frozen_margin_softmax`.
    """

    def __init__(
        self,
        classifier: Classifier | Rows,
        margin: Margin,
        scale: float = 64.0,
        products: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.rows = classifier if isinstance(classifier, Rows) else Rows(classifier.weight)
        self.margin, self.scale, self.products = margin, scale, products

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.rows = self.rows.to(embeddings.device)
        if self.training and self.margin.adapts:
            observe(self.margin, embeddings.detach(), self.rows.of(labels))
        return frozen_margin_softmax(
            embeddings, labels, self.rows, self.margin, self.scale, products=self.products
        ).mean()
