"""Margins against formulas written out, autograd, gradcheck and pytorch-metric-learning."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from pytorch_metric_learning import losses as oracle
from torch.nn import functional as F

from facedistill.errors import UserError
from facedistill.head.margins import (
    MARGINS,
    AdaFace,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    Margin,
    SphereFace,
    margin_softmax,
)

EDGES = torch.tensor([-1.0, -0.99999, -0.9, -0.3, 0.0, 0.3, 0.9, 0.99999, 1.0])


def _every_margin() -> list[Margin]:
    return [ArcFace(), ArcFace(gradient="straight_through"), CosFace(), SphereFace(), CombinedMargin(1.2, 0.3, 0.1),
            CombinedMargin(1.0, 0.3, 0.2), AdaFace(), CurricularFace()]  # fmt: skip


@pytest.mark.parametrize("margin", _every_margin(), ids=lambda m: type(m).__name__)
def test_finite_value_and_slope_at_the_edges(margin: Margin) -> None:
    cos = EDGES.clone().requires_grad_()
    value = margin.target(cos, margin.sizes(torch.full((len(cos),), 5.0)))
    value.sum().backward()
    assert torch.isfinite(value).all() and cos.grad is not None and torch.isfinite(cos.grad).all()
    # AdaFace gives hard samples no margin worth the name at -1; no margin ever helps the own class.
    assert (value <= EDGES + 1e-3).all() or isinstance(margin, AdaFace)


@given(st.floats(-0.999, 0.999), st.floats(0.05, 1.5))
def test_arcface_is_the_shifted_angle_or_its_fallback(cos: float, size: float) -> None:
    theta = math.acos(cos)
    expected = math.cos(theta + size) if theta + size < math.pi else cos - size * math.sin(size)
    assert float(ArcFace(size).target(torch.tensor([cos], dtype=torch.float64))) == pytest.approx(expected, abs=1e-9)


@given(st.floats(-0.999, 0.999), st.integers(1, 4))
def test_sphereface_with_integer_margin_is_the_papers_piecewise_cosine(cos: float, m: int) -> None:
    theta = math.acos(cos)
    k = math.floor(m * theta / math.pi)
    expected = (-1) ** k * math.cos(m * theta) - 2 * k
    assert float(SphereFace(m).target(torch.tensor([cos], dtype=torch.float64))) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(1.0, 3.0))
def test_sphereface_never_rises_with_the_angle(a: float, b: float, m: float) -> None:
    near, far = sorted((a * math.pi, b * math.pi))
    value = SphereFace(m).target(torch.tensor([near, far], dtype=torch.float64).cos())
    assert value[0] >= value[1] - 1e-6


def test_combined_equals_its_parts() -> None:
    cos = torch.linspace(-0.4, 0.99, 50, dtype=torch.float64)
    expected = (1.1 * cos.acos() + 0.2).cos() - 0.15
    torch.testing.assert_close(CombinedMargin(1.1, 0.2, 0.15).target(cos), expected)


def test_straight_through_changes_the_slope_only() -> None:
    cos = torch.tensor([0.2, 0.7], requires_grad=True)
    through = ArcFace(gradient="straight_through").target(cos)
    torch.testing.assert_close(through, ArcFace().target(cos))
    (slope,) = torch.autograd.grad(through.sum(), cos)
    torch.testing.assert_close(slope, torch.ones(2))


def test_exact_slope_is_the_ratio_of_sines() -> None:
    cos = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ArcFace(0.5).target(cos).sum(), cos)
    theta = cos.detach().acos()
    torch.testing.assert_close(slope, (theta + 0.5).sin() / theta.sin())


def test_size_per_sample() -> None:
    cos, sizes = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.0, 0.2, 0.5])
    together = ArcFace().target(cos, sizes)
    torch.testing.assert_close(together, torch.stack([ArcFace().target(cos[:1], float(s))[0] for s in sizes]))


def test_adaface_follows_its_equations() -> None:
    margin = AdaFace(size=0.4, h=0.333)
    norms = torch.tensor([5.0, 20.0, 90.0])
    for _ in range(2000):
        margin.update(torch.zeros(3), norms)
    mean, std = norms.mean(), norms.std()
    torch.testing.assert_close(margin.mean, mean, rtol=1e-3, atol=1e-3)
    z = (0.333 * (norms - mean) / std).clamp(-1, 1)
    torch.testing.assert_close(margin.sizes(norms), 0.4 * z, rtol=1e-2, atol=1e-3)
    cos = torch.tensor([0.3, 0.5, 0.6])
    expected = (cos.acos() - 0.4 * z).cos() - (0.4 + 0.4 * z)
    torch.testing.assert_close(margin.target(cos, margin.sizes(norms)), expected, rtol=1e-2, atol=1e-3)


def test_curricularface_follows_its_equations() -> None:
    margin = CurricularFace(0.5)
    margin.t.fill_(0.3)
    cos_y, cos = torch.tensor([0.6]), torch.tensor([[0.1], [0.5]], requires_grad=True)
    threshold = math.cos(math.acos(0.6) + 0.5)
    assert 0.1 < threshold < 0.5
    assert margin.negative is not None
    value, slope = margin.negative(cos, cos_y)
    torch.testing.assert_close(value.detach(), torch.tensor([[0.1], [0.5 * (0.3 + 0.5)]]))
    (expected,) = torch.autograd.grad(value.sum(), cos)
    torch.testing.assert_close(slope, expected)
    assert margin.bound == pytest.approx(1.3)
    margin.t.fill_(-0.3)  # a hard negative at cos = -1
    value, _ = margin.negative(torch.tensor([[-1.0]]), torch.tensor([-0.95]))
    assert value.item() == pytest.approx(1.3) and margin.bound == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("margin", "reference"),
    [
        (ArcFace(0.5), lambda c, d: oracle.ArcFaceLoss(c, d, margin=math.degrees(0.5), scale=64)),
        (CosFace(0.35), lambda c, d: oracle.CosFaceLoss(c, d, margin=0.35, scale=64)),
    ],
    ids=["arcface", "cosface"],
)
def test_loss_and_gradient_equal_pytorch_metric_learning(margin: Margin, reference: Callable[[int, int], Any]) -> None:
    embeddings = torch.randn(16, 32, requires_grad=True)
    labels = torch.randint(7, (16,))
    loss = reference(7, 32)
    weight = loss.W.detach().T
    ours = margin_softmax(embeddings, labels, weight, margin, 64.0).mean()
    (mine,) = torch.autograd.grad(ours, embeddings)
    theirs = loss(embeddings, labels)
    (expected,) = torch.autograd.grad(theirs, embeddings)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert float(F.cosine_similarity(mine.flatten(), expected.flatten(), dim=0)) > 0.9999


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="0 <= m2 < pi"):
        ArcFace(4.0)
    with pytest.raises(UserError, match="straight_through"):
        ArcFace(gradient="sideways")  # type: ignore[arg-type]
    assert set(MARGINS) >= {"arcface", "cosface", "sphereface", "combined", "adaface", "curricularface"}
