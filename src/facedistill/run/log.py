"""A run's logs: numbers every few steps, and the student's accuracy every few epochs."""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.run.trackers import Trackers

if TYPE_CHECKING:
    from torch import Tensor

LOG, VERIFICATION = "log.jsonl", "verification.jsonl"


def read_log(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, except those that a kill cut short or that are damaged. Empty if there is no log."""
    found = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []:
        with suppress(ValueError, RecursionError, OverflowError):
            row = json.loads(line)
            numbers = isinstance(row, dict) and all(type(x) in (int, float) and math.isfinite(x) for x in row.values())
            if numbers and all(type(row.get(key)) is int for key in ("step", "epoch")):
                found.append(row)
    return found


class Log:
    """log.jsonl, one line every few steps, and verification.jsonl, one every few epochs if the recipe asks for it.

    After a resume, lines past the checkpoint are dropped. The log is a record: nothing that training needs is read
    from it.

    Args:
        seconds: the time that the steps before took. trackers: are told every number too.
    """

    def __init__(self, run: Path, step: int, seconds: float, trackers: Trackers) -> None:
        self.run, self.seconds, self.clock, self.step = run, seconds, time.perf_counter(), step
        kept = {name: [row for row in read_log(run / name) if row["step"] <= step] for name in (LOG, VERIFICATION)}
        for name, rows in kept.items():
            if name == LOG or (run / name).exists():
                with atomic_write(run / name) as temporary:
                    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.verified = {row["epoch"] for row in kept[VERIFICATION]}
        self.trackers = trackers
        trackers.begin(step)

    def write(
        self, step: int, epoch: int, lr: float, norm: "Tensor", loss: "Tensor", losses: dict[str, "Tensor"], batch: int
    ) -> None:
        now, self.seconds = time.perf_counter(), self.elapsed()
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

    def elapsed(self) -> float:
        """Return the seconds that training took, without measurements of the student and pauses of the run."""
        return self.seconds + time.perf_counter() - self.clock

    def verify(self, step: int, epoch: int, measure: Callable[[], dict[str, float]]) -> None:
        self.seconds = self.elapsed()
        self._append(VERIFICATION, {"step": step, "epoch": epoch, **measure()}, step)
        self.verified.add(epoch)
        self.clock, self.step = time.perf_counter(), step  # the measurement does not count as training time

    def _append(self, name: str, row: dict[str, Any], step: int) -> None:
        path = self.run / name
        try:
            with open(path, "a", encoding="utf-8") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as e:
            raise UserError(f"cannot write {path}: {e.strerror or e}; free some space and run the command again") from e
        self.trackers.numbers(step, row)
