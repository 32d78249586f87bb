"""The frozen head's matrix products against the same in float64."""

import pytest
import torch
from torch.nn import functional as F

from facedistill.errors import UserError
from facedistill.products import Int8Products, make_products, product_type
from facedistill.rows import Rows, quantise

BLOCK = 32


def _rows(kind: str, classes: int = 70, dim: int = 24) -> Rows:
    weight = F.normalize(torch.randn(classes, dim), dim=1)
    return {"float32": Rows(weight), "bfloat16": Rows(weight.bfloat16()), "int8": quantise(weight)}[kind]


@pytest.mark.parametrize(
    ("kind", "dtype", "error"),
    [
        ("float32", torch.float32, 1e-6),
        ("bfloat16", torch.float32, 1e-6),
        ("int8", torch.float32, 1e-6),
        ("int8", torch.int8, 2e-4),
        ("bfloat16", torch.bfloat16, 2e-2),
        ("int8", torch.bfloat16, 2e-2),
    ],
)
def test_products_of_every_block(kind: str, dtype: torch.dtype, error: float) -> None:
    rows, x, p = _rows(kind), 64 * torch.randn(5, 24), torch.rand(70, 5) ** 20
    p[:, 3] = 0  # a sample whose exponentials all underflow
    products = make_products(rows, x, dtype, BLOCK)
    gradient, found = torch.ones(5, 24), []
    for first in range(0, 70, BLOCK):
        found.append(products.start(first, first + BLOCK).clone())
        products.add_to(gradient, p[first : first + BLOCK].clone())
    weight = rows.read_at(torch.arange(70)).double()
    expected = weight @ x.double().T
    assert (torch.cat(found) - expected).abs().max() < error * expected.abs().max()
    expected = 1 + p.double().T @ weight
    assert (gradient - expected).abs().max() < error * expected.abs().max()


def test_int8_sums_do_not_overflow() -> None:
    """All numbers at their largest and of one sign, at the most dimensions there may be."""
    rows = quantise(torch.full((BLOCK, 2048), 2048**-0.5))
    products = Int8Products(rows, torch.full((3, 2048), 64 * 2048**-0.5), BLOCK)
    torch.testing.assert_close(products.start(0, BLOCK), torch.full((BLOCK, 3), 64.0), rtol=1e-3, atol=0)
    gradient = torch.zeros(3, 2048)
    products.add_to(gradient, torch.ones(BLOCK, 3))
    torch.testing.assert_close(gradient, torch.full((3, 2048), BLOCK * 2048**-0.5), rtol=1e-3, atol=0)


def test_embeddings_of_zeros() -> None:
    assert not Int8Products(_rows("int8"), torch.zeros(2, 24), BLOCK).start(0, BLOCK).any()


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_products_only_where_a_unit_takes_them(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    short = torch.bfloat16 if able else torch.float32
    assert [product_type(_rows(kind)) for kind in ("float32", "bfloat16", "int8")] == [torch.float32, short, short]
    assert product_type(Rows(torch.ones(2, 3).double())) == torch.float64


def test_int8_products_that_cannot_be() -> None:
    for rows in (_rows("float32"), _rows("int8", dim=2049)):
        with pytest.raises(UserError, match="they need int8 rows of at most 2048 dimensions"):
            make_products(rows, torch.randn(2, rows.dim), torch.int8, BLOCK)
