"""Relational knowledge distillation against loops over pairs and triplets."""

from itertools import permutations

import numpy as np
import pytest
import torch

from facedistill.terms.rkd import RKD, rkd
from term_toys import draw, loss_and_gradient, rotation


def _huber(a: float, b: float) -> float:
    d = abs(a - b)
    return d * d / 2 if d <= 1 else d - 0.5


def _expected(s: np.ndarray, t: np.ndarray, distance: float, angle: float) -> float:
    pairs, triplets = list(permutations(range(len(s)), 2)), list(permutations(range(len(s)), 3))
    far, turned = [], []
    for x in (s, t):
        lengths = [np.linalg.norm(x[i] - x[j]) for i, j in pairs]
        far.append([length / np.mean(lengths) for length in lengths])

        def towards(a: int, b: int, x: np.ndarray = x) -> np.ndarray:
            return (x[a] - x[b]) / np.linalg.norm(x[a] - x[b])

        turned.append([float(towards(i, j) @ towards(k, j)) for i, j, k in triplets])
    return float(
        distance * np.mean([_huber(a, b) for a, b in zip(*far)])
        + angle * np.mean([_huber(a, b) for a, b in zip(*turned)])
    )


@pytest.mark.parametrize(("distance", "angle"), [(1.0, 0.0), (0.0, 1.0), (25.0, 50.0)])
def test_formula(distance: float, angle: float) -> None:
    s, t = draw(6, 5, 0), draw(6, 8, 1)
    s[0] *= 20  # far out: the linear part of the Huber loss
    expected = _expected(s.numpy(), t.numpy(), distance, angle)
    assert rkd(s, t, distance, angle).item() == pytest.approx(expected, rel=1e-10)
    assert loss_and_gradient(RKD(distance, angle), s.float(), t.float(), [0] * 6)[0] == pytest.approx(
        expected, rel=1e-4
    )


def test_pinned() -> None:
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])  # distances 1, 1, 2: over their mean 3/4, 3/4, 3/2
    side = 3**0.5
    triangle = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, side]])  # all distances equal, all cosines 1/2
    assert rkd(line, triangle, 1, 0).item() == pytest.approx((2 * 0.25**2 + 0.5**2) / 2 / 3, rel=1e-5)
    # Cosines along the line: 1 at both ends, -1 in the middle, where the Huber loss is linear.
    assert rkd(line, triangle, 0, 1).item() == pytest.approx((2 * 0.5**2 / 2 + (1.5 - 0.5)) / 3, rel=1e-5)


def test_zero_where_the_student_is_the_teacher_moved_turned_and_scaled() -> None:
    t = draw(6, 5, 0)
    loss, gradient = loss_and_gradient(RKD(), t.float(), t.float(), [0] * 6)
    assert loss == 0 and not gradient.any()
    assert rkd(3 * t @ rotation(5) + 7, t).item() == pytest.approx(0, abs=1e-12)
    s = draw(6, 8, 1)
    assert rkd(s, 3 * t @ rotation(5) + 7).item() == pytest.approx(rkd(s, t).item(), rel=1e-9)


def test_gradcheck() -> None:
    t = draw(4, 3, 1)
    assert torch.autograd.gradcheck(lambda x: rkd(x, t), draw(4, 5, 0, trained=True))


def test_one_image_has_no_relation() -> None:
    loss, gradient = loss_and_gradient(RKD(), torch.randn(1, 4), torch.randn(1, 6), [0])
    assert loss == 0 and not gradient.any()


def test_copies_of_an_image_count_as_no_pair() -> None:
    s, t = draw(4, 5, 0), draw(4, 8, 1)
    s[3], t[3] = s[0], t[0]
    loss, _ = loss_and_gradient(RKD(), s.float(), t.float(), [0] * 4)
    assert loss > 0
    same = torch.ones(3, 4)
    assert loss_and_gradient(RKD(), same, same, [0] * 3)[0] == 0
