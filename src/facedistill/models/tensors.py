"""Files of tensors: safetensors, checked against what they should hold. No pickle."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facedistill.errors import UserError
from facedistill.models.state_dict import check_shapes, check_tensors


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, readable by whom the umask lets read it. Raises OSError when the disk is full."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, metadata)
        path.chmod(mode)  # safetensors leaves the file to its owner alone
    except SafetensorError as e:  # safetensors raises this for a full disk, not OSError
        raise OSError(str(e)) from e


def check_sizes(expected: dict[str, Tensor], file: Path) -> None:
    """Raise UserError unless the file holds as much as config.json claims, before anything of that size is made."""
    _present(file)
    with _explained(file), safe_open(file, "pt") as f:
        found = {name: f.get_slice(name).get_shape() for name in f.keys()}  # noqa: SIM118 - not a dict
    check_shapes(found, {f"backbone.{name}": tensor for name, tensor in expected.items()}, file)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a file. Raises UserError if it is missing or damaged."""
    _present(path)
    with _explained(path), safe_open(path, "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict


def _present(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: missing; the model folder is not complete: copy all of it")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: damaged ({e}); copy it again") from e


def load_tensors(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return all tensors of a file, which must have the names and shapes of `expected`."""
    found = read_tensors(path)
    check_tensors(found, expected, path)
    return found
