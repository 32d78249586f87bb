"""Attention transfer against numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from facedistill.data.batch import Output
from facedistill.errors import UserError
from facedistill.terms.attention_transfer import AttentionTransfer, attention_transfer
from term_toys import batch_of, rotation


def _maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _expected(own: np.ndarray, other: np.ndarray) -> float:
    """Of maps of one height and width, over the batch."""
    flat = [np.sum(a**2, axis=1).reshape(len(a), -1) for a in (own, other)]
    units = [q / np.linalg.norm(q, axis=1, keepdims=True) for q in flat]
    return float(np.mean((units[0] - units[1]) ** 2))


def test_formula() -> None:
    own, other = _maps(3, 4, 2), _maps(5, 4, 2, seed=1)
    assert attention_transfer(own, other).item() == pytest.approx(_expected(own.numpy(), other.numpy()), rel=1e-12)


def test_pinned() -> None:
    own, other = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    assert attention_transfer(own, other).item() == 1.0  # (1, 0) against (0, 1)
    assert attention_transfer(own, own).item() == 0


def test_the_larger_attention_map_is_averaged_down() -> None:
    large, small = _maps(3, 4, 4), _maps(5, 2, 2, seed=1)
    attention = np.sum(large.numpy() ** 2, axis=1, keepdims=True).reshape(2, 1, 2, 2, 2, 2).mean((3, 5))
    expected = _expected(np.sqrt(attention), small.numpy())
    assert attention_transfer(large, small).item() == pytest.approx(expected, rel=1e-12)
    assert attention_transfer(small, large).item() == pytest.approx(expected, rel=1e-12)


def test_blind_to_the_scale_and_to_a_rotation_of_the_channels() -> None:
    own, other = _maps(3, 4, 4), _maps(5, 4, 4, seed=1)
    turned = torch.einsum("oc,bchw->bohw", rotation(3), own)
    assert attention_transfer(7 * turned, other).item() == pytest.approx(attention_transfer(own, other).item())
    assert attention_transfer(turned, own).item() == pytest.approx(0, abs=1e-20)


def test_gradcheck_and_a_map_of_zeros() -> None:
    other = _maps(2, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: attention_transfer(x, other), _maps(2, 2, 2).requires_grad_())
    dead = torch.zeros(2, 2, 2, 2, requires_grad=True)
    attention_transfer(dead, other.float()).backward()
    assert dead.grad is not None and torch.isfinite(dead.grad).all()


def test_the_term_sums_over_the_stages_in_float32() -> None:
    own, other = (_maps(3, 4, 4), _maps(5, 2, 2)), (_maps(4, 4, 4, seed=1), _maps(6, 2, 2, seed=1))
    with torch.autocast("cpu", torch.bfloat16):
        loss = AttentionTransfer()(Output(torch.zeros(2, 1), own), Output(torch.zeros(2, 1), other), batch_of([0, 1]))
    assert loss.dtype == torch.float32
    expected = sum(_expected(a.numpy(), b.numpy()) for a, b in zip(own, other))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_networks_of_other_depths_are_refused() -> None:
    shape = torch.Size([3, 4, 4])
    AttentionTransfer().bind_features([shape] * 4, [shape] * 4)
    with pytest.raises(UserError, match="the student has 3 stages, the teacher 4"):
        AttentionTransfer().bind_features([shape] * 3, [shape] * 4)
