"""Nearest classes: found as by brute force, cached for one W alone, and the softmax over them."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data.batch import Batch, Output
from facedistill.errors import UsageError, UserError
from facedistill.head import nearest
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.head.frozen_softmax import frozen_margin_softmax
from facedistill.head.margins import MARGINS, ArcFace
from facedistill.head.nearest import cached_nearest, nearest_classes, neighbourhood
from facedistill.head.rows import Rows, quantise
from facedistill.recipe.schema import MovedBy
from facedistill.terms import make_term
from facedistill.terms.margin_softmax import MarginSoftmax
from processes import start

CLASSES, DIM = 157, 16
STORED = {"float32": Rows, "bfloat16": lambda w: Rows(w.bfloat16()), "int8": quantise}


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and blocks so small that W has several, none a divisor of another."""
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nearest, "QUERIES", 50)
    monkeypatch.setattr(nearest, "BLOCK", 33)


def _weight(classes: int = CLASSES, seed: int = 1) -> Tensor:
    return F.normalize(torch.randn(classes, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def _cosines(rows: Rows) -> Tensor:
    """Of all rows, float64, without the diagonal."""
    wide = rows.read_at(torch.arange(len(rows))).double()
    return (wide @ wide.T).fill_diagonal_(-torch.inf)


@pytest.mark.parametrize("count", [1, 7, 60, CLASSES - 1])
@pytest.mark.parametrize("stored", STORED)
def test_as_by_brute_force(stored: str, count: int) -> None:
    rows = STORED[stored](_weight())
    found, cosines = nearest_classes(rows, count), _cosines(rows)
    assert found.dtype == torch.int32 and found.shape == (CLASSES, count)
    assert all(len(set(row)) == count for row in found.tolist())
    # Their cosines, not the classes themselves: of two equally near ones either will do.
    torch.testing.assert_close(
        cosines.gather(1, found.long()), cosines.topk(count).values, rtol=0, atol=1e-6, check_dtype=False
    )


def test_a_twin_is_the_nearest_and_a_class_is_never_its_own_neighbour() -> None:
    twins = _weight().repeat(2, 1)
    found = nearest_classes(Rows(twins), 3)
    assert found[:, 0].tolist() == [(i + CLASSES) % (2 * CLASSES) for i in range(2 * CLASSES)]
    same = nearest_classes(Rows(torch.ones(5, 4) / 2), 2)
    assert not (same == torch.arange(5)[:, None]).any()


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_fewer_classes_than_neighbours(classes: int) -> None:
    found = cached_nearest(Rows(_weight(classes)), 64)
    assert [sorted([i, *row]) for i, row in enumerate(found.tolist())] == [list(range(classes))] * classes


def test_w_stays_as_it_was() -> None:
    rows = Rows(_weight())
    nearest_classes(rows, 4)
    assert torch.equal(rows.values, _weight())


def test_a_share_of_w_is_refused() -> None:
    with pytest.raises(ValueError, match="in all of W"):
        nearest_classes(Rows(_weight(), classes=2 * CLASSES), 4)


@pytest.mark.parametrize("stored", STORED)
def test_the_rows_of_a_batch_and_the_labels_among_them(stored: str) -> None:
    rows, labels = STORED[stored](_weight()), torch.tensor([40, 3, 40, 156, 0])
    near = nearest_classes(rows, 4)
    part, places = neighbourhood(rows, near, labels)
    expected = sorted({j for label in labels.tolist() for j in [label, *near[label].tolist()]})
    assert part.values.dtype == rows.values.dtype and not part.sharded
    assert torch.equal(part.read_at(torch.arange(len(part))), rows.read_at(torch.tensor(expected)))
    assert torch.equal(part.of(places), rows.of(labels))
    with torch.no_grad():
        x = torch.randn(5, DIM)
        loss = frozen_margin_softmax(x, places, part, ArcFace(), 16.0)
        assert bool((loss < frozen_margin_softmax(x, labels, rows, ArcFace(), 16.0)).all())


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_without_a_row_is_refused(label: int) -> None:
    rows = Rows(_weight())
    with pytest.raises(UserError, match=f"do not fit a classifier of {CLASSES} classes"):
        neighbourhood(rows, nearest_classes(rows, 2), torch.tensor([0, label, 5]))


def _searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the number of neighbours at every search."""
    done: list[int] = []

    def searching(rows: Rows, count: int) -> Tensor:
        done.append(count)
        return nearest_classes(rows, count)

    monkeypatch.setattr(nearest, "nearest_classes", searching)
    return done


@pytest.mark.parametrize("stored", STORED)
def test_the_cache_serves_the_same_w_and_no_other(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done, rows = _searches(monkeypatch), STORED[stored](_weight())
    first = cached_nearest(rows, 4)
    assert torch.equal(cached_nearest(STORED[stored](_weight()), 4), first) and done == [4]
    other = _weight()
    other[[3, 100]] = other[[100, 3]]
    found = cached_nearest(STORED[stored](other), 4)
    assert done == [4, 4] and not torch.equal(found, first)
    assert cached_nearest(rows, 5).shape == (CLASSES, 5) and done == [4, 4, 5]
    assert torch.equal(cached_nearest(rows, 4), first) and len(done) == 3


def test_rows_of_other_scales_are_another_w(monkeypatch: pytest.MonkeyPatch) -> None:
    done, rows = _searches(monkeypatch), quantise(_weight())
    cached_nearest(rows, 4)
    assert rows.scales is not None
    cached_nearest(Rows(rows.values, rows.scales * torch.linspace(0.5, 1, CLASSES)), 4)
    assert done == [4, 4]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY nothing", b"no array at all"])
def test_a_damaged_cache_is_made_again(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    done, rows = _searches(monkeypatch), Rows(_weight())
    first = cached_nearest(rows, 4)
    (file,) = (tmp_path / "cache" / "nearest").iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1  # a class number
    for content in (damage, whole[:-1], bytes(flipped)):
        file.unlink()
        file.write_bytes(content)
        assert torch.equal(cached_nearest(rows, 4), first) and file.read_bytes() == whole
    assert len(done) == 4 and capsys.readouterr().err.count("the cached nearest classes are not used") == 3


def test_a_cache_that_cannot_be_written_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "file"))
    assert cached_nearest(Rows(_weight()), 4).shape == (CLASSES, 4)
    assert capsys.readouterr().err.count("the nearest classes are not cached: cannot write") == 1


def _batch(labels: list[Tensor], shares: list[float]) -> Batch:
    pixels = torch.zeros(len(labels[0]), 3, 2, 2)
    return Batch(pixels, pixels, list(zip(labels, shares)), torch.zeros(len(pixels), 2), 1.0, labels[0])


def _term(moved_by: MovedBy = "nothing", **options: Any) -> MarginSoftmax:
    term = MarginSoftmax(**({"scale": 16.0} | options))
    term.bind(ClassWeight(Classifier(_weight(), [f"c{i}" for i in range(CLASSES)]), moved_by), None)
    return term


LABELS = [torch.tensor([0, 3, 3, 10, 156]), torch.tensor([5, 0, 1, 2, 3])]


@pytest.mark.parametrize("shares", [[1.0], [0.75, 0.25]])
@pytest.mark.parametrize("margin", list(MARGINS))
def test_with_all_others_as_neighbours_it_is_the_exact_loss(margin: str, shares: list[float]) -> None:
    terms = [_term(margin=margin), _term(margin=margin, negatives="nearest", nearest=CLASSES - 1)]
    for _ in range(3):  # running statistics of one step act in the next
        x, found = torch.randn(5, DIM), []
        for term in terms:
            mine = x.clone().requires_grad_()
            loss = term(Output(mine), None, _batch(LABELS, shares))
            found.append((loss.detach(), *torch.autograd.grad(loss, mine)))
        torch.testing.assert_close(*found)
    torch.testing.assert_close(terms[0].state_dict(), terms[1].state_dict())


@pytest.mark.parametrize("margin", list(MARGINS))
def test_the_formula_over_the_nearest_alone(margin: str) -> None:
    term = _term(margin=margin, negatives="nearest", nearest=3).eval()
    labels, x = LABELS[0], torch.randn(5, DIM)
    classes = sorted({*labels.tolist(), *_cosines(Rows(_weight()))[labels].topk(3).indices.flatten().tolist()})
    places = torch.tensor([classes.index(label) for label in labels.tolist()])
    size = term.margin.sizes(x.norm(dim=1))
    expected = frozen_margin_softmax(x, places, _weight()[classes], term.margin, 16.0, size).mean()
    found = term(Output(x), None, _batch([labels], [1.0]))
    torch.testing.assert_close(found, expected)
    assert len(classes) < 20 and found < _term(margin=margin).eval()(Output(x), None, _batch([labels], [1.0]))


@pytest.mark.parametrize("moved_by", ["gradient", "teacher"])
def test_refused_where_w_moves(moved_by: MovedBy) -> None:
    with pytest.raises(UsageError, match=f"negatives=nearest needs a W that nothing moves.*moved_by is {moved_by}"):
        _term(moved_by, negatives="nearest")


def test_the_options_of_a_recipe() -> None:
    term = make_term("margin_softmax", {"negatives": "nearest", "nearest": "8"})
    assert isinstance(term, MarginSoftmax) and term.nearest == 8 and term.whole_weight
    assert not make_term("margin_softmax", {}).whole_weight
    for options in ({"negatives": "nearby"}, {"nearest": 0}):
        with pytest.raises(UsageError, match=f"term 'margin_softmax': option '{next(iter(options))}'"):
            make_term("margin_softmax", options)


def test_neighbours_are_no_part_of_the_checkpoint() -> None:
    assert not _term(negatives="nearest").state_dict() and not list(_term(negatives="nearest").parameters())


def _step(mine: slice) -> dict[str, Tensor]:
    """Neighbours found, and the losses of this process's samples and their gradient."""
    rows, labels = Rows(_weight()), torch.tensor([0, 3, 150, 10, 156, 3, 40])[mine]
    x = torch.randn(7, DIM, generator=torch.Generator().manual_seed(2))[mine].requires_grad_()
    near = cached_nearest(rows, 4)
    part, places = neighbourhood(rows, near, labels)
    loss = frozen_margin_softmax(x, places, part, ArcFace(), 16.0, products=torch.float32)
    return {"near": near, "loss": loss.detach(), "gradient": torch.autograd.grad(loss.sum(), x)[0]}


def _worker(folder: str) -> None:
    torch.set_num_threads(1)
    nearest.QUERIES, nearest.BLOCK = 50, 33
    with parallel.processes():
        rank = parallel.rank()
        os.environ["FACEDISTILL_CACHE"] = f"{folder}/host {rank}"
        mine = slice(0, 5) if rank == 0 else slice(5, 7)
        found = [_step(mine)]
        if rank == 0:
            shutil.rmtree(f"{folder}/host 0")
        found.append(_step(mine))
        torch.save(found, f"{folder}/{rank}.pt")


def test_two_hosts_find_and_lose_as_much_as_one_also_where_one_lacks_its_cache(tmp_path: Path) -> None:
    start(f"import test_nearest; test_nearest._worker({str(tmp_path)!r})", 2)
    parts, alone = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)], _step(slice(None))
    for first, second in zip(*parts):
        assert torch.equal(first["near"], alone["near"]) and torch.equal(second["near"], alone["near"])
        for key in ("loss", "gradient"):
            torch.testing.assert_close(torch.cat([first[key], second[key]]), alone[key], rtol=1e-5, atol=1e-6)
