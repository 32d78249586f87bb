"""ShrinkTeaNet's angular distillation against numpy."""

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output
from facedistill.errors import UserError
from facedistill.terms.embedding_l2 import embedding_l2
from facedistill.terms.shrinkteanet import ShrinkTeaNet, angular
from term_toys import batch_of, draw, loss_and_gradient, unit


def test_formula_and_half_of_the_normalised_l2() -> None:
    s, t = draw(5, 7, 0), draw(5, 7, 1)
    assert angular(s, t).item() == pytest.approx(np.mean(1 - (unit(s) * unit(t)).sum(1)), rel=1e-12)
    assert angular(s, t).item() == pytest.approx(embedding_l2(s, t).item() / 2, rel=1e-9)


def test_pinned() -> None:
    s, t = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, -5.0]])
    assert angular(s, t).item() == 1.0  # cosines 1 and -1


def test_blind_to_the_norms_and_zero_where_the_student_is_the_teacher() -> None:
    s, t = draw(5, 7, 0), draw(5, 7, 1)
    assert angular(9 * s, 0.1 * t).item() == pytest.approx(angular(s, t).item(), rel=1e-9)
    loss, gradient = loss_and_gradient(ShrinkTeaNet(), t.float(), t.float(), [0] * 5)
    assert loss == pytest.approx(0, abs=1e-6) and float(gradient.abs().max()) < 1e-6


def test_gradcheck() -> None:
    t = draw(3, 4, 1)
    assert torch.autograd.gradcheck(lambda x: angular(x, t), draw(3, 4, 0, trained=True))


def test_the_term_anchors_and_wants_one_dimension() -> None:
    assert ShrinkTeaNet.anchors and ShrinkTeaNet.needs == {"embedding"}
    with torch.autocast("cpu", torch.bfloat16):
        assert loss_and_gradient(ShrinkTeaNet(), draw(1, 4, 0).bfloat16(), draw(1, 4, 1), [0])[0] > 0
    with pytest.raises(UserError, match=r"have 4 dimensions, the teacher's 6; .*student\.embedding_dim"):
        ShrinkTeaNet()(Output(torch.ones(2, 4)), Output(torch.ones(2, 6)), batch_of([0, 1]))
