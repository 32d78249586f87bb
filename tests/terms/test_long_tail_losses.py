"""The losses for long tails against their formulas written out, with a frozen and a trained W."""

from typing import Any

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output
from facedistill.errors import UsageError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.recipe.schema import MovedBy
from facedistill.terms import TERMS, make_term
from facedistill.terms.class_balanced import ClassBalanced
from facedistill.terms.focal import focal
from facedistill.terms.long_tail import LongTail
from term_toys import batch_of, draw, loss_and_gradient, unit

COUNTS = [500, 40, 9, 2, 1, 1]
ROWS = Classifier(draw(6, 5, 7), [f"class {i}" for i in range(6)])
LABELS = [0, 3, 3, 5]
SCALE = 10.0
MOVED_BY = pytest.mark.parametrize("moved_by", ["nothing", "gradient"])


def term(name: str, moved_by: MovedBy = "nothing", counts: list[int] | None = COUNTS, **options: Any) -> LongTail:
    found = TERMS[name](**({"scale": SCALE} | options))
    assert isinstance(found, LongTail)
    found.bind(ClassWeight(ROWS, moved_by, counts=None if counts is None else torch.tensor(counts)), None)
    return found


def logits(student: torch.Tensor) -> np.ndarray:
    return SCALE * unit(student) @ unit(ROWS.weight).T


def cross_entropies(z: np.ndarray) -> np.ndarray:
    return np.array([-np.log(np.exp(row[y]) / np.exp(row).sum()) for row, y in zip(z, LABELS, strict=True)])


def class_weights(beta: float) -> np.ndarray:
    raw = [1 / n if beta == 1 else (1 - beta) / (1 - beta**n) for n in COUNTS]
    return np.array(raw) * len(COUNTS) / sum(raw)


@MOVED_BY
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_class_balanced(moved_by: MovedBy, beta: float) -> None:
    s = draw(4, 5, 0).float()
    loss, gradient = loss_and_gradient(term("class_balanced", moved_by, beta=beta), s, s, LABELS)
    expected = (class_weights(beta)[LABELS] * cross_entropies(logits(s))).mean()
    assert loss == pytest.approx(expected, rel=1e-5) and gradient.any()


@MOVED_BY
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(moved_by: MovedBy, gamma: float) -> None:
    s = draw(4, 5, 0).float()
    loss, gradient = loss_and_gradient(term("focal", moved_by, None, gamma=gamma), s, s, LABELS)
    plain = cross_entropies(logits(s))
    assert loss == pytest.approx(((1 - np.exp(-plain)) ** gamma * plain).mean(), rel=1e-5) and gradient.any()


def test_focal_of_a_sure_image_has_a_finite_gradient() -> None:
    x = torch.tensor([0.0, 1e-30, 50.0], requires_grad=True)
    focal(x, 0.5).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    wide = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda losses: focal(losses, 2.0), wide)


@MOVED_BY
@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
def test_balanced_softmax_and_logit_adjustment(moved_by: MovedBy, tau: float) -> None:
    s = draw(4, 5, 0).float()
    loss, gradient = loss_and_gradient(term("balanced_softmax", moved_by, tau=tau), s, s, LABELS)
    prior = np.array(COUNTS) / sum(COUNTS)
    assert loss == pytest.approx(cross_entropies(logits(s) + tau * np.log(prior)).mean(), rel=1e-5)
    assert gradient.any()


@MOVED_BY
@pytest.mark.parametrize(("defer", "weighted"), [(0.2, True), (0.5, True), (0.8, False), (1.0, False)])
def test_ldam_with_deferred_weights(moved_by: MovedBy, defer: float, weighted: bool) -> None:
    """A batch of `batch_of` is at half of training."""
    s = draw(4, 5, 0).float()
    loss, gradient = loss_and_gradient(term("ldam", moved_by, largest=0.4, defer=defer, beta=0.99), s, s, LABELS)
    margins = np.array([0.4 / n**0.25 for n in COUNTS])  # C / n^(1/4), C = 0.4 because the smallest class has 1 image
    z = logits(s)
    z[np.arange(4), LABELS] -= SCALE * margins[LABELS]
    weights = class_weights(0.99)[LABELS] if weighted else 1.0
    assert loss == pytest.approx((weights * cross_entropies(z)).mean(), rel=1e-5) and gradient.any()


def test_pinned_class_weights() -> None:
    """Two classes of 1 and 2 images at beta 0.5: 1 and 2/3, scaled to 1.2 and 0.8."""
    found = ClassBalanced(beta=0.5)
    found.bind(ClassWeight(Classifier(torch.eye(2), ["a", "b"]), "nothing", counts=torch.tensor([1, 2])), None)
    assert found.weights.tolist() == pytest.approx([1.2, 0.8])


@pytest.mark.parametrize("name", ["class_balanced", "balanced_softmax", "ldam"])
def test_a_row_for_every_image_has_no_class_sizes(name: str) -> None:
    with pytest.raises(UsageError, match=r"needs the number of training images of each class.*classifier\.start"):
        term(name, counts=None)


@pytest.mark.parametrize("name", ["class_balanced", "ldam"])
def test_beta_is_below_one(name: str) -> None:
    with pytest.raises(UsageError, match="beta 1: expected a number from 0 to below 1"):
        make_term(name, {"beta": 1.0})


def test_a_margin_of_the_softmax() -> None:
    s = draw(4, 5, 0).float()
    z = logits(s)
    z[np.arange(4), LABELS] -= SCALE * 0.2
    loss = term("balanced_softmax", margin="cosface", margin_options={"size": 0.2})(Output(s), None, batch_of(LABELS))
    assert loss.item() == pytest.approx(cross_entropies(z + np.log(np.array(COUNTS) / sum(COUNTS))).mean(), rel=1e-5)
