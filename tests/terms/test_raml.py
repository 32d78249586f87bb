"""RAML against loops over pairs."""

from itertools import permutations

import numpy as np
import pytest
import torch

from facedistill.terms.raml import RAML, raml
from term_toys import draw, loss_and_gradient, rotation, unit


def test_formula() -> None:
    s, t = draw(6, 5, 0), draw(6, 5, 1)
    a, b = unit(s), unit(t)
    pairs = list(permutations(range(6), 2))
    own = np.mean([(1 - a[i] @ b[i]) ** 2 for i in range(6)])
    cross = np.mean([(a[i] @ b[j] - b[i] @ b[j]) ** 2 for i, j in pairs])
    among = np.mean([(a[i] @ a[j] - b[i] @ b[j]) ** 2 for i, j in pairs])
    assert raml(s, t, 2.0, 3.0).item() == pytest.approx(own + 2 * cross + 3 * among, rel=1e-10)
    found = loss_and_gradient(RAML(), s.float(), t.float(), [0] * 6)[0]
    assert found == pytest.approx(own + 0.7482 * cross + 0.6778 * among, rel=1e-4)


def test_zero_at_the_teacher_and_the_rotated_teacher_costs_only_across() -> None:
    t = draw(6, 5, 0)
    assert raml(3 * t, t).item() == pytest.approx(0, abs=1e-12)
    turned = t @ rotation(5)
    assert raml(turned, t, 0.0, 1.0).item() == pytest.approx(raml(turned, t, 0.0, 0.0).item(), abs=1e-12)


def test_gradcheck() -> None:
    t = draw(4, 3, 1)
    assert torch.autograd.gradcheck(lambda x: raml(x, t), draw(4, 3, 0, trained=True))


def test_one_image() -> None:
    s, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert loss_and_gradient(RAML(), s, t, [0])[0] == pytest.approx(1.0)
