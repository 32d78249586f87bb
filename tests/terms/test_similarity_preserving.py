"""Similarity-preserving distillation against numpy."""

import numpy as np
import pytest
import torch

from facedistill.terms.similarity_preserving import SimilarityPreserving, similarity_preserving
from term_toys import draw, loss_and_gradient, rotation


def _expected(s: np.ndarray, t: np.ndarray) -> float:
    grams = [x @ x.T for x in (s, t)]
    own, other = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in grams)
    return float(np.sum((own - other) ** 2) / len(s) ** 2)


def test_formula() -> None:
    s, t = draw(6, 5, 0), draw(6, 8, 1)
    assert similarity_preserving(s, t).item() == pytest.approx(_expected(s.numpy(), t.numpy()), rel=1e-12)
    loss = loss_and_gradient(SimilarityPreserving(), s.float(), t.float(), [0] * 6)[0]
    assert loss == pytest.approx(_expected(s.numpy(), t.numpy()), rel=1e-5)


def test_pinned() -> None:
    apart, together = torch.eye(2), torch.ones(2, 2)
    # Rows (1, 0) and (0, 1) against (1, 1) / sqrt(2): each row differs by 2 - sqrt(2) squared.
    assert similarity_preserving(apart, together).item() == pytest.approx(2 * (2 - 2**0.5) / 4)


def test_blind_to_a_rotation_and_to_one_factor_but_not_to_single_norms() -> None:
    s, t = draw(6, 5, 0), draw(6, 8, 1)
    found = similarity_preserving(s, t).item()
    assert similarity_preserving(3 * s @ rotation(5), 0.2 * t @ rotation(8)).item() == pytest.approx(found, rel=1e-9)
    norms = torch.linspace(1, 3, 6).double()[:, None]
    assert similarity_preserving(norms * s, t).item() != pytest.approx(found, rel=1e-3)


def test_zero_with_zero_gradient_where_the_student_is_the_teacher() -> None:
    t = draw(6, 5, 0).float()
    loss, gradient = loss_and_gradient(SimilarityPreserving(), t, t, [0] * 6)
    assert loss == 0 and not gradient.any()


def test_gradcheck() -> None:
    t = draw(4, 3, 1)
    assert torch.autograd.gradcheck(lambda x: similarity_preserving(x, t), draw(4, 5, 0, trained=True))


def test_one_image_and_duplicates() -> None:
    assert loss_and_gradient(SimilarityPreserving(), torch.randn(1, 4), torch.randn(1, 6), [0])[0] == pytest.approx(0)
    same = torch.ones(3, 4)
    assert loss_and_gradient(SimilarityPreserving(), same, same, [0] * 3)[0] == 0
