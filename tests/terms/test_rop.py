"""Rank order preservation against loops over triples."""

import numpy as np
import pytest
import torch

from facedistill.terms.rop import ROP, rop
from term_toys import draw, loss_and_gradient, unit


def _expected(s: torch.Tensor, t: torch.Tensor, k: int, temperature: float, sharpness: float) -> float:
    a, b = unit(s), unit(t)
    total = []
    for i in range(len(s)):
        g, x = b @ b[i], b @ a[i]
        near = np.argsort(-g)[:k]
        g, x = g[near], x[near]
        value = np.exp(sharpness * g) / np.exp(sharpness * g).sum() * np.arange(1, len(g) + 1)
        loss = 0.0
        for p in range(len(g)):
            for q in range(len(g)):
                higher = 0.5 if g[q] == g[p] else float(g[q] > g[p])
                loss += value[p] * (higher - 1 / (1 + np.exp(-(x[q] - g[p]) / temperature))) ** 2
        total.append(loss / len(g))
    return float(np.mean(total))


@pytest.mark.parametrize("k", [1, 4, 96])
def test_formula(k: int) -> None:
    s, t = draw(7, 5, 0), draw(7, 5, 1)
    expected = _expected(s, t, k, 0.1, 0.2)
    assert rop(s, t, k).item() == pytest.approx(expected, rel=1e-9)
    assert loss_and_gradient(ROP(k), s.float(), t.float(), [0] * 7)[0] == pytest.approx(expected, rel=1e-3)


def test_the_teacher_itself_costs_least() -> None:
    t = draw(7, 5, 0)
    own = rop(t, t, 5, temperature=0.01).item()
    assert own < 0.3 * rop(draw(7, 5, 1), t, 5, temperature=0.01).item()


def test_gradcheck() -> None:
    t = draw(5, 4, 1)
    assert torch.autograd.gradcheck(lambda x: rop(x, t, 4), draw(5, 4, 0, trained=True))


def test_one_image_and_duplicates() -> None:
    loss_and_gradient(ROP(), torch.randn(1, 4), torch.randn(1, 4), [0])
    loss_and_gradient(ROP(), torch.ones(3, 4), torch.ones(3, 4), [0, 1, 2])
