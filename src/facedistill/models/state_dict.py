"""Files of PyTorch tensors, read without running code in them, and the tensors in them under plain names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from facedistill.errors import UserError, closest

# Data that checkpoints hold beside their weights. No name in a pickle is imported; these become `Ignored`.
IGNORED = (
    "argparse.Namespace",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
)
REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed")
# Modules that wrap a network, or a part of it, and add a part to the names of its tensors.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
DEEPEST = 16


class Ignored:
    """Stands for a value that is not read: numpy's numbers, options, paths."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_tensors(path: Path) -> Any:
    """Return what torch.save or safetensors wrote to `path`, on the CPU; only tensors and plain containers, never code.

    Raises UserError that names what was refused.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as f:
                return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict
        stand_ins: list[Any] = [(Ignored, name) for name in IGNORED]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as e:
        raise UserError(f"{path}: no safetensors file, or damaged ({e}); copy it again") from e
    except Exception as e:  # torch raises half a dozen unrelated classes here
        text = str(e)
        if refused := REFUSED.search(text):
            raise UserError(
                f"{path}: not a PyTorch file of plain tensors (it holds {refused[1]}, which is code and is not run); "
                "save the weights alone, by torch.save(model.state_dict(), path)"
            ) from e
        first = next(filter(str.strip, text.splitlines()), type(e).__name__)
        reason = "".join(c for c in re.sub(r"\x1b\[\d*m", "", first) if c.isprintable())
        raise UserError(
            f"{path}: not a PyTorch file of plain tensors ({reason}); expected a state dict written by "
            "torch.save(model.state_dict(), path)"
        ) from e


def named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint by dotted name, however deep they lie, without the parts that wrappers add.

    Lists, and keys that are not text, are left out: optimisers keep their state in them.

    Raises:
        UserError: a tensor is sparse or quantised, or has more values than the file holds.
    """
    found: dict[str, Tensor] = {}
    for parts, tensor in _walk(content, ()):
        name, plain = ".".join(parts), ".".join(part for part in parts if part not in WRAPPERS)
        found[name if plain in found else plain] = _dense(tensor, f"{path}: tensor '{name}'")
    return found


def _walk(content: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(content, Tensor):
        yield place, content
    elif isinstance(content, dict) and len(place) < DEEPEST:
        for key, value in ((k, v) for k, v in content.items() if isinstance(k, str)):
            yield from _walk(value, (*place, *key.split(".")))


def _dense(tensor: Tensor, what: str) -> Tensor:
    """Return the tensor. A view may claim any size: one with a stride of 0 repeats values without holding them."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise UserError(f"{what} is {kind}; expected dense values: save tensor.to_dense() or tensor.dequantize()")
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        raise UserError(
            f"{what} of {list(tensor.shape)} has more values than the {held:,} bytes that the file holds for it; save "
            "tensor.contiguous()"
        )
    return tensor


def check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], path: str | Path) -> None:
    """Raise UserError unless both have the same names and shapes, and `found` finite numbers of the expected kind.

    The first difference is named. `expected` may be on the meta device.
    """
    check_shapes({name: tensor.shape for name, tensor in found.items()}, expected, path)
    for name, tensor in expected.items():
        value = found[name]
        if tensor.is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{path}: tensor '{name}' is {kind}; expected floating point: dequantise the weights")
        if not value.isfinite().all():
            raise UserError(f"{path}: tensor '{name}' holds NaN or infinity; the file is damaged or training diverged")
    extra = [name for name in found if name not in expected]
    if extra:
        raise UserError(f"{path}: {len(extra)} unexpected tensors ('{extra[0]}'); this file holds another network")


def check_shapes(found: Mapping[str, Sequence[int]], expected: dict[str, Tensor], path: str | Path) -> None:
    """Raise UserError unless there is a shape in `found` for each of `expected`, and it is the same."""
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(
                f"{path}: tensor '{name}' is missing{closest(name, found)}; this file holds another network"
            )
        if list(found[name]) != list(tensor.shape):
            raise UserError(
                f"{path}: tensor '{name}' has shape {list(found[name])}; expected {list(tensor.shape)}: "
                "this file holds another network or size"
            )
