"""Embedding L2 against its formula written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from facedistill.data.batch import Batch, Output
from facedistill.errors import UserError
from facedistill.terms.embedding_l2 import EmbeddingL2, embedding_l2

BATCH = Batch(torch.zeros(0), torch.zeros(0), [], torch.zeros(0), 0.0, torch.zeros(0))


def test_raw_is_the_mean_squared_distance_summed_over_dimensions() -> None:
    s, t = torch.randn(5, 7), torch.randn(5, 7)
    expected = np.mean(
        [sum((a - b) ** 2 for a, b in zip(x, y)) for x, y in zip(s.double().numpy(), t.double().numpy())]
    )
    assert embedding_l2(s, t, normalise=False).item() == pytest.approx(expected, rel=1e-5)


def test_normalised_is_two_less_twice_the_cosine() -> None:
    s, t = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    a, b = s.numpy(), t.numpy()
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert embedding_l2(s, t).item() == pytest.approx(np.mean(2 - 2 * cosines), rel=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
def test_zero_with_zero_gradient_where_the_student_is_the_teacher(normalise: bool) -> None:
    t = torch.randn(4, 8)
    s = t.clone().requires_grad_()
    loss = embedding_l2(s, t, normalise)
    loss.backward()
    assert loss.item() == 0 and s.grad is not None and not s.grad.any()


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_only_the_normalised_one_ignores_scale(a: float, b: float) -> None:
    torch.manual_seed(1)
    s, t = torch.randn(3, 6).double(), torch.randn(3, 6).double()
    assert embedding_l2(a * s, b * t).item() == pytest.approx(embedding_l2(s, t).item(), rel=1e-9)
    raw = embedding_l2(a * s, a * t, normalise=False).item()
    assert raw == pytest.approx(a * a * embedding_l2(s, t, normalise=False).item(), rel=1e-9)


@pytest.mark.parametrize("normalise", [True, False])
def test_gradcheck(normalise: bool) -> None:
    s, t = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: embedding_l2(x, t, normalise), s)


def test_the_term_works_in_float32_whatever_the_networks_use() -> None:
    s, t = torch.randn(4, 8).bfloat16(), torch.randn(4, 8)
    for normalise in (True, False):
        term = EmbeddingL2(normalise)
        with torch.autocast("cpu", torch.bfloat16):
            loss = term(Output(s), Output(t), BATCH)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(embedding_l2(s.float(), t, normalise).item())
    assert EmbeddingL2.needs == {"embedding"} and EmbeddingL2.anchors and not EmbeddingL2.needs_weight


def test_embeddings_of_two_dimensions_are_refused() -> None:
    with pytest.raises(UserError, match="embedding_l2: the student's embeddings have 4 dimensions, the teacher's 6"):
        EmbeddingL2()(Output(torch.ones(2, 4)), Output(torch.ones(2, 6)), BATCH)
