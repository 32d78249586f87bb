"""A run's logs: numbers every few steps, and the student's accuracy every few epochs."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facedistill.errors import UserError
from facedistill.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

LOG, VERIFICATION = "log.jsonl", "verification.jsonl"


def read_log(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, except one that a kill cut short. Empty if there is no log."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


class Log:
    """log.jsonl, one line every few steps, and verification.jsonl, one every few epochs if the recipe asks for it.

    After a resume, lines past the checkpoint are dropped.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        self.run, self.clock, self.step = run, time.perf_counter(), step
        kept = {name: [row for row in read_log(run / name) if row["step"] <= step] for name in (LOG, VERIFICATION)}
        for name, rows in kept.items():
            if name == LOG or (run / name).exists():
                with atomic_write(run / name) as temporary:
                    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.verified = {row["epoch"] for row in kept[VERIFICATION]}
        self.board = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as e:
                raise UserError("track: tensorboard is not installed; pip install 'facedistill[track]'") from e
            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step)

    def write(
        self, step: int, epoch: int, lr: float, norm: "Tensor", loss: "Tensor", losses: dict[str, "Tensor"], batch: int
    ) -> None:
        now = time.perf_counter()
        rate = (step - self.step) * batch / (now - self.clock)
        self.clock, self.step = now, step
        row: dict[str, Any] = {
            "step": step,
            "epoch": epoch,
            "lr": lr,
            "loss": loss.item(),
            "gradient_norm": norm.item(),
        }
        row |= {name: value.item() for name, value in losses.items()} | {"images_per_second": float(f"{rate:.4g}")}
        self._append(LOG, row, step)

    def verify(self, step: int, epoch: int, figures: dict[str, float]) -> None:
        self._append(VERIFICATION, {"step": step, "epoch": epoch, **figures}, step)
        self.verified.add(epoch)
        self.clock, self.step = time.perf_counter(), step  # the measurement does not count as training time

    def _append(self, name: str, row: dict[str, Any], step: int) -> None:
        path = self.run / name
        try:
            with open(path, "a", encoding="utf-8") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as e:
            raise UserError(f"cannot write {path}: {e.strerror or e}; free some space and run the command again") from e
        if self.board is not None:
            for key, value in row.items():
                self.board.add_scalar(key, value, step)
            self.board.flush()
