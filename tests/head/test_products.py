"""The frozen head's matrix products against the same in float64."""

import pytest
import torch
from torch.nn import functional as F

from facedistill.errors import UserError
from facedistill.head.products import Int8Products, make_products, product_type
from facedistill.head.rows import Rows, quantise

BLOCK = 32
NO_OWN = (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))


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
        ("bfloat16", torch.bfloat16, 1e-2),
        ("int8", torch.bfloat16, 1e-2),
    ],
)
def test_products_of_every_block(kind: str, dtype: torch.dtype, error: float) -> None:
    rows, x, p = _rows(kind), 64 * torch.randn(5, 24), torch.rand(70, 5) ** 20
    p[:, 3] = 0  # a sample whose exponentials all underflow
    products = make_products(rows, x, dtype, BLOCK, 1.0)
    gradient, found = torch.ones(5, 24), []
    for first in range(0, 70, BLOCK):
        own = NO_OWN if first else (torch.tensor([7, 7]), torch.tensor([0, 4]))
        found.append(products.start(first, first + BLOCK, own).clone())
        products.add_to(gradient, p[first : first + BLOCK].clone())
    weight = rows.read_at(torch.arange(70)).double()
    expected = weight @ x.double().T
    logits = torch.cat(found)
    assert torch.equal(logits.isneginf().nonzero(), torch.tensor([[7, 0], [7, 4]]))
    logits[7, [0, 4]] = expected[7, [0, 4]].to(logits)
    assert (logits - expected).abs().max() < error * expected.abs().max()
    expected = 1 + p.double().T @ weight
    assert (gradient - expected).abs().max() < error * expected.abs().max()


@pytest.mark.parametrize("scale", [1.0, 64.0], ids=["logits", "cosines"])
def test_bfloat16_products_are_fine_where_it_counts(scale: float) -> None:
    """Near the largest of each sample, which a twin of its class brings at last, though its own class was far above."""
    weight = F.normalize(torch.randn(70, 24), dim=1)
    weight[69] = F.normalize(weight[7] + 0.1 * weight[8], dim=0)
    rows, x = Rows(weight.bfloat16()), 64 * weight[torch.full((5,), 7)]
    products = make_products(rows, x / scale, torch.bfloat16, BLOCK, scale)
    own = torch.full((5,), 7), torch.arange(5)
    found = [products.start(first, first + BLOCK, NO_OWN if first else own).clone() for first in range(0, 70, BLOCK)]
    logits, expected = scale * torch.cat(found).double(), rows.values.double() @ x.double().T
    assert logits[7].isneginf().all()
    torch.testing.assert_close(logits[69], expected[69], rtol=0, atol=1e-3)
    first = expected[:BLOCK].clone()
    first[7] = -torch.inf
    most = first.argmax(0)
    error = (logits[:BLOCK] - first).gather(0, most[None])[0]
    assert error.abs().max() < 1e-3  # rounded they would be 0.1 off


def test_int8_sums_do_not_overflow() -> None:
    """All numbers at their largest and of one sign, at the most dimensions there may be."""
    rows = quantise(torch.full((BLOCK, 2048), 2048**-0.5))
    products = Int8Products(rows, torch.full((3, 2048), 64 * 2048**-0.5), BLOCK)
    torch.testing.assert_close(products.start(0, BLOCK, NO_OWN), torch.full((BLOCK, 3), 64.0), rtol=1e-3, atol=0)
    gradient = torch.zeros(3, 2048)
    products.add_to(gradient, torch.ones(BLOCK, 3))
    torch.testing.assert_close(gradient, torch.full((3, 2048), BLOCK * 2048**-0.5), rtol=1e-3, atol=0)


def test_embeddings_of_zeros() -> None:
    assert not Int8Products(_rows("int8"), torch.zeros(2, 24), BLOCK).start(0, BLOCK, NO_OWN).any()


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_products_only_where_a_unit_takes_them(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    short = torch.bfloat16 if able else torch.float32
    assert [product_type(_rows(kind)) for kind in ("float32", "bfloat16", "int8")] == [torch.float32, short, short]
    assert product_type(Rows(torch.ones(2, 3).double())) == torch.float64


def test_int8_products_that_cannot_be() -> None:
    for rows in (_rows("float32"), _rows("int8", dim=2049)):
        with pytest.raises(UserError, match="they need int8 rows of at most 2048 dimensions"):
            make_products(rows, torch.randn(2, rows.dim), torch.int8, BLOCK, 1.0)
