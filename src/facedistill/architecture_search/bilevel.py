"""The gradient of an architecture's weights (alphas) in DARTS (Liu et al., arXiv 1806.09055).

The alphas should lower the loss on held-back images of the network that trains on the others: minimise
L_val(w*(alpha), alpha). First order takes w as it is. Second order takes w' = w - rate * (the optimiser's step), and
adds what alpha changes in w': -rate * d2 L_train / (d alpha d w) . d L_val / d w', by finite differences (equation 8).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Loss = Callable[[], Tensor]
SMALL = 0.01  # the length of the finite difference


def first_order(validation: Loss, alphas: Sequence[Tensor]) -> list[Tensor]:
    """Return d L_val / d alpha."""
    return list(torch.autograd.grad(validation(), alphas))


def second_order(
    training: Loss, validation: Loss, alphas: Sequence[Tensor], optimizer: torch.optim.SGD
) -> list[Tensor]:
    """Return the gradient of L_val(w', alpha) by the alphas, w' one step of `optimizer` ahead.

    The optimiser's parameters are w; they have the same values afterwards, to the bit.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    with _restored(weights):
        _step_ahead(training, weights, optimizer)
        gradients = torch.autograd.grad(validation(), [*alphas, *weights], allow_unused=True)
    direct, towards = gradients[: len(alphas)], [_or_zero(g, w) for g, w in zip(gradients[len(alphas) :], weights)]
    rate = optimizer.param_groups[0]["lr"]
    epsilon = SMALL / torch.stack([t.norm() for t in towards]).norm().clamp_min(1e-12)
    sides = []
    for sign in (1, -1):
        with _restored(weights), torch.no_grad():
            for w, t in zip(weights, towards):
                w.add_(t * (sign * epsilon))
            with torch.enable_grad():
                sides.append(torch.autograd.grad(training(), alphas))
    return [d - rate * (plus - minus) / (2 * epsilon) for d, plus, minus in zip(direct, *sides)]


def _step_ahead(training: Loss, weights: list[nn.Parameter], optimizer: torch.optim.SGD) -> None:
    """Move the weights as the next step of the optimiser would, without changing its state."""
    gradients = torch.autograd.grad(training(), weights, allow_unused=True)
    of = dict(zip(weights, gradients))
    with torch.no_grad():
        for group in optimizer.param_groups:
            for w in group["params"]:
                step = _or_zero(of[w], w) + group["weight_decay"] * w
                buffer = optimizer.state.get(w, {}).get("momentum_buffer")
                if buffer is not None:
                    step = step + group["momentum"] * buffer
                w.sub_(group["lr"] * step)


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give the tensors their values back at the end of the block."""
    kept = [t.detach().clone() for t in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in zip(tensors, kept):
                tensor.copy_(values)


@contextmanager
def kept_statistics(network: nn.Module) -> Iterator[None]:
    """Give the network's buffers (running statistics) their values back at the end of the block."""
    with _restored(list(network.buffers())):
        yield
