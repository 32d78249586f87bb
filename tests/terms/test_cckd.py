"""Correlation congruence against numpy, and its Taylor series against the kernel itself."""

import math

import numpy as np
import pytest
import torch

from facedistill.errors import UsageError
from facedistill.terms import make_term
from facedistill.terms.cckd import CCKD, bilinear, gaussian
from term_toys import draw, loss_and_gradient, rotation, unit


def _kernel(x: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-gamma ||x_i - x_j||^2), exact."""
    return np.array([[math.exp(-gamma * np.sum((a - b) ** 2)) for b in x] for a in x])


def _series(x: np.ndarray, gamma: float, order: int) -> np.ndarray:
    terms = [(2 * gamma) ** p / math.factorial(p) * (x @ x.T) ** p for p in range(order + 1)]
    return math.exp(-2 * gamma) * np.sum(terms, axis=0)


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 1), (0.4, 2), (1.0, 5)])
def test_formula(gamma: float, order: int) -> None:
    s, t = draw(6, 5, 0), draw(6, 8, 1)
    expected = np.sum((_series(unit(s), gamma, order) - _series(unit(t), gamma, order)) ** 2) / 36
    loss = loss_and_gradient(CCKD(gamma=gamma, order=order), s.float(), t.float(), [0] * 6)[0]
    assert loss == pytest.approx(expected, rel=1e-4)


def test_bilinear() -> None:
    s, t = draw(6, 5, 0), draw(6, 8, 1)
    expected = np.sum((unit(s) @ unit(s).T - unit(t) @ unit(t).T) ** 2) / 36
    assert loss_and_gradient(CCKD("bilinear"), s.float(), t.float(), [0] * 6)[0] == pytest.approx(expected, rel=1e-5)
    apart, together = torch.eye(2), torch.ones(2, 2)
    assert loss_and_gradient(CCKD("bilinear"), apart, together, [0, 1])[0] == pytest.approx(0.5)  # 2 of 4 differ by 1


def test_the_series_is_the_kernel_as_its_order_grows() -> None:
    x = draw(6, 5, 0)
    exact = _kernel(unit(x), 0.4)
    errors = [float(np.abs(gaussian(x, 0.4, order).numpy() - exact).max()) for order in (1, 2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-12
    # At order 2 and gamma 0.4 the error is largest at cosine 1: 1 - e^-0.8 (1 + 0.8 + 0.32).
    assert gaussian(torch.ones(2, 3), 0.4, 2)[0, 1].item() == pytest.approx(1 - 0.0474, abs=1e-4)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert gaussian(opposite, 0.4, 2)[0, 1].item() - math.exp(-1.6) == pytest.approx(0.0317, abs=1e-3)


@pytest.mark.parametrize("kernel", ["bilinear", "gaussian"])
def test_zero_where_the_student_is_the_teacher_turned_and_scaled(kernel: str) -> None:
    term, t = make_term("cckd", {"kernel": kernel}), draw(6, 5, 0)
    loss, gradient = loss_and_gradient(term, t.float(), t.float(), [0] * 6)
    assert loss == 0 and not gradient.any()
    norms = torch.linspace(1, 3, 6).double()[:, None]
    loss, _ = loss_and_gradient(term, (norms * t @ rotation(5)).float(), t.float(), [0] * 6)
    assert loss == pytest.approx(0, abs=1e-12)


def test_gradcheck() -> None:
    x = draw(4, 5, 0, trained=True)
    assert torch.autograd.gradcheck(bilinear, x)
    assert torch.autograd.gradcheck(lambda x: gaussian(x, 0.4, 3), x)


def test_one_image_duplicates_and_an_unknown_kernel() -> None:
    assert loss_and_gradient(CCKD(), torch.randn(1, 4), torch.randn(1, 6), [0])[0] == pytest.approx(0, abs=1e-12)
    same = torch.ones(3, 4)
    assert loss_and_gradient(CCKD(), same, same, [0] * 3)[0] == 0
    with pytest.raises(UsageError, match="option 'kernel': Input should be 'bilinear' or 'gaussian'"):
        make_term("cckd", {"kernel": "mmd"})
