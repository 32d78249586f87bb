"""The streaming frozen head against the dense reference in float64, gradcheck, and the edges."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from facedistill.errors import UserError
from facedistill.head import frozen_softmax
from facedistill.head.classifier import Classifier
from facedistill.head.frozen_softmax import FrozenMarginSoftmax, frozen_margin_softmax
from facedistill.head.margins import (
    AdaFace,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    Margin,
    SphereFace,
    margin_softmax,
)
from facedistill.head.rows import Rows, quantise

MARGINS = [ArcFace(), ArcFace(gradient="straight_through"), CosFace(), SphereFace(), CombinedMargin(1.1, 0.2, 0.1),
           AdaFace(), CurricularFace()]  # fmt: skip


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_softmax, "BLOCK_ROWS", 64)  # 300 classes: several blocks and a rest


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


def _unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)


def _beside(rows: torch.Tensor, cosine: float) -> torch.Tensor:
    """Unit vectors at this cosine to the rows."""
    noise = _unit(*rows.shape)
    noise = F.normalize(noise - (noise * rows).sum(1, keepdim=True) * rows, dim=1)
    return cosine * rows + (1 - cosine**2) ** 0.5 * noise


def _isotropic(classes: int, dim: int) -> torch.Tensor:
    return _unit(classes, dim)


def _clustered(classes: int, dim: int) -> torch.Tensor:
    """Twenty clusters, and for every row a twin at cosine 0.99."""
    rows = F.normalize(_unit(20, dim).repeat(classes // 40, 1) + _unit(classes // 2, dim), dim=1)
    return torch.cat([rows, _beside(rows, 0.99)])


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two gradients, which may be tiny: F.cosine_similarity has an epsilon of 1e-8."""
    return float((a.double() * b).sum() / (a.double().norm() * b.norm()))


@pytest.mark.parametrize("scale", [64.0, 128.0])
@pytest.mark.parametrize("cosine", [0.0, 0.15, 0.3, 0.5, 0.7, 0.8, 0.95])
@pytest.mark.parametrize("make", [_isotropic, _clustered])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8", "bfloat16 products", "int8 products"])
def test_exact_against_float64_on_the_same_stored_rows(stored: str, make: Any, cosine: float, scale: float) -> None:
    original = make(2000, 512)
    labels = torch.randint(len(original), (32,))
    x = (_beside(original[labels], cosine) * (20 * torch.rand(32, 1) + 1)).float()
    rows = {
        "float32": lambda w: Rows(w),
        "bfloat16": lambda w: Rows(w.bfloat16()),
        "bfloat16 products": lambda w: Rows(w.bfloat16()),
        "int8": quantise,
        "int8 products": quantise,
    }[stored](original.float())
    products = {"bfloat16 products": torch.bfloat16, "int8 products": torch.int8}.get(stored, torch.float32)

    def dense(weight: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The formula in float64, the rows as they are, and without the cancellation of 1 - p."""
        wide = x.double().requires_grad_()
        cos = F.normalize(wide, dim=1) @ weight.T
        target = scale * ArcFace().target(cos.gather(1, labels[:, None])[:, 0])
        others = (scale * cos).scatter(1, labels[:, None], -torch.inf).logsumexp(1)
        loss = F.softplus(others - target).mean()
        return loss.item(), torch.autograd.grad(loss, wide)[0]

    loss, gradient = dense(rows.read_at(torch.arange(len(rows))).double())
    mine = x.clone().requires_grad_()
    found = frozen_margin_softmax(mine, labels, rows, ArcFace(), scale, products=products).mean()
    found.backward()
    assert mine.grad is not None
    if products == torch.float32:
        assert abs(found.item() - loss) <= 2e-6 * (1 + abs(loss))
        assert abs(found.item() - loss) <= 5e-5 * loss or loss <= 1e-12
        assert _cosine(mine.grad, gradient) > 0.999999 or loss <= 1e-12
    elif products == torch.int8:
        assert abs(found.item() - loss) <= 2e-5 * (1 + abs(loss))
        assert _cosine(mine.grad, gradient) > 0.99999 or loss <= 1e-12
    else:
        assert _cosine(mine.grad, gradient) > 0.9999 or loss <= 1e-12
    # What rounding the rows did: most where twins decide, whose difference is short.
    if loss > 1e-12:
        least = {"float32": 0.999999, "bfloat16": 0.9998, "bfloat16 products": 0.9998}.get(stored, 0.996)
        assert _cosine(mine.grad, dense(original)[1]) > least


@pytest.mark.parametrize("classes", [1, 63, 64, 65, 128])
def test_any_number_of_classes(classes: int) -> None:
    x, labels, weight = _problem(0.5, classes=classes)
    for scale in (64.0, 128.0):
        expected = margin_softmax(x.double(), labels, weight.double(), ArcFace(), scale)
        for rows, near in ((Rows(weight), 5e-5), (Rows(weight.bfloat16()), 0.03), (quantise(weight), 0.03)):
            loss = frozen_margin_softmax(x, labels, rows, ArcFace(), scale)
            torch.testing.assert_close(loss.double(), expected, rtol=near, atol=20 * near)


def test_the_head_lets_a_margin_adapt_in_training_alone() -> None:
    x, labels, weight = _problem(0.5)
    for margin, name in ((AdaFace(), "mean"), (CurricularFace(), "t")):
        head = FrozenMarginSoftmax(Rows(weight), margin)
        before = getattr(margin, name).clone()
        head.eval()(x, labels)
        assert torch.equal(getattr(margin, name), before)
        head.train()(x, labels)
        own = (F.normalize(x, dim=1) * weight[labels]).sum(1)
        after = before.lerp(x.norm(dim=1).mean() if name == "mean" else own.mean(), 0.01)
        torch.testing.assert_close(getattr(margin, name), after)


def test_autocast_does_not_reach_the_products() -> None:
    x, labels, weight = _problem(0.5)
    expected = frozen_margin_softmax(x, labels, weight, ArcFace(), 64.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen_margin_softmax(x, labels, weight, ArcFace(), 64.0), expected)


def test_an_embedding_that_is_not_finite_is_named() -> None:
    x, labels, weight = _problem(0.5)
    x[3, 7], x[9, 0] = torch.nan, torch.inf
    with pytest.raises(UserError, match=r"embedding 3 of the batch is not finite \(2 of 32 are not\)"):
        frozen_margin_softmax(x, labels, weight, ArcFace(), 64.0)


def test_one_class_one_sample() -> None:
    x = torch.randn(1, 8, requires_grad=True)
    loss = frozen_margin_softmax(
        x, torch.zeros(1, dtype=torch.long), F.normalize(torch.randn(1, 8), dim=1), ArcFace(), 64
    )
    loss.sum().backward()
    assert loss.item() == 0 and x.grad is not None and torch.isfinite(x.grad).all()


def test_embedding_on_or_opposite_its_class_is_finite() -> None:
    weight = F.normalize(torch.randn(10, 8), dim=1)
    for sign in (1.0, -1.0):
        x = (sign * weight[:3]).clone().requires_grad_()
        loss = frozen_margin_softmax(x, torch.arange(3), weight, ArcFace(), 64.0)
        loss.sum().backward()
        assert torch.isfinite(loss).all() and x.grad is not None and torch.isfinite(x.grad).all()


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


@pytest.mark.parametrize("scale", [8.0, 64.0, 128.0])
@pytest.mark.parametrize("margin", [CosFace(), CurricularFace()])
def test_a_prior_shifts_every_class(scale: float, margin: Margin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd through all logits in float64; the rows pass in blocks, so each block takes its own priors."""
    monkeypatch.setattr(frozen_softmax, "BLOCK_ROWS", 4)
    weight, x = F.normalize(torch.randn(11, 6).double()), torch.randn(5, 6).double().requires_grad_()
    labels, prior = torch.tensor([0, 3, 4, 10, 3]), -(torch.arange(11).double() ** 1.5)
    losses = frozen_margin_softmax(x, labels, weight, margin, scale, products=torch.float64, prior=prior)
    cos = F.normalize(x) @ weight.T
    cos_y = cos.gather(1, labels[:, None])[:, 0]
    others = cos if margin.negative is None else margin.negative(cos.T, cos_y)[0].T
    z = scale * others.scatter(1, labels[:, None], margin.target(cos_y)[:, None]) + prior
    expected = F.cross_entropy(z, labels, reduction="none")
    torch.testing.assert_close(losses, expected)
    found, own = (torch.autograd.grad(each.sum(), x, retain_graph=True)[0] for each in (losses, expected))
    torch.testing.assert_close(found, own)
    torch.testing.assert_close(margin_softmax(x, labels, weight, margin, scale, prior=prior), expected)
