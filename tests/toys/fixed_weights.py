"""Weights that depend on nothing but their shape and place, so that another program can make the same."""

import torch
from torch import Tensor, nn


def fix_weights(network: nn.Module, sort: bool = False) -> None:
    """Fill the network's floating-point state with waves and make it float64.

    Tensor number i of the state dict (by name if `sort`) is w = sin(0.37 n + i) at its n-th value: 1 + 0.3 w for a
    variance; w sqrt(2 / fan-in) for matrices and kernels; 0.1 w for biases and means; 0.6 + 0.3 w for the rest.
    """
    state = network.state_dict()
    names = sorted(state) if sort else list(state)
    for number, name in enumerate(names):
        tensor = state[name]
        if tensor.is_floating_point():
            tensor.copy_(_value(name.rpartition(".")[2], tensor, number))
    network.load_state_dict(state)
    network.double().eval()


def _value(kind: str, tensor: Tensor, number: int) -> Tensor:
    wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.37 + number).reshape(tensor.shape)
    if kind == "running_var":
        return 1 + 0.3 * wave
    if tensor.ndim in (2, 4):
        return wave * (2 / max(1, tensor[0].numel())) ** 0.5
    return 0.1 * wave if kind in ("bias", "running_mean") else 0.6 + 0.3 * wave


def unit_embedding(network: nn.Module) -> Tensor:
    """Return the unit embedding (d,), float64, of an image of waves at 112x112."""
    image = torch.sin(torch.arange(3 * 112 * 112, dtype=torch.float64) * 0.11).reshape(1, 3, 112, 112)
    with torch.no_grad():
        embedding = network(image)[0]
    return embedding / embedding.norm()
