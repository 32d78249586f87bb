"""Contextual similarity distillation against a loop over images and their neighbours."""

import numpy as np
import pytest
import torch

from facedistill.errors import UserError
from facedistill.terms.csd import CSD, csd
from term_toys import draw, loss_and_gradient, rotation, unit


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def _expected(s: torch.Tensor, t: torch.Tensor, k: int, own: float, gallery: float) -> float:
    s_unit, t_unit = unit(s), unit(t)
    losses = []
    for i in range(len(s)):
        g, x = t_unit @ t_unit[i], t_unit @ s_unit[i]
        near = np.argsort(-g)[:k]
        p, q = _softmax(g[near] / gallery), _softmax(x[near] / own)
        losses.append(np.sum(p * (np.log(p) - np.log(q))))
    return float(np.mean(losses))


@pytest.mark.parametrize("k", [1, 3, 8, 96])
def test_formula(k: int) -> None:
    s, t = draw(8, 5, 0), draw(8, 5, 1)
    expected = _expected(s, t, k, 0.7, 0.1)
    assert csd(s, t, k, 0.7, 0.1).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert loss_and_gradient(CSD(k, 0.7, 0.1), s.float(), t.float(), [0] * 8)[0] == pytest.approx(
        expected, rel=1e-4, abs=1e-6
    )


def test_zero_where_the_student_is_the_teacher_and_the_temperatures_agree() -> None:
    t = draw(6, 5, 0)
    assert csd(3 * t, t, 4, 0.1, 0.1).item() == pytest.approx(0, abs=1e-12)
    assert csd(t @ rotation(5), t, 4, 0.1, 0.1).item() > 0.1  # another space is no help to a query


def test_gradcheck() -> None:
    t = draw(5, 4, 1)
    assert torch.autograd.gradcheck(lambda x: csd(x, t, 3, 1.0, 0.1), draw(5, 4, 0, trained=True))


def test_one_image_and_duplicates() -> None:
    assert loss_and_gradient(CSD(), torch.randn(1, 4), torch.randn(1, 4), [0])[0] == 0
    loss_and_gradient(CSD(), torch.ones(3, 4), torch.ones(3, 4), [0, 1, 2])


def test_the_dimensions_must_agree() -> None:
    with pytest.raises(UserError, match="csd: the student's embeddings have 4 dimensions, the teacher's 5"):
        loss_and_gradient(CSD(), torch.randn(3, 4), torch.randn(3, 5), [0] * 3)
