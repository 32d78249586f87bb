"""Two real processes on the loopback: gather and its gradient, every term, the engine as torchrun starts it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from check_toys import table_of
from facedistill import parallel
from facedistill.data.batch import Batch, Output
from facedistill.data.dataset import open_dataset
from facedistill.data.loader import Loader
from facedistill.data.samplers import make_sampler
from facedistill.data.views import make_view
from facedistill.errors import UsageError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.recipe.read import make_recipe
from facedistill.recipe.schema import MovedBy
from facedistill.terms import TERMS
from facedistill.training import engine
from processes import start

BATCH, DIM, CLASSES = 8, 6, 5
NAMES = [f"c{i}" for i in range(CLASSES)]
# Every term in TERMS stands here: one that is missing fails the test below.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "margin_softmax": ("margin_softmax", {"scale": 8.0}),
    "adaface": ("margin_softmax", {"scale": 8.0, "margin": "adaface"}),
    "curricularface": ("margin_softmax", {"scale": 8.0, "margin": "curricularface"}),
    "nearest": ("margin_softmax", {"scale": 8.0, "negatives": "nearest", "nearest": 1}),
    "embedding_l2": ("embedding_l2", {}),
    "raw_l2": ("embedding_l2", {"normalise": False}),
    "soft_targets": ("soft_targets", {"scale": 8.0}),
    "likeliest_targets": ("soft_targets", {"scale": 8.0, "top_k": 2}),
    "margin_distillation": ("margin_distillation", {"scale": 8.0}),
    "fitnet": ("fitnet", {"stage": 1}),
    "ekd": ("ekd", {"hardest": 5, "temperature": 0.1}),
    "influence": ("influence", {"scale": 8.0}),
    "lce": ("lce", {}),
    "mixbct": ("mixbct", {"scale": 8.0, "share": 0.5}),
    "gkd": ("gkd", {"scale": 8.0, "group": 2, "warmup": 1.0}),
    "csd": ("csd", {"neighbours": 3, "gallery": 0.2}),
    "rop": ("rop", {"neighbours": 4}),
    "d3still": ("d3still", {"neighbours": 4}),
    **{
        name: (name, {})
        for name in (
            "attention_transfer", "shrinkteanet", "triplet_distillation", "similarity_preserving", "rkd", "darkrank",
            "pkt", "cckd", "raml", "aml", "residual", "octuplet",
        )
    },
    "class_balanced": ("class_balanced", {"scale": 8.0, "beta": 0.9}),
    "focal": ("focal", {"scale": 8.0}),
    "balanced_softmax": ("balanced_softmax", {"scale": 8.0}),
    "ldam": ("ldam", {"scale": 8.0, "defer": 0.5, "beta": 0.9}),
    "bce": ("bce", {"scale": 8.0}),
    "class_balanced_bce": ("class_balanced_bce", {"scale": 8.0, "beta": 0.9}),
    "focal_bce": ("focal_bce", {"scale": 8.0}),
    "asymmetric": ("asymmetric", {"scale": 8.0}),
    "distribution_balanced": ("distribution_balanced", {"scale": 8.0}),
    "rskd": ("rskd", {"scale": 8.0, "temperature": 2.0}),
    "subset_softmax": ("subset_softmax", {"scale": 8.0}),
}  # fmt: skip


RECIPE: dict[str, Any] = {
    "data": {"train": "synthetic:identities=6,images=4,size=32,seed=1"},
    "student": {"input_size": 32, "embedding_dim": 8, "options": {"width": 0.25}},
    "method": {
        "name": "scratch",
        "terms": {"margin_softmax": {"scale": 16, "margin": "adaface"}},
        "view": {"kind": "augment"},
    },
    "schedule": {"epochs": 2, "batch": 8, "lr": 0.05, "checkpoint_steps": 2, "log_steps": 1},
}


def _wired() -> Iterator[tuple[str, str]]:
    """Each case and what moves its W: where it moves, nearest classes are refused, which are found once."""
    for name, (kind, options) in CASES.items():
        still = not TERMS[kind].needs_weight or options.get("negatives") == "nearest"
        moved: tuple[MovedBy, ...] = ("nothing",) if still else ("nothing", "gradient")
        yield from ((name, by) for by in (("gradient",) if kind == "lce" else moved))


class _Toy(nn.Module):
    """A network, W and all terms as the engine holds them: DDP wraps it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)  # for what a term initialises
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Linear(4, DIM)
        with torch.no_grad():
            self.network.weight.copy_(torch.randn(DIM, 4, generator=generator))
            self.network.bias.zero_()
        rows = Classifier(torch.randn(CLASSES, DIM, generator=generator), NAMES)
        counts = torch.arange(1, CLASSES + 1)
        weights = {by: ClassWeight(rows, by, counts=counts) for by in ("nothing", "gradient")}
        self.weights = nn.ModuleDict(weights)
        self.terms = nn.ModuleDict()
        for name, moved in _wired():
            kind, options = CASES[name]
            term = TERMS[kind](**options)
            if term.needs_table:
                term.bind_table(replace(table_of(CLASSES, 4, DIM), class_names=NAMES), rows)
            term.bind(weights[moved], rows)
            term.bind_features([torch.Size([2, 1, 3])], [torch.Size([3, 1, 2])])
            for module in term.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()  # its statistics stay local, as a network's
            self.terms[f"{name}, W moved by {moved}"] = term

    def forward(self, x: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        pixels = torch.zeros(len(x), 3, 2, 2)
        several = nn.functional.one_hot(labels, CLASSES).float()
        several = several.roll(1, 1).maximum(several) * (labels < 3)[:, None]  # some images have no label
        index = torch.zeros(len(x), 2, dtype=torch.long)
        batch = Batch(pixels, pixels, [(labels, 1.0)], index, 0.5, labels, several)
        z = self.network(x)
        parts = {"student": Output(z, (z.view(-1, 2, 1, 3),)), "assistant": Output(2 * z, (z.view(-1, 2, 1, 3),))}
        student = Output(z, (z.view(-1, 2, 1, 3),), parts)
        other = Output(teacher, (teacher.view(-1, 3, 1, 2),))
        return {name: term(student, other, batch) for name, term in self.terms.items()}


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x, teacher = torch.randn(BATCH, 4, generator=generator), torch.randn(BATCH, DIM, generator=generator)
    # Two of a class in each process, among every second one as well (a batch of pairs), and two in different ones.
    return x, teacher, torch.tensor([0, 1, 0, 2, 3, 1, 4, 2])


def _terms(mine: slice) -> dict[str, Any]:
    """Losses, gradients and running statistics after two steps over this process's slice of the batch."""
    toy = _Toy()
    ddp = parallel.wrap(toy)
    x, teacher, labels = (t[mine] for t in _inputs())
    found: dict[str, Any] = {}
    for step in range(2):  # the statistics of step 0 act in step 1
        names = list(toy.terms)
        for name in names:
            toy.zero_grad()
            losses = ddp(x, teacher, labels)
            loss = losses[name] + 0 * sum(losses.values())
            loss.backward()
            mean = parallel.gather(losses[name].detach()[None]).mean()
            gradients = {n: p.grad.clone() for n, p in toy.named_parameters() if p.grad is not None}
            found[f"{step} {name}"] = {"loss": mean, **gradients}
    return found | {"statistics": dict(toy.named_buffers())}


def _global_loss(z: Tensor) -> Tensor:
    """A loss of the whole batch that no mean over slices could give."""
    z = nn.functional.normalize(z, dim=1)
    return (z @ z.T).square().mean() + z.mean(0).norm()


class _Global(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = _Toy().network

    def forward(self, x: Tensor) -> Tensor:
        return _global_loss(parallel.gather(self.network(x)))


def _gathered(mine: slice) -> dict[str, Any]:
    module = _Global()
    ddp = parallel.wrap(module)
    loss = ddp(_inputs()[0][mine])
    loss.backward()
    return {"loss": loss.detach(), "gradient": module.network.weight.grad}


def _moved(mine: slice) -> Tensor:
    """W after the teacher has moved it by two batches in which classes come twice."""
    rows = Classifier(torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(8)), NAMES, "random")
    weight = ClassWeight(rows, "teacher")
    for shift in (0.1, 1.0):
        _, teacher, labels = (t[mine] for t in _inputs())
        weight.move(teacher + shift, teacher, labels)
    return weight.weight


def _augmented(rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """The images of an epoch as the view `augment` shows them, and which they are; decoded in another process."""
    dataset = open_dataset(RECIPE["data"]["train"])
    loader = Loader(dataset, make_sampler("uniform", dataset.labels, 8, 0), rank, world, 1, make_view("augment"), 5)
    batches = list(loader.epoch(1))
    shown = [batch.shown for batch in batches if batch.shown is not None]
    return {"shown": torch.stack(shown), "index": torch.stack([batch.index for batch in batches])}


def _worker(out: str) -> None:
    torch.set_num_threads(1)
    with parallel.processes():
        rank, world = parallel.rank(), parallel.world()
        share = BATCH // world
        mine = slice(rank * share, (rank + 1) * share)
        found: dict[str, Any] = {"terms": _terms(mine), "gathered": _gathered(mine)}
        # Images that could not be read make slices unequal: 5 here, 3 there.
        found["unequal"] = _gathered(slice(0, 5) if rank == 0 else slice(5, BATCH))
        found["moved"] = _moved(mine)
        found["augmented"] = _augmented(rank, world)
        found["rows"] = parallel.gather(_inputs()[2][mine])
        torch.save({"world": world, "rank": rank} | found, f"{out}/{rank}.pt")
        recipe = make_recipe(RECIPE)
        engine.train(recipe, f"{out}/whole")
        _stop_after(2)
        with suppress(_Stopped):
            engine.train(recipe, f"{out}/begun")


class _Stopped(Exception):
    pass


def _stop_after(checkpoints: int) -> None:
    """Let training end, in every process, right after that many checkpoints."""
    keep, left = engine.checkpoint, [checkpoints]

    def stopping(*args: Any, **named: Any) -> None:
        keep(*args, **named)
        left[0] -= 1
        if not left[0]:
            raise _Stopped

    engine.checkpoint = stopping


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where two processes left what they found and trained."""
    out = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(out / "cache"))
        start(f"import test_parallel; test_parallel._worker({str(out)!r})", 2)
        yield out


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """What the two processes found."""
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(tmp_path_factory.mktemp("alone")))
        return _terms(slice(None))


def test_ranks_and_rank_order(two: list[dict[str, Any]]) -> None:
    assert [(t["world"], t["rank"]) for t in two] == [(2, 0), (2, 1)]
    assert all(torch.equal(t["rows"], _inputs()[2]) for t in two)


@pytest.mark.parametrize("slices", ["gathered", "unequal"])
def test_a_loss_of_the_whole_batch_has_the_gradient_of_one_process(slices: str, two: list[dict[str, Any]]) -> None:
    expected = _gathered(slice(None))
    for found in two:
        torch.testing.assert_close(found[slices], expected)
    assert float(expected["gradient"].norm()) > 0.1


def test_the_teacher_moves_one_w_in_all_processes(two: list[dict[str, Any]]) -> None:
    assert torch.equal(two[0]["moved"], two[1]["moved"])
    torch.testing.assert_close(two[0]["moved"], _moved(slice(None)))


def test_two_processes_augment_as_one_does(two: list[dict[str, Any]]) -> None:
    for name, whole in _augmented().items():
        assert torch.equal(torch.cat([found["augmented"][name] for found in two], dim=1), whole)


def test_every_term_is_tried() -> None:
    assert {kind for kind, _ in CASES.values()} == set(TERMS)


@pytest.mark.parametrize("name", [f"{name}, W moved by {moved}" for name, moved in _wired()])
def test_a_term_of_two_processes_equals_that_of_one(
    name: str, two: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for step in (0, 1):
        key = f"{step} {name}"
        for found in two:
            torch.testing.assert_close(found["terms"][key], alone[key], rtol=1e-4, atol=1e-6)
    for found in two:
        torch.testing.assert_close(found["terms"]["statistics"], alone["statistics"])


def test_alone_everything_is_a_no_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    x, module = torch.randn(3, 2), nn.Linear(2, 2)
    with parallel.processes():
        assert (parallel.rank(), parallel.world()) == (0, 1)
        assert parallel.gather(x) is x and parallel.wrap(module) is module
        parallel.barrier()


def _steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_processes_train_one_model(folder: Path) -> None:
    run = folder / "whole"
    assert _steps(run) == [1, 2, 3, 4, 5, 6] and not list(folder.rglob("*.tmp*"))
    weights = load_file(run / "model" / "model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())
    evaluated = (run / "evaluation.json").stat().st_mtime_ns
    engine.train(make_recipe(RECIPE), run)  # finished
    assert (run / "evaluation.json").stat().st_mtime_ns == evaluated


def test_what_two_processes_began_one_ends(folder: Path) -> None:
    run = folder / "begun"
    assert _steps(run) == [1, 2, 3, 4] and not (run / "evaluation.json").exists()
    engine.train(make_recipe(RECIPE), run)
    assert _steps(run) == [1, 2, 3, 4, 5, 6] and (run / "evaluation.json").exists()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    dataset = open_dataset(RECIPE["data"]["train"])
    with pytest.raises(UsageError, match="9 images cannot be shared equally by 2"):
        Loader(dataset, make_sampler("uniform", dataset.labels, 9, 0), 0, 2)
