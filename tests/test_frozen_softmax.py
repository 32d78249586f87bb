"""The streaming frozen head against the dense reference in float64, gradcheck, and the edges."""

import pytest
import torch
from torch.nn import functional as F

from facedistill import frozen_softmax
from facedistill.classifier import Classifier
from facedistill.errors import UserError
from facedistill.frozen_softmax import FrozenMarginSoftmax, frozen_margin_softmax
from facedistill.margins import (
    AdaFace,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    Margin,
    SphereFace,
    margin_softmax,
)

MARGINS = [ArcFace(), ArcFace(gradient="straight_through"), CosFace(), SphereFace(), CombinedMargin(1.1, 0.2, 0.1),
           AdaFace(), CurricularFace()]  # fmt: skip


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_softmax, "BLOCK", 64)  # 300 classes: several blocks and a rest


def _problem(cosine: float, classes: int = 300, batch: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings at about `cosine` to their class, of any norm; labels repeat."""
    weight = F.normalize(torch.randn(classes, 64), dim=1)
    labels = torch.randint(classes, (batch,))
    labels[1] = labels[0]
    noise = torch.randn(batch, 64)
    noise = F.normalize(noise - (noise * weight[labels]).sum(1, keepdim=True) * weight[labels], dim=1)
    x = (cosine * weight[labels] + (1 - cosine**2) ** 0.5 * noise) * torch.rand(batch, 1).add(0.5) * 10
    return x, labels, weight


@pytest.mark.parametrize("scale", [16.0, 64.0, 128.0])
@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("margin", MARGINS, ids=lambda m: f"{type(m).__name__}")
def test_equals_the_dense_loss_in_float64(margin: Margin, cosine: float, scale: float) -> None:
    if isinstance(margin, CurricularFace):
        margin.t.fill_(0.4)
    x, labels, weight = _problem(cosine)
    wide = x.double().requires_grad_()
    size = margin.sizes(x.norm(dim=1))
    expected = margin_softmax(wide, labels, weight.double(), margin, scale, size)
    (gradient,) = torch.autograd.grad(expected.mean(), wide)
    x.requires_grad_()
    loss = frozen_margin_softmax(x, labels, weight, margin, scale, size)
    (mine,) = torch.autograd.grad(loss.mean(), x)
    torch.testing.assert_close(loss.double(), expected, rtol=5e-5, atol=2e-6 * (1 + float(expected.detach().max())))
    if float(expected.detach().mean()) < 1e-12:
        return  # nothing is left to learn, and float32 has no digits left for it
    assert float((mine - gradient).norm()) < 2e-3 * float(gradient.norm())


@pytest.mark.parametrize("margin", MARGINS[:1] + MARGINS[2:], ids=lambda m: type(m).__name__)
def test_gradcheck(margin: Margin) -> None:
    x, labels, weight = _problem(0.4, classes=70, batch=3)
    size = margin.sizes(x.norm(dim=1).double())
    assert torch.autograd.gradcheck(
        lambda e: frozen_margin_softmax(e, labels, weight.double(), margin, 8.0, size),
        x.double().requires_grad_(),
        eps=1e-6,
        atol=1e-5,
    )


def test_without_margin_the_gradient_is_the_softmax_residual() -> None:
    """dL/dx_hat = s W (p - onehot): the linear probe seen from the embedding's side."""
    x, labels, weight = _problem(0.5)
    x = F.normalize(x, dim=1).requires_grad_()
    (mine,) = torch.autograd.grad(frozen_margin_softmax(x, labels, weight, CosFace(0.0), 10.0).sum(), x)
    p = (10 * x @ weight.T).softmax(1) - F.one_hot(labels, len(weight))
    expected = 10 * p @ weight
    tangent = expected - (expected * x).sum(1, keepdim=True) * x  # normalisation removes the radial part
    torch.testing.assert_close(mine, tangent.detach(), rtol=1e-3, atol=1e-4)


def test_bfloat16_rows_keep_the_gradient() -> None:
    x, labels, weight = _problem(0.5)
    x.requires_grad_()
    (exact,) = torch.autograd.grad(frozen_margin_softmax(x, labels, weight, ArcFace(), 64.0).mean(), x)
    rounded = frozen_margin_softmax(x, labels, weight.bfloat16(), ArcFace(), 64.0).mean()
    (mine,) = torch.autograd.grad(rounded, x)
    assert float(F.cosine_similarity(mine.flatten(), exact.flatten(), dim=0)) > 0.9998


def test_one_class_one_sample() -> None:
    x = torch.randn(1, 8, requires_grad=True)
    loss = frozen_margin_softmax(
        x, torch.zeros(1, dtype=torch.long), F.normalize(torch.randn(1, 8), dim=1), ArcFace(), 64
    )
    loss.sum().backward()
    assert loss.item() == 0 and torch.isfinite(x.grad).all()


def test_embedding_on_or_opposite_its_class_is_finite() -> None:
    weight = F.normalize(torch.randn(10, 8), dim=1)
    for sign in (1.0, -1.0):
        x = (sign * weight[:3]).clone().requires_grad_()
        loss = frozen_margin_softmax(x, torch.arange(3), weight, ArcFace(), 64.0)
        loss.sum().backward()
        assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all()


def test_labels_and_sizes_that_do_not_fit() -> None:
    x, labels, weight = _problem(0.5)
    with pytest.raises(UserError, match="labels from"):
        frozen_margin_softmax(x, labels + 300, weight, ArcFace(), 64.0)
    with pytest.raises(UserError, match="projection"):
        frozen_margin_softmax(x[:, :32], labels, weight, ArcFace(), 64.0)


def test_module_has_nothing_to_train_or_save() -> None:
    head = FrozenMarginSoftmax(Classifier(torch.randn(5, 8), list("abcde")), ArcFace(), 64.0)
    assert not list(head.parameters()) and not head.state_dict()
    assert head(torch.randn(4, 8), torch.tensor([0, 1, 4, 4])).ndim == 0
