"""Probabilistic knowledge transfer against numpy."""

import numpy as np
import pytest
import torch

from facedistill.terms.pkt import PKT, pkt
from term_toys import draw, loss_and_gradient, rotation, unit


def _probabilities(x: np.ndarray) -> np.ndarray:
    kernel = (x @ x.T + 1) / 2
    np.fill_diagonal(kernel, 0)
    return kernel / kernel.sum(1, keepdims=True)


def _expected(s: np.ndarray, t: np.ndarray) -> float:
    p, q = _probabilities(t), _probabilities(s)
    count = len(s)
    return sum(p[i, j] * np.log(p[i, j] / q[i, j]) for i in range(count) for j in range(count) if i != j) / count


def test_formula() -> None:
    s, t = draw(6, 5, 0), draw(6, 8, 1)
    assert pkt(s, t).item() == pytest.approx(_expected(unit(s), unit(t)), rel=1e-10)
    loss = loss_and_gradient(PKT(), s.float(), t.float(), [0] * 6)[0]
    assert loss == pytest.approx(_expected(unit(s), unit(t)), rel=1e-4)


def test_pinned() -> None:
    # Neighbours of the first in the teacher: K = 1 and 1/2, so p = (2/3, 1/3); of the last: (1/2, 1/2).
    t, even = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.eye(3)
    expected = 2 * (2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3)) / 3
    assert pkt(even, t).item() == pytest.approx(expected, rel=1e-5)


def test_zero_where_the_student_is_the_teacher_turned_and_scaled() -> None:
    t = draw(6, 5, 0)
    loss, gradient = loss_and_gradient(PKT(), t.float(), t.float(), [0] * 6)
    assert loss == 0 and float(gradient.abs().max()) < 1e-7
    norms = torch.linspace(1, 3, 6).double()[:, None]
    assert pkt(norms * t @ rotation(5), t).item() == pytest.approx(0, abs=1e-12)


def test_gradcheck() -> None:
    t = draw(4, 3, 1)
    assert torch.autograd.gradcheck(lambda x: pkt(x, t), draw(4, 5, 0, trained=True))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_have_no_choice_of_neighbours(count: int) -> None:
    assert loss_and_gradient(PKT(), torch.randn(count, 4), torch.randn(count, 6), [0] * count)[0] == 0


def test_copies_and_opposites_stay_finite() -> None:
    line = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert loss_and_gradient(PKT(), line, draw(3, 4, 0).float(), [0] * 3)[0] > 0
    assert loss_and_gradient(PKT(), draw(3, 4, 0).float(), line, [0] * 3)[0] > 0
