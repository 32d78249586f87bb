"""DarkRank against the likelihood of a ranking, written out."""

import math

import numpy as np
import pytest
import torch

from facedistill.terms.darkrank import DarkRank, darkrank
from term_toys import draw, loss_and_gradient, rotation, unit


def _expected(s: np.ndarray, t: np.ndarray, alpha: float, beta: float, length: int) -> float:
    costs = []
    for q in range(len(s)):
        others = sorted((i for i in range(len(s)) if i != q), key=lambda i: np.linalg.norm(t[i] - t[q]))[:length]
        scores = [-alpha * np.linalg.norm(s[i] - s[q]) ** beta for i in others]
        likelihood = 1.0
        for i in range(len(scores)):
            likelihood *= math.exp(scores[i]) / sum(math.exp(score) for score in scores[i:])
        costs.append(-math.log(likelihood))
    return float(np.mean(costs))


@pytest.mark.parametrize(("alpha", "beta", "length"), [(3.0, 3.0, 3), (1.0, 2.0, 6), (2.0, 1.0, 99)])
def test_formula(alpha: float, beta: float, length: int) -> None:
    s, t = draw(7, 5, 0), draw(7, 8, 1)
    expected = _expected(unit(s), unit(t), alpha, beta, length)
    assert darkrank(s, t, alpha, beta, length).item() == pytest.approx(expected, rel=1e-10)
    term = DarkRank(alpha, beta, length)
    assert loss_and_gradient(term, s.float(), t.float(), [0] * 7)[0] == pytest.approx(expected, rel=1e-4)


def test_pinned() -> None:
    """Three images: of each one's two neighbours, all equally far in the student, any order has probability 1/2."""
    even, t = torch.eye(3), draw(3, 4, 1).float()
    assert darkrank(even, t).item() == pytest.approx(math.log(2), rel=1e-6)
    assert darkrank(even, t, length=1).item() == 0  # a list of one image has one order


def test_the_teachers_own_ranking_is_the_likeliest_and_still_costs() -> None:
    t = draw(7, 5, 1)
    own = darkrank(t, t, length=6).item()
    assert own == pytest.approx(_expected(unit(t), unit(t), 3, 3, 6), rel=1e-10) and own > 0
    for shift in range(1, 7):
        assert darkrank(t, t.roll(shift, 0), length=6).item() > 2 * own
        assert darkrank(t, t.roll(shift, 0)).item() > darkrank(t, t).item()


def test_blind_to_norms_and_rotations_of_either_network() -> None:
    s, t = draw(7, 5, 0), draw(7, 8, 1)
    assert darkrank(3 * s @ rotation(5), 9 * t @ rotation(8)).item() == pytest.approx(darkrank(s, t).item(), rel=1e-9)


def test_gradcheck() -> None:
    t = draw(5, 3, 1)
    assert torch.autograd.gradcheck(lambda x: darkrank(x, t), draw(5, 4, 0, trained=True))


def test_one_image_and_duplicates() -> None:
    loss, gradient = loss_and_gradient(DarkRank(), torch.randn(1, 4), torch.randn(1, 6), [0])
    assert loss == 0 and not gradient.any()
    same = torch.ones(4, 3)
    assert loss_and_gradient(DarkRank(), same, same, [0] * 4)[0] == pytest.approx(math.log(6), rel=1e-5)  # 3! orders


def test_the_teachers_embeddings_are_left_alone() -> None:
    t = draw(4, 3, 1)
    before = t.clone()
    darkrank(draw(4, 3, 0), t)
    assert torch.equal(t, before)
