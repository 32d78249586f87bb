"""D3still against loops over pairs of neighbours."""

import numpy as np
import pytest
import torch

from facedistill.errors import UsageError
from facedistill.terms.d3still import D3still, d3still
from term_toys import draw, loss_and_gradient, unit


def _expected(s: torch.Tensor, t: torch.Tensor, k: int, alpha: float, beta: float, gamma: float) -> float:
    a, b = unit(s), unit(t)
    count = len(s)
    k = min(k, count)
    own = np.sqrt(sum((1 - a[i] @ b[i]) ** 2 for i in range(count))) / count
    lengths: dict[int, list[float]] = {-1: [], 1: []}
    for i in range(count):
        g, x = b @ b[i], b @ a[i]
        near = [j for j in np.argsort(-g) if j != i][: k - 1]
        squares = {-1: 0.0, 1: 0.0}
        for p in near:
            for q in near:
                dg, dx = g[p] - g[q], x[p] - x[q]
                if dg * dx != 0:
                    squares[int(np.sign(dg * dx))] += ((dx - dg) / (0.1 + abs(dg))) ** 2
        for sign, square in squares.items():
            lengths[sign].append(np.sqrt(square))
    return float(alpha * own + (beta * np.mean(lengths[-1]) + gamma * np.mean(lengths[1])) / (k - 1))


@pytest.mark.parametrize("k", [3, 5, 96])
def test_formula(k: int) -> None:
    s, t = draw(7, 5, 0), draw(7, 5, 1)
    expected = _expected(s, t, k, 50, 2, 1)
    assert d3still(s, t, k).item() == pytest.approx(expected, rel=1e-9)
    assert loss_and_gradient(D3still(k), s.float(), t.float(), [0] * 7)[0] == pytest.approx(expected, rel=1e-3)


def test_zero_at_the_teacher_and_order_costs_more_than_distance() -> None:
    t = draw(7, 5, 0)
    assert d3still(3 * t, t).item() == pytest.approx(0, abs=1e-9)
    s = t + 0.5 * draw(7, 5, 1)
    assert d3still(s, t, 5, 0.0, 2.0, 0.0).item() > 0 and d3still(s, t, 5, 0.0, 0.0, 1.0).item() > 0


def test_gradcheck() -> None:
    t = draw(6, 4, 1)
    assert torch.autograd.gradcheck(lambda x: d3still(x, t, 5), draw(6, 4, 0, trained=True))


def test_small_batches_and_duplicates() -> None:
    for count in (1, 2, 3):
        loss_and_gradient(D3still(), torch.randn(count, 4), torch.randn(count, 4), [0] * count)
    loss_and_gradient(D3still(), torch.ones(4, 4), torch.ones(4, 4), [0] * 4)
    x = torch.randn(4, 4)
    loss_and_gradient(D3still(), x, x, [0] * 4)


def test_two_neighbours_make_no_pair() -> None:
    with pytest.raises(UsageError, match="d3still: neighbours 2; expected 3 or more"):
        D3still(2)
