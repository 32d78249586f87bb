"""FitNet's hint against numpy, and the projection that the term owns."""

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output
from facedistill.errors import UsageError
from facedistill.terms.fitnet import FitNet, hint
from term_toys import batch_of


def _maps(*shape: int) -> torch.Tensor:
    return torch.randn(2, *shape, dtype=torch.float64)


def _term(stage: int = 1) -> FitNet:
    term = FitNet(stage)
    term.bind_features([torch.Size([3, 4, 4]), torch.Size([5, 2, 2])], [torch.Size([4, 2, 2]), torch.Size([6, 2, 2])])
    return term


def test_the_mean_squared_difference() -> None:
    own, other = _maps(4, 3, 3), _maps(4, 3, 3)
    expected = np.mean((own.numpy() - other.numpy()) ** 2)
    assert hint(own, other).item() == pytest.approx(expected, rel=1e-12)
    assert hint(torch.full((1, 2, 2, 2), 3.0), torch.full((1, 2, 2, 2), 1.0)).item() == 4.0
    assert hint(other, other).item() == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_the_larger_map_is_averaged_down(swapped: bool) -> None:
    large, small = _maps(3, 4, 4), _maps(3, 2, 2)
    mean = large.numpy().reshape(2, 3, 2, 2, 2, 2).mean((3, 5))
    expected = np.mean((mean - small.numpy()) ** 2)
    pair = (small, large) if swapped else (large, small)
    assert hint(*pair).item() == pytest.approx(expected, rel=1e-12)


def test_gradcheck() -> None:
    other = _maps(2, 2, 2)
    assert torch.autograd.gradcheck(lambda x: hint(x, other), _maps(2, 4, 4).requires_grad_())


def test_the_term_projects_the_students_channels_by_a_convolution_and_normalises_them() -> None:
    term = _term()
    own, other = _maps(3, 2, 2).float(), _maps(4, 2, 2).float()
    layer = term.projection[0]
    assert isinstance(layer, torch.nn.Conv2d)
    weight = layer.weight.detach().double().numpy()
    projected = np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], own.double().numpy())
    mean, std = (f(projected, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    expected = np.mean(((projected - mean) / std - other.double().numpy()) ** 2)
    loss = term(Output(torch.zeros(2, 1), (own,)), Output(torch.zeros(2, 1), (other,)), batch_of([0, 1]))
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    loss.backward()
    assert len(list(term.parameters())) == 3
    assert all(p.grad is not None and bool(p.grad.any()) for p in term.parameters())


def test_the_published_weight_trains_at_the_rate_of_a_margin_softmax() -> None:
    """Maps far from mean 0, as real ones are: the bare convolution would diverge within a few steps."""
    term = _term()
    own, other = 3 + 2 * _maps(3, 2, 2).float(), 5 + 3 * _maps(4, 2, 2).float()
    optimizer = torch.optim.SGD(term.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(100):
        loss = term(Output(torch.zeros(2, 1), (own,)), Output(torch.zeros(2, 1), (other,)), batch_of([0, 1]))
        optimizer.zero_grad()
        (100 / 16 * loss).backward()  # 16 times fewer channels than a network has
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_stage_chooses_the_map_of_both_networks() -> None:
    term = _term(stage=2)
    layer = term.projection[0]
    assert isinstance(layer, torch.nn.Conv2d)
    assert tuple(layer.weight.shape) == (6, 5, 1, 1)
    own, other = (_maps(3, 4, 4), _maps(5, 2, 2)), (_maps(4, 2, 2), _maps(6, 2, 2))
    before, after = (
        term(Output(torch.zeros(2, 1), (change * own[0], own[1])), Output(torch.zeros(2, 1), other), batch_of([0, 1]))
        for change in (1, 5)
    )
    assert before.item() == after.item()


def test_float32_under_autocast_and_a_stage_that_is_not_there() -> None:
    own, other = _maps(3, 4, 4).bfloat16(), _maps(4, 2, 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = _term()(Output(torch.zeros(2, 1), (own,)), Output(torch.zeros(2, 1), (other,)), batch_of([0, 1]))
    assert loss.dtype == torch.float32
    with pytest.raises(UsageError, match=r"fitnet: stage 3, but a network has 2 stages; set stage to 1\.\.2"):
        _term(stage=3)
