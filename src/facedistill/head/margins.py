"""Margins change the cosine to a sample's own class in a margin softmax; the dense loss is a readable reference.

All margins work on B values of any float type, and autograd differentiates them. `gradient="exact"` differentiates the
formula; `gradient="straight_through"` is insightface's: the margin changes the value, the derivative stays 1.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UsageError, UserError
from facedistill.recipe import build, find

Gradient = Literal["exact", "straight_through"]
# Cosines are clamped to this: nearer to +-1 the derivative of arccos overflows.
COSINE_LIMIT = 1.0 - 1e-7


class Margin(nn.Module):
    """A margin softmax's change to the cosines. Subclasses define `target`, and `negative` if they touch other classes.

    Attributes:
        size: the margin that `target` uses unless told otherwise.
        neutral: the size that changes nothing, from which a warm-up grows; None if no single size does that.
        adapts: True if `update` keeps running statistics.
        negative: None, or a function (cos (K, B), cos_y (B,)) -> (changed cos, derivative by cos), both (K, B).
    """

    size: float | None = None
    neutral: float | None = None
    adapts: bool = False
    negative: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def target(self, cos_y: Tensor, size: float | Tensor | None = None) -> Tensor:
        """Return the cosine to the own class after the margin, (B,). `size`: a number or one per sample (B,)."""
        raise NotImplementedError

    def sizes(self, norms: Tensor) -> float | Tensor | None:
        """Return the margin for embeddings with these norms (B,): constant unless the margin adapts to quality."""
        return self.size

    def update(self, cos_y: Tensor, norms: Tensor) -> None:
        """Update running statistics with the (gathered) batch's cosines and norms before the loss. Training only."""

    @property
    def bound(self) -> float:
        """The largest value a negative's changed cosine can take; scale x bound is the largest logit."""
        return 1.0


class CombinedMargin(Margin):
    """psi(theta) = cos(m1 theta + m2) - m3 (insightface's combined margin; ArcFace 1,m,0; CosFace 1,0,m).

    Beyond m1 theta + m2 = pi the cosine would rise again. There, m1 = 1 uses the usual fallback
    cos(theta) - m2 sin(m2) - m3 (as in insightface and fdbtrs heads; it has a small jump at the boundary), and m1 > 1
    uses SphereFace's monotone continuation (-1)^k cos(phi) - 2k, k = floor(phi / pi).

    Args:
        m1, m2, m3: multiplicative (>= 1), additive angular (radians, 0..pi) and additive cosine (>= 0) margin.
        gradient: "exact" or "straight_through".
    """

    def __init__(self, m1: float = 1.0, m2: float = 0.0, m3: float = 0.0, gradient: Gradient = "exact") -> None:
        super().__init__()
        if not (m1 >= 1 and 0 <= m2 < math.pi and m3 >= 0):
            raise UserError(f"margin: m1={m1}, m2={m2}, m3={m3}; expected m1 >= 1, 0 <= m2 < pi, m3 >= 0")
        if gradient not in ("exact", "straight_through"):
            raise UserError(f"margin: gradient '{gradient}'; expected 'exact' or 'straight_through'")
        self.m1, self.m2, self.m3, self.gradient = m1, m2, m3, gradient

    def parts(self, size: float | Tensor | None) -> tuple[float, float | Tensor, float | Tensor]:
        """Return (m1, m2, m3), with `size` as the margin's one free part."""
        if size is not None:
            raise ValueError("a combined margin has three sizes; set m1, m2 and m3")
        return self.m1, self.m2, self.m3

    def target(self, cos_y: Tensor, size: float | Tensor | None = None) -> Tensor:
        value = combined(cos_y, *self.parts(self.size if size is None else size))
        return value if self.gradient == "exact" else cos_y + (value - cos_y).detach()


class ArcFace(CombinedMargin):
    """cos(theta + m), additive angular margin (arXiv 1801.07698, eq. 3)."""

    neutral: float | None = 0.0

    def __init__(self, size: float = 0.5, gradient: Gradient = "exact") -> None:
        super().__init__(m2=size, gradient=gradient)
        self.size = size

    def parts(self, size: float | Tensor | None) -> tuple[float, float | Tensor, float | Tensor]:
        return 1.0, size if size is not None else self.m2, 0.0


class CosFace(CombinedMargin):
    """cos(theta) - m, additive cosine margin (arXiv 1801.09414, eq. 4). Both gradients are the same here."""

    neutral = 0.0

    def __init__(self, size: float = 0.35) -> None:
        super().__init__(m3=size)
        self.size = size

    def parts(self, size: float | Tensor | None) -> tuple[float, float | Tensor, float | Tensor]:
        return 1.0, 0.0, size if size is not None else self.m3


class SphereFace(CombinedMargin):
    """(-1)^k cos(m theta) - 2k, multiplicative angular margin (arXiv 1704.08063, eq. 7), m >= 1."""

    neutral = 1.0

    def __init__(self, size: float = 1.7, gradient: Gradient = "exact") -> None:
        super().__init__(m1=size, gradient=gradient)
        self.size = size

    def parts(self, size: float | Tensor | None) -> tuple[float, float | Tensor, float | Tensor]:
        return float(size if size is not None else self.m1), 0.0, 0.0


class AdaFace(Margin):
    """Quality-adaptive margin (arXiv 2204.00964, eqs. 8 to 10): cos(theta - m z) - (m + m z), the angle kept in 0..pi.

    z = clip(h (norm - mean) / std, -1, 1) per sample, with running mean and standard deviation of the embeddings'
    norms; no gradient flows through z. A good image (large norm) gets an additive cosine margin of up to 2m, a bad
    one the angular margin m.
    """

    adapts = True
    size: float
    mean: Tensor
    std: Tensor

    def __init__(self, size: float = 0.4, h: float = 0.333, momentum: float = 0.01) -> None:
        super().__init__()
        self.size, self.h, self.momentum = size, h, momentum
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("std", torch.tensor(100.0))

    @torch.no_grad()
    def update(self, cos_y: Tensor, norms: Tensor) -> None:
        norms = norms.float().clamp(0.001, 100)
        self.mean.lerp_(norms.mean(), self.momentum)
        if len(norms) > 1:
            self.std.lerp_(norms.std(), self.momentum)

    @torch.no_grad()
    def sizes(self, norms: Tensor) -> Tensor:
        """Return m z, (B,), between -m and m."""
        norms = norms.float().clamp(0.001, 100)
        return self.size * (self.h * (norms - self.mean) / (self.std + 1e-3)).clamp(-1, 1)

    def target(self, cos_y: Tensor, size: float | Tensor | None = None) -> Tensor:
        """`size` is m z of each sample (B,); None means z = 0."""
        mz = 0.0 if size is None else size
        angle = (cos_y.clamp(-COSINE_LIMIT, COSINE_LIMIT).acos() - mz).clamp(0, math.pi)
        return angle.cos() - (self.size + mz)


class CurricularFace(ArcFace):
    """ArcFace whose hard negatives are re-weighted (arXiv 2004.00288, eqs. 6 to 10).

    A negative with cos > cos(theta_y + m) becomes cos (t + cos); t is the running mean (momentum 0.01) of the
    batch's target cosines. As published, no gradient flows from a negative to cos_y.
    """

    adapts = True
    neutral = None  # its negatives are measured against the full margin
    t: Tensor

    def __init__(self, size: float = 0.5, gradient: Gradient = "exact") -> None:
        super().__init__(size, gradient)
        self.register_buffer("t", torch.tensor(0.0))
        self.negative = self._negative

    @torch.no_grad()
    def update(self, cos_y: Tensor, norms: Tensor) -> None:
        self.t.lerp_(cos_y.float().mean(), 0.01)

    def _negative(self, cos: Tensor, cos_y: Tensor) -> tuple[Tensor, Tensor]:
        hard = cos > self.target(cos_y).detach()
        one = torch.ones((), device=cos.device)
        return torch.where(hard, cos * (self.t + cos), cos), torch.where(hard, self.t + 2 * cos, one)

    @property
    def bound(self) -> float:
        return 1.0 + abs(float(self.t))


MARGINS: dict[str, Callable[..., Margin]] = {
    "arcface": ArcFace,
    "cosface": CosFace,
    "sphereface": SphereFace,
    "combined": CombinedMargin,
    "adaface": AdaFace,
    "curricularface": CurricularFace,
}


@torch.no_grad()
def observe(margin: Margin, embeddings: Tensor, own: Tensor) -> None:
    """Update the margin's running statistics with a batch: raw embeddings and own rows of W, (b, d) in each process."""
    cos_y = F.cosine_similarity(embeddings, own.to(embeddings.dtype))
    margin.update(parallel.gather(cos_y), parallel.gather(embeddings.norm(dim=1)))


def combined(cos: Tensor, m1: float, m2: float | Tensor, m3: float | Tensor) -> Tensor:
    """Return psi of `cos` (B,), float32 or wider, as CombinedMargin defines it; finite with finite slope on [-1, 1]."""
    if isinstance(m2, float) and m2 == 0 and m1 == 1:
        return cos - m3
    cos = cos.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    if m1 == 1:
        angle = torch.as_tensor(m2, dtype=cos.dtype, device=cos.device)
        sine = ((1 - cos) * (1 + cos)).sqrt()
        within = cos > -angle.cos()  # theta + m2 < pi
        psi = torch.where(within, cos * angle.cos() - sine * angle.sin(), cos - angle * angle.sin())
    else:
        phi = m1 * cos.acos() + m2
        k = (phi / math.pi).floor().detach()
        psi = (1 - 2 * (k % 2)) * phi.cos() - 2 * k
    return psi - m3


def margin_softmax(
    embeddings: Tensor,
    labels: Tensor,
    weight: Tensor,
    margin: Margin,
    scale: float,
    size: float | Tensor | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """Return the margin softmax loss from all B x C logits: the reference, and the path for a trained W.

    Args:
        embeddings: (B, d), raw; labels: int64 (B,); weight: (C, d), rows of any norm.
        size: margin of each sample, None for the margin's own.
        prior: (C,), added to the logits of each class; None for zeros.

    Returns:
        Loss of each sample (B,), float32 or wider.
    """
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    cos = F.normalize(wide, dim=1) @ F.normalize(weight.to(wide.dtype), dim=1).T
    cos_y = cos.gather(1, labels[:, None])[:, 0]
    if size is None:
        size = margin.sizes(wide.detach().norm(dim=1))
    if margin.negative is not None:
        changed, _ = margin.negative(cos.T, cos_y)
        cos = changed.T
    logits = scale * cos.scatter(1, labels[:, None], margin.target(cos_y, size)[:, None])
    if prior is not None:
        logits = logits + prior.to(logits.dtype)
    return F.cross_entropy(logits, labels, reduction="none")


def make_margin(name: str, /, **options: Any) -> Margin:
    """Return the margin of that name. Raises UsageError for an unknown name or an option that does not fit."""
    return build(find(MARGINS, name, "margin"), options, f"margin '{name}'")


def check_scale(scale: float) -> float:
    """Return the scale of a margin softmax. Raises UsageError unless it is a finite number above 0."""
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"scale {scale}: expected a finite number above 0, e.g. 64")
    return scale
