"""Checkpoints: everything that a run needs to resume to the same bits, written atomically."""

import re
from pathlib import Path
from typing import Any

import torch

from facedistill.errors import UserError
from facedistill.files import atomic_write

KEYS = {"step", "method", "optimizer", "frozen_weight"}
KEPT = 2  # the last good one and its predecessor


def save_checkpoint(run: Path, step: int, state: dict[str, Any]) -> None:
    """Write checkpoints/step0000123.pt and remove all but the newest two."""
    folder = run / "checkpoints"
    with atomic_write(folder / f"step{step:08d}.pt") as temporary:
        try:
            torch.save({"step": step, **state}, temporary)
        except RuntimeError as e:  # torch raises this for a full disk, not OSError
            raise OSError(str(e).split(". ")[0]) from e
    for old in _files(run)[:-KEPT]:
        old.unlink()


def begun(run: Path) -> bool:
    """Return whether the run has a checkpoint or a result, which another recipe would lose."""
    return bool(_files(run)) or (run / "evaluation.json").exists()


def epoch_file(epoch: int) -> str:
    """Return the name, in the run's epochs/, of the file with the student's weights after that epoch (from 0)."""
    return f"{epoch:04d}.safetensors"


def latest_checkpoint(run: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint's content, loaded without pickle code, or None. UserError if it is damaged."""
    files = _files(run)
    if not files:
        return None
    try:
        state = torch.load(files[-1], map_location="cpu", weights_only=True)
        missing = KEYS - set(state)
    except Exception as e:
        raise UserError(
            f"checkpoint {files[-1]} cannot be read ({type(e).__name__}); delete it to resume from the one before"
        ) from e
    if missing:
        raise UserError(
            f"checkpoint {files[-1]} lacks {', '.join(sorted(missing))}; delete it to resume from the one before"
        )
    return state


def restore_checkpoint(
    method: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], run: Path
) -> None:
    """Load weights, buffers and optimiser. Raises UserError that names the first tensor that does not fit."""
    own = method.state_dict()
    # Earlier versions called a term's W `classes`.
    saved = {re.sub(r"^(terms\..+)\.classes\.", r"\1.weight.", name): value for name, value in state["method"].items()}
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
