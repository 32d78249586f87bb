"""The alphas' gradient, against autograd through a real step of the optimiser."""

import pytest
import torch
from torch import Tensor

from facedistill.architecture_search.bilevel import first_order, kept_statistics, second_order

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def problem() -> tuple[torch.nn.Parameter, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))
    alpha = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    mix, target = (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (3, 1))
    return w, alpha, mix, target.flatten()


def train_loss(w: Tensor, alpha: Tensor, mix: Tensor, target: Tensor) -> Tensor:
    return (torch.tanh(w * (mix @ alpha.softmax(0))) - target).square().sum()


def held_back_loss(w: Tensor, alpha: Tensor, mix: Tensor, target: Tensor) -> Tensor:
    return (torch.sin(w + mix @ alpha) + target).square().sum()


@pytest.mark.parametrize("steps", [0, 2])
def test_second_order_is_the_derivative_through_the_optimisers_step(steps: int) -> None:
    """Exact: w' as a function of alpha, differentiated by autograd; with momentum after real steps."""
    w, alpha, mix, target = problem()
    optimizer = torch.optim.SGD([w], RATE, MOMENTUM, weight_decay=DECAY)
    for _ in range(steps):
        optimizer.zero_grad()
        train_loss(w, alpha, mix, target).backward()
        optimizer.step()
    before = w.detach().clone()
    found = second_order(
        lambda: train_loss(w, alpha, mix, target), lambda: held_back_loss(w, alpha, mix, target), [alpha], optimizer
    )[0]
    assert torch.equal(w, before)

    gradient = torch.autograd.grad(train_loss(w, alpha, mix, target), w, create_graph=True)[0]
    buffer = optimizer.state[w]["momentum_buffer"] if steps else torch.zeros_like(w)
    ahead = w - RATE * (gradient + DECAY * w + MOMENTUM * buffer)
    expected = torch.autograd.grad(held_back_loss(ahead, alpha, mix, target), alpha)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)

    first = first_order(lambda: held_back_loss(w, alpha, mix, target), [alpha])[0]
    assert (first - expected).abs().max() > 10 * (found - expected).abs().max()


def test_the_step_ahead_is_the_optimisers_own() -> None:
    from facedistill.architecture_search.bilevel import _step_ahead

    w, alpha, mix, target = problem()
    optimizer = torch.optim.SGD([w], RATE, MOMENTUM, weight_decay=DECAY)
    for _ in range(3):
        optimizer.zero_grad()
        train_loss(w, alpha, mix, target).backward()
        optimizer.step()
    start = w.detach().clone()
    _step_ahead(lambda: train_loss(w, alpha, mix, target), [w], optimizer)
    ahead = w.detach().clone()
    with torch.no_grad():
        w.copy_(start)
    optimizer.zero_grad()
    train_loss(w, alpha, mix, target).backward()
    optimizer.step()
    torch.testing.assert_close(ahead, w.detach(), rtol=0, atol=1e-12)


def test_statistics_are_kept() -> None:
    norm = torch.nn.BatchNorm1d(2)
    with kept_statistics(norm):
        norm(torch.randn(8, 2))
        assert norm.num_batches_tracked == 1
    assert norm.num_batches_tracked == 0 and torch.equal(norm.running_mean, torch.zeros(2))  # type: ignore[arg-type]
