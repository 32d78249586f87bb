"""The rows of a frozen W as they are stored: float32, bfloat16 or int8; in memory or on disk; all or a process's share.

Millions of rows are never copied: a safetensors file is memory-mapped, and the frozen head reads it in blocks.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facedistill import parallel
from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.recipe import Stored

PIECE_ROWS = 65_536  # rows at a time in operations on all of W
STORED = (torch.float64, torch.float32, torch.bfloat16, torch.int8)


@dataclass(frozen=True)
class Rows:
    """Consecutive unit rows of a frozen W, used as stored, even if rounding has changed their length.

    Attributes:
        values: (c, d), float32, bfloat16 or int8.
        scales: float32 (c,), the factor of each row; int8 rows have them.
        classes: None if this is all of W; else the number of classes that all processes hold together.
        first: the class of the first row here.

    Raises:
        UserError: shapes or types do not fit.
    """

    values: Tensor
    scales: Tensor | None = None
    classes: int | None = None
    first: int = 0

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype not in STORED:
            raise UserError(
                f"rows of W: {self.values.dtype} of shape {list(self.values.shape)}; expected (classes, dimensions), "
                "float32, bfloat16 or int8"
            )
        if (self.values.dtype == torch.int8) != (self.scales is not None):
            raise UserError("rows of W: int8 rows need one scale per row, other types none; make them with `quantise`")
        if self.scales is not None and self.scales.shape != self.values.shape[:1]:
            raise UserError(f"rows of W: {len(self.values)} rows do not fit scales of shape {list(self.scales.shape)}")
        if not 0 <= self.first <= self.total - len(self.values):
            raise UserError(f"rows of W: {len(self)} rows from {self.first} on do not fit {self.total} classes")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    @property
    def total(self) -> int:
        """The number of classes of the whole W."""
        return len(self) if self.classes is None else self.classes

    @property
    def sharded(self) -> bool:
        """True if other processes hold rows of this W."""
        return self.classes is not None

    def to(self, device: torch.device | str) -> "Rows":
        scales = None if self.scales is None else self.scales.to(device)
        return replace(self, values=self.values.to(device), scales=scales)

    def read(self, start: int, stop: int, buffer: Tensor) -> Tensor:
        """Return this process's rows start..stop in the buffer's type: a view if stored in it, else the buffer."""
        stored = self.values[start:stop]
        if stored.dtype == buffer.dtype:
            return stored
        scaled = stored if self.scales is None else stored * self.scales[start:stop, None]
        return buffer[: len(stored)].copy_(scaled)

    def of(self, labels: Tensor) -> Tensor:
        """Return the rows (b, d) of these classes (b,), float32 or wider, whichever process holds them.

        If W is sharded, all processes call it together, each with its own labels.

        Raises:
            UserError: a label outside 0..classes-1; no process, or more than one, holds a label's row.
        """
        self.require(labels)
        everyones = parallel.gather(labels) if self.sharded else labels
        here = (everyones >= self.first) & (everyones < self.first + len(self))
        index = everyones[here] - self.first
        wide = torch.promote_types(self.values.dtype, torch.float32)
        rows = self.read_at(index).to(wide)
        if not self.sharded:
            return rows
        # The last column counts the owners.
        found = torch.zeros(len(everyones), self.dim + 1, dtype=wide, device=rows.device)
        found[here, :-1], found[here, -1] = rows, 1
        found = parallel.scatter_sum(found, parallel.counts(labels))
        if bool((found[:, -1] != 1).any()):
            bad = int(torch.nonzero(found[:, -1] != 1)[0])
            raise UserError(
                f"frozen softmax: {int(found[bad, -1])} processes hold the row of class {int(labels[bad])}; each row "
                "of W must be held by one"
            )
        return found[:, :-1]

    def require(self, labels: Tensor) -> None:
        """Raise UserError if a label is not one of W's classes."""
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.total:
            raise UserError(
                f"frozen softmax: labels from {int(labels.min())} to {int(labels.max())} do not fit a classifier of "
                f"{self.total} classes"
            )

    def read_at(self, index: Tensor) -> Tensor:
        """Return this process's rows at `index`, multiplied by their scales."""
        rows = self.values[index]
        return rows if self.scales is None else rows * self.scales[index, None]


def as_rows(weight: "Tensor | Rows") -> Rows:
    """Return `weight` (C, d) as the rows of a W that every process holds whole. Rows are returned unchanged."""
    return weight if isinstance(weight, Rows) else Rows(weight.detach())


def quantise(weight: Tensor) -> Rows:
    """Return unit rows (C, d) as int8, a quarter of float32, with the scale max |w| / 127 for each row."""
    weight = weight.detach()
    values, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    for start in range(0, len(weight), PIECE_ROWS):
        piece = weight[start : start + PIECE_ROWS].float()
        scale = piece.abs().amax(1).clamp(min=1e-12) / 127
        values[start : start + PIECE_ROWS] = (piece / scale[:, None]).round()
        scales[start : start + PIECE_ROWS] = scale
    return Rows(values.to(weight.device), scales.to(weight.device))


def hold_rows(weight: Tensor, stored: Stored = "fp32", whole: bool = True) -> Rows:
    """Return this process's rows of W (C, d), converted to the type `stored`: all if `whole`, else its `share`.

    With "fp32", a memory-mapped W stays memory-mapped. Other processes' rows are not read.

    Raises:
        UserError: a row that is not of unit length.
    """
    mine = range(len(weight)) if whole else share(len(weight), parallel.rank(), parallel.world())
    part = weight.detach()[mine.start : mine.stop]
    for start in range(0, len(part), PIECE_ROWS):
        norms = part[start : start + PIECE_ROWS].float().norm(dim=1)
        off = torch.nonzero(~((norms - 1).abs() < 1e-3))[:, 0]
        if len(off):
            row = int(off[0])
            raise UserError(
                f"rows of W: row {mine.start + start + row} has length {norms[row]:.3g}, expected 1; the classifier's "
                "file was edited or damaged: import the teacher again"
            )
    if stored == "int8":
        rows = quantise(part)
    else:
        rows = Rows(part.bfloat16() if stored == "bf16" else part)
    return rows if whole or parallel.world() == 1 else replace(rows, classes=len(weight), first=mine.start)


def share(classes: int, rank: int, world: int) -> range:
    """Return the classes of one process: consecutive shares, the first ones a row longer if the split is uneven."""
    each, rest = divmod(classes, world)
    start = rank * each + min(rank, rest)
    return range(start, start + each + (rank < rest))


def save_rows(rows: Rows, path: str | Path) -> None:
    """Write rows as safetensors: `weight`, and `scales` if there are any. Raises UserError when the disk is full."""
    tensors = {"weight": rows.values.contiguous()}
    if rows.scales is not None:
        tensors["scales"] = rows.scales.contiguous()
    with atomic_write(Path(path)) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as e:  # safetensors raises this for a full disk, not OSError
            raise OSError(str(e)) from e


def load_rows(path: str | Path) -> Rows:
    """Return this process's `share` of the rows in a safetensors file, memory-mapped. No other rows are read.

    Args:
        path: a file that `save_rows` wrote, or classifier.safetensors of a model folder.

    Raises:
        UserError: the file is missing or damaged, or holds no W.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the rows of W as safetensors")
    try:
        with safe_open(path, "pt") as f:
            names = set(f.keys())
            if "weight" not in names:
                raise UserError(f"{path}: no tensor 'weight'; expected the rows of W")
            weight = f.get_slice("weight")
            classes = weight.get_shape()[0]
            mine = share(classes, parallel.rank(), parallel.world())
            values = weight[mine.start : mine.stop]
            scales = f.get_slice("scales")[mine.start : mine.stop] if "scales" in names else None
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: damaged ({e}); copy it again") from e
    return Rows(values, scales, classes if parallel.world() > 1 else None, mine.start)
