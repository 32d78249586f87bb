"""The frozen head's two matrix products, block by block of W: rows x embeddings, and exponentials x rows.

Float products convert a block to their type if it is stored in another. Bfloat16 keeps 8 bits: an error of 0.25 at a
logit of 64. So each sample's largest logit so far is subtracted before the rounding, which makes the logits that matter
small. Int8 products use int8 rows unchanged and split the other factor into two int8 parts, the second in fractions of
the first one's step: 13 bits together. On a processor with VNNI but no unit for bfloat16, two int8 products take half
the time of one float32 product.
"""

from typing import Protocol

import torch
from torch import Tensor

from facedistill.errors import UserError
from facedistill.head.rows import Rows

FAR = 4.0  # a logit further than this above the largest so far is too coarse in bfloat16
FLOAT_ROWS = 256  # rows of a block that are multiplied in float32 at a time
MOST = 127  # the largest int8
FRACTION = 64  # parts of a step
WIDEST = 2048  # the most dimensions, or rows per block, at which no int32 sum of MOST * MOST * FRACTION overflows


def product_type(rows: Rows) -> torch.dtype:
    """Return the rows' own type, or bfloat16 for int8 rows; float32 instead of bfloat16 without a bfloat16 unit.

    Without one, torch's bfloat16 products are 10 times slower than float32, and converting a block is cheap. Int8
    products are never the default: their gradient is up to 5e-4 off and depends on where blocks and shares begin.
    """
    stored = rows.values
    if stored.dtype in (torch.float32, torch.float64):
        return stored.dtype
    if stored.device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if able else torch.float32


Own = tuple[Tensor, Tensor]  # places (row of the block, sample) of the samples' own classes


class Products(Protocol):
    def start(self, first: int, last: int, own: Own) -> Tensor:
        """Return <w_j, x_i> (k, B) of the rows first..last, float32 or wider; the caller may overwrite it.

        Entries of own classes are -inf: removing them from a full sum afterwards would cancel catastrophically.
        """

    def add_to(self, gradient: Tensor, p: Tensor) -> None:
        """Add p^T (B, k) times the rows of the last `start` to `gradient` (B, d); p >= 0 is overwritten."""


def make_products(rows: Rows, x: Tensor, dtype: torch.dtype, block: int, scale: float) -> Products:
    """Return the products of `rows`, `block` of them at a time, with x (B, d); `scale` turns them into logits.

    Raises:
        UserError: int8 products on a GPU, of rows that are not int8, or of more dimensions than their sums can hold.
    """
    if dtype == torch.int8 and x.device.type != "cpu":
        raise UserError("frozen softmax: int8 products run on CPUs only; on a GPU, use bfloat16 products of int8 rows")
    if dtype == torch.int8 and (rows.scales is None or max(rows.dim, block) > WIDEST):
        raise UserError(
            f"frozen softmax: int8 products of {rows.dim}-dimensional {rows.values.dtype} rows; they need int8 rows of "
            f"at most {WIDEST} dimensions"
        )
    if dtype == torch.int8:
        return Int8Products(rows, x, block)
    return Bfloat16Products(rows, x, block, scale) if dtype == torch.bfloat16 else FloatProducts(rows, x, dtype, block)


# Buffers are allocated once and overwritten: fresh memory for every block would cost page faults.


class FloatProducts:
    """Products in float32 or float64."""

    def __init__(self, rows: Rows, x: Tensor, dtype: torch.dtype, block: int) -> None:
        self.rows = rows
        self.columns = x.T.to(dtype).contiguous()
        block = min(block, len(rows))
        self.buffer, self.out = self.columns.new_empty(block, rows.dim), self.columns.new_empty(block, len(x))

    def start(self, first: int, last: int, own: Own) -> Tensor:
        self.block = self.rows.read(first, last, self.buffer)
        out = torch.mm(self.block, self.columns, out=self.out[: len(self.block)])
        out[own] = -torch.inf
        return out

    def add_to(self, gradient: Tensor, p: Tensor) -> None:
        gradient.addmm_(p.T, self.block)


class Bfloat16Products:
    """Products in bfloat16 minus each sample's largest product so far; products far above it are taken in float32.

    So a logit's error, beside the rounding of x, is at most 0.01, and far less for the logits that dominate the sum.
    """

    def __init__(self, rows: Rows, x: Tensor, block: int, scale: float) -> None:
        self.rows, self.far = rows, FAR / scale
        self.exact = x.T.contiguous()
        self.columns = self.exact.bfloat16()
        block = min(block, len(rows))
        self.buffer, self.out = self.columns.new_empty(block, rows.dim), self.columns.new_empty(block, len(x))
        self.wide, self.near = self.exact.new_empty(block, len(x)), self.columns.new_zeros(len(x))

    def start(self, first: int, last: int, own: Own) -> Tensor:
        self.block = self.rows.read(first, last, self.buffer)
        out = self.out[: len(self.block)].copy_(-self.near)
        out.addmm_(self.block, self.columns)
        out[own] = -torch.inf
        wide = self.wide[: len(out)].copy_(out).add_(self.near)
        highest = out.amax(0)
        above = torch.nonzero(highest > self.far)[:, 0]
        if len(above):
            columns = self.exact[:, above]
            for rows, to in zip(self.block.split(FLOAT_ROWS), wide.split(FLOAT_ROWS)):
                to[:, above] = rows.to(wide.dtype) @ columns
            wide[own] = -torch.inf
        self.near = torch.maximum(self.near, highest + self.near)
        return wide

    def add_to(self, gradient: Tensor, p: Tensor) -> None:
        gradient += p.T.to(self.block.dtype) @ self.block


class Int8Products:
    """Products of int8 rows in int8 with int32 sums."""

    def __init__(self, rows: Rows, x: Tensor, block: int) -> None:
        assert rows.scales is not None
        size, block = len(x), min(block, len(rows))
        self.rows, self.scales = rows, rows.scales[:, None]
        step = float(x.abs().max()) / MOST or 1.0
        self.columns = torch.empty(rows.dim, 2 * size, dtype=torch.int8)
        _split(x.T / step, torch.empty(rows.dim, size), self.columns)
        self.factors = self.scales * (step / FRACTION)
        self.sums, self.parts = torch.empty(block, 2 * size, dtype=torch.int32), self.columns.new_empty(block, 2 * size)
        self.out, self.whole = torch.empty(block, size), torch.empty(block, size)
        self.gradient = torch.empty(2 * size, rows.dim, dtype=torch.int32)

    def start(self, first: int, last: int, own: Own) -> Tensor:
        self.slice = slice(first, last)
        block = self.rows.values[self.slice]
        whole, fraction = torch._int_mm(block, self.columns, out=self.sums[: len(block)]).chunk(2, 1)
        out = self.out[: len(block)].copy_(whole.mul_(FRACTION).add_(fraction)).mul_(self.factors[self.slice])
        out[own] = -torch.inf
        return out

    def add_to(self, gradient: Tensor, p: Tensor) -> None:
        steps = p.mul_(self.scales[self.slice]).amax(0).div_(MOST).clamp_(min=1e-30)
        parts = self.parts[: len(p)]
        _split(p.div_(steps), self.whole[: len(p)], parts)
        whole, fraction = torch._int_mm(parts.T, self.rows.values[self.slice], out=self.gradient).chunk(2, 0)
        gradient.addcmul_(whole.mul_(FRACTION).add_(fraction).float(), steps[:, None] / FRACTION)


def _split(x: Tensor, buffer: Tensor, parts: Tensor) -> None:
    """Write x (k, B), within +-MOST, into int8 `parts` (k, 2 B): whole steps, then the rest in fractions of a step.

    x and the buffer, which has the same shape, are overwritten.
    """
    whole = torch.round(x, out=buffer)
    parts[:, : x.shape[1]] = whole
    parts[:, x.shape[1] :] = x.sub_(whole).mul_(FRACTION).round_()
