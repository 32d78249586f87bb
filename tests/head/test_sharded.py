"""The sharded head: 1, 2, 3 and 4 real processes give the same loss and gradient, whatever rank holds a label's row."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UserError
from facedistill.head import frozen_softmax
from facedistill.head.frozen_softmax import FrozenMarginSoftmax, frozen_margin_softmax
from facedistill.head.margins import AdaFace, ArcFace, CosFace, CurricularFace, Margin
from facedistill.head.rows import Rows, load_rows, quantise, save_rows, share
from processes import free_port, start

CLASSES, DIM, BATCH, WORLDS = 301, 24, 24, (1, 2, 3, 4)


def _curricular() -> Margin:
    margin = CurricularFace()
    margin.t.fill_(0.3)
    return margin


MARGINS: dict[str, tuple[Callable[[], Margin], float]] = {
    "arcface": (ArcFace, 64.0),
    "cosface, shifted": (CosFace, 128.0),
    "adaface": (AdaFace, 64.0),
    "curricularface": (_curricular, 64.0),
}


def _problem() -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings at cosine 0.5 to their class; labels repeat, the first and last row of shares among them."""
    generator = torch.Generator().manual_seed(7)
    weight = F.normalize(torch.randn(CLASSES, DIM, generator=generator), dim=1)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    ends = [end for world in WORLDS for r in range(world) for end in (share(CLASSES, r, world)[0], CLASSES - 1)]
    labels[: len(ends)] = torch.tensor(ends)
    noise = F.normalize(torch.randn(BATCH, DIM, generator=generator), dim=1)
    return 5 * (weight[labels] + 1.5 * noise), labels, weight


def _shares(weight: Tensor, folder: str) -> dict[str, Rows]:
    """This process's rows in the ways there are; with one process, all of W."""
    rank, world = parallel.rank(), parallel.world()
    found = {"from disk": load_rows(f"{folder}/w.safetensors")}
    # Shares of any size: the second process holds nothing, the first what the others leave.
    sizes = {1: [CLASSES], 2: [CLASSES, 0], 3: [200, 0, 101], 4: [7, 0, 290, 4]}[world]
    first = sum(sizes[:rank])
    found["uneven"] = Rows(weight[first : first + sizes[rank]], classes=CLASSES if world > 1 else None, first=first)
    return found


class _Student(nn.Module):
    """A network with BatchNorm in eval mode, and the head, as a script would wrap them."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM).eval()
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(DIM) + 0.1 * torch.randn(DIM, DIM, generator=generator))
            self.linear.bias.zero_()
        self.head = FrozenMarginSoftmax(rows, ArcFace(), 64.0, torch.float32)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.norm(self.linear(x)), labels)


# Shorter products round a block's sums, and blocks begin elsewhere in other shares.
_head = partial(frozen_margin_softmax, products=torch.float32)


def _found(folder: str, slices: list[int]) -> dict[str, Any]:
    """Losses and gradients of this process's slice of the batch."""
    x, labels, weight = _problem()
    x, labels = x.split(slices)[parallel.rank()], labels.split(slices)[parallel.rank()]
    found: dict[str, Any] = {}
    for kind, rows in _shares(weight, folder).items():
        for name, (make, scale) in MARGINS.items():
            mine = x.clone().requires_grad_()
            loss = _head(mine, labels, rows, make(), scale)
            (gradient,) = torch.autograd.grad(loss.sum(), mine)
            with torch.no_grad():  # no gradient wanted: only sums travel
                again = _head(mine, labels, rows, make(), scale)
            torch.testing.assert_close(again, loss, rtol=1e-6, atol=0)
            found[f"{kind}, {name}"] = loss.detach(), gradient
        student = _Student(rows)
        ddp = parallel.wrap(student)
        loss = ddp(x, labels)
        loss.backward()
        found[f"{kind}, end to end"] = loss.detach(), [p.grad for p in student.parameters()]
    return found


def _volume(classes: int, scale: float) -> int:
    """Numbers that one process hands to torch.distributed in a step, per sample of the global batch."""
    handed, originals = [0], {name: getattr(dist, name) for name in ("all_gather", "reduce_scatter", "all_reduce")}

    def counting(name: str) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            given = {"all_gather": first, "reduce_scatter": rest and rest[0], "all_reduce": [first]}[name]
            if given[0].numel() > 1:  # the slices' lengths are one number a process
                handed[0] += sum(t.numel() for t in given)
            return originals[name](first, *rest)

        return call

    mine = share(classes, parallel.rank(), parallel.world())
    rows = Rows(F.normalize(torch.randn(len(mine), DIM), dim=1), classes=classes, first=mine.start)
    x = torch.randn(BATCH // parallel.world(), DIM, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in originals:
            patch.setattr(dist, name, counting(name))
        labels = torch.randint(classes, (len(x),))
        frozen_margin_softmax(x, labels, rows, ArcFace(), scale).sum().backward()
    return handed[0] // BATCH


def _refusal() -> str:
    """What is said where no process holds the upper half of W."""
    rows = Rows(torch.eye(DIM)[:6], classes=24, first=6 * parallel.rank())
    try:
        frozen_margin_softmax(torch.randn(2, DIM), torch.tensor([0, 20]), rows, ArcFace(), 64.0)
    except UserError as e:
        return str(e)
    return "nothing"


def _worker(folder: str) -> None:
    torch.set_num_threads(1)
    frozen_softmax.BLOCK_ROWS = 64
    rank = int(os.environ["RANK"])
    for world, port in zip(WORLDS, Path(folder, "ports").read_text().split()):
        os.environ |= {"WORLD_SIZE": str(world), "MASTER_PORT": port}
        if rank >= world:
            continue
        with parallel.processes():
            found: dict[str, Any] = {"equal": _found(folder, [BATCH // world] * world)}
            uneven = {1: [24], 2: [5, 19], 3: [1, 20, 3], 4: [3, 9, 1, 11]}[world]
            found["unequal"] = {k: v for k, v in _found(folder, uneven).items() if "end to end" not in k}
            if world == 2:
                found["volume"] = {(c, s): _volume(c, s) for c in (50, 5000) for s in (64.0, 128.0)}
                found["refusal"] = _refusal()
            torch.save(found, f"{folder}/{world}.{rank}.pt")
            parallel.barrier()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """By number of processes: what each of them found."""
    folder = tmp_path_factory.mktemp("sharded")
    weight = _problem()[2]
    save_rows(quantise(weight), folder / "w.safetensors")
    (folder / "ports").write_text(" ".join(str(free_port()) for _ in WORLDS))
    start(f"import test_sharded; test_sharded._worker({str(folder)!r})", max(WORLDS))
    return {n: [torch.load(folder / f"{n}.{rank}.pt") for rank in range(n)] for n in WORLDS}


@pytest.mark.parametrize("slices", ["equal", "unequal"])
@pytest.mark.parametrize("kind", ["from disk", "uneven"])
@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("margin", MARGINS)
def test_equal_to_one_process(found: dict[int, Any], margin: str, world: int, kind: str, slices: str) -> None:
    key = f"{kind}, {margin}"
    loss, gradient = found[1][0]["equal"][key]
    parts = [f[slices][key] for f in found[world]]
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), loss, rtol=1e-6, atol=0)
    assert (torch.cat([p[1] for p in parts]) - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("kind", ["from disk", "uneven"])
@pytest.mark.parametrize("world", WORLDS[1:])
def test_end_to_end_equal_to_one_process(found: dict[int, Any], world: int, kind: str) -> None:
    loss, gradients = found[1][0]["equal"][f"{kind}, end to end"]
    parts = [f["equal"][f"{kind}, end to end"] for f in found[world]]
    torch.testing.assert_close(torch.stack([p[0] for p in parts]).mean(), loss, rtol=1e-6, atol=0)
    for _, mine in parts:
        for gradient, expected in zip(mine, gradients, strict=True):
            assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_what_travels_does_not_depend_on_the_classes(found: dict[int, Any]) -> None:
    """x, cosine and labels out, w_y, gradient and sums back: 3 d + 5 numbers a sample, and one more for the shift."""
    for f in found[2]:
        assert f["volume"] == {(c, s): 3 * DIM + 6 for c in (50, 5000) for s in (64.0, 128.0)}


def test_a_row_that_nobody_holds_is_named(found: dict[int, Any]) -> None:
    assert [f["refusal"] for f in found[2]] == [
        "frozen softmax: 0 processes hold the row of class 20; each row of W must be held by one"
    ] * 2
