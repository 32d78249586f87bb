"""Checkpoints: everything that a run needs to resume to the same bits, written atomically."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from facedistill import parallel
from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.progress import say

KEYS = {"step", "method", "optimizer", "frozen_weight", "checksum"}
KEPT = 2  # the last good one and its predecessor
State = dict[str, Any]


def save_checkpoint(run: Path, step: int, state: State) -> None:
    """Write checkpoints/step0000123.pt and remove all but the newest two."""
    folder, state = run / "checkpoints", {"step": step, **state}
    with atomic_write(folder / f"step{step:08d}.pt") as temporary:
        try:
            torch.save(state | {"checksum": _checksum(state)}, temporary)
        except RuntimeError as e:  # torch raises this for a full disk, not OSError
            raise OSError(str(e).split(". ")[0]) from e
    for old in _files(run)[:-KEPT]:
        old.unlink(missing_ok=True)


def begun(run: Path) -> bool:
    """Return whether the run has a checkpoint or a result, which another recipe would lose."""
    return bool(_files(run)) or (run / "evaluation.json").exists()


def epoch_file(epoch: int) -> str:
    """Return the name, in the run's epochs/, of the file with the student's weights after that epoch (from 0)."""
    return f"{epoch:04d}.safetensors"


def latest_checkpoint(run: Path, require: Callable[[State], None] = lambda state: None) -> State | None:
    """Return the content of the newest checkpoint that is sound, loaded without pickle code; None if there is none.

    A line says if a newer one is passed over.

    Args:
        require: raises UserError for a checkpoint that is not this run's.

    Raises:
        UserError: there are checkpoints, and none is sound: why the newest is not.
    """
    refused: UserError | None = None
    for file in reversed(_files(run)):
        try:
            state = _read(file)
            require(state)
        except UserError as e:
            refused = refused or e
            continue
        if refused and parallel.rank() == 0:
            say(f"{refused}. Resuming from the one before, {file.name}")
        return state
    if refused:
        raise refused
    return None


def _read(file: Path) -> State:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        sound = set(state) >= KEYS and state.pop("checksum") == _checksum(state)
        sound = sound and file.stem == f"step{state['step']:08d}"
    except Exception as e:  # a damaged file raises almost anything
        raise UserError(f"checkpoint {file} cannot be read ({type(e).__name__}); delete it") from e
    if not sound:
        raise UserError(f"checkpoint {file} is damaged, or another version wrote it: its checksum is wrong; delete it")
    return state


def _checksum(state: Any) -> str:
    """Return 64 hex characters of the SHA-256 of all in a checkpoint: numbers, text and the bytes of its tensors."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            raw: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(raw)
        elif isinstance(value, dict):
            add([part for pair in value.items() for part in pair])
        elif isinstance(value, list | tuple):
            digest.update(f"{len(value)} values ".encode())
            for part in value:
                add(part)
        else:
            digest.update(f"{value!r} ".encode())

    add(state)
    return digest.hexdigest()


def restore_checkpoint(method: torch.nn.Module, optimizer: torch.optim.Optimizer, state: State, run: Path) -> None:
    """Load weights, buffers and optimiser. Raises UserError that names the first tensor that does not fit."""
    own, saved = method.state_dict(), state["method"]
    for name in [*own, *saved]:
        found, expected = saved.get(name), own.get(name)
        if found is None or expected is None or found.shape != expected.shape:
            raise UserError(
                f"checkpoint in {run}: '{name}' is {_shape(found)}, the recipe's network expects {_shape(expected)}; "
                "the run was made by another version or its files were mixed: start a new run with another --out"
            )
    method.load_state_dict(saved)
    optimizer.load_state_dict(state["optimizer"])


def _files(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step*.pt"))


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))
