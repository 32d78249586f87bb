"""Every store, killed at its file operations, or on a full, read-only or emptied disk: the old or the new is there."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from drawn_detector import photo, save_detector
from facedistill.cleaning import clean
from facedistill.data import open_dataset
from facedistill.export import export_model
from facedistill.files import atomic_write
from facedistill.head import Rows
from facedistill.head.nearest import cached_nearest
from facedistill.models import Model, embed_blocks, embed_dataset, load_model, save_model
from facedistill.preparation import prepare
from facedistill.recipe.read import make_recipe
from facedistill.training import train
from fuzz.children import digest
from fuzz.corpus import tiny_model
from killed import emptied, full, killed, operations, read_only
from planted_people import draw_people, pattern_teacher

FACES = "synthetic:identities=4,images=3,size=32,seed=1"


def _nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Store:
    """
    Attributes:
        before: what is there before the work. work: what writes the store; done again, it ends the same.
        content: what is compared. sound: what must be readable at any moment; it returns one of two contents.
    """

    work: Callable[[Path], object]
    content: Callable[[Path], Any]
    before: Callable[[Path], object] = _nothing
    sound: Callable[[Path], object] = _nothing


def _run(folder: Path) -> None:
    raw = {
        "data": {"train": FACES},
        "student": {"input_size": 32, "embedding_dim": 8, "options": {"width": 0.125}},
        "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
        "schedule": {"epochs": 2, "batch": 6, "lr": 0.05, "checkpoint_steps": 1, "log_steps": 1, "keep": "epochs"},
    }
    train(make_recipe(raw), folder / "run")


def _of_run(folder: Path) -> Any:
    run = folder / "run"
    steps = [line.partition(",")[0] for line in (run / "log.jsonl").read_text().splitlines()]
    return [load_file(run / "model" / "model.safetensors"), steps, load_file(run / "epochs" / "0001.safetensors")]


def _other_model() -> Model:
    model = tiny_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    return Model(model.backbone, classifier=model.classifier).eval()


def _of_model(folder: Path) -> Any:
    model = load_model(folder / "model")
    assert model.classifier is not None
    return [model.state_dict(), model.space, model.classifier.weight, model.classifier.class_names]


def _embedded(folder: Path) -> Any:
    found = embed_dataset(tiny_model(), open_dataset(FACES), cache=folder / "cache")
    return [found.keys, found.vectors]


def _blocks(folder: Path) -> Any:
    return np.concatenate(list(embed_blocks(tiny_model(), open_dataset(FACES), cache=folder / "cache")))


def _nearest(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(folder / "cache"))
        return cached_nearest(Rows(torch.eye(9)), 3)


def _photos(folder: Path) -> None:
    for person in "ab":
        (folder / "photos" / person).mkdir(parents=True)
        for i in range(5):
            photo((160, 160), [(72, 72)]).save(folder / "photos" / person / f"{i}.png")
    save_detector(folder / "d.onnx")


def _prepare(folder: Path) -> None:
    prepare(folder / "photos", folder / "out", detector=folder / "d.onnx", workers=1)


def _of_prepare(folder: Path) -> Any:
    out = folder / "out"
    return [(out / "index.csv").read_bytes(), {p.name: p.read_bytes() for p in sorted(out.rglob("*.jpg"))}]


def _people(folder: Path) -> None:
    draw_people(folder / "faces", 6, 6)
    (folder / "faces" / "p02" / "copy.png").write_bytes((folder / "faces" / "p02" / "0.png").read_bytes())


def _clean(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(folder / "cache"))
        clean(folder / "faces", pattern_teacher(), folder / "out")


def _of_clean(folder: Path) -> Any:
    dataset = open_dataset(folder / "out")
    return [dataset.keys, dataset.class_names, (folder / "out" / "findings.csv").read_bytes()]


def _export(folder: Path) -> None:
    export_model(tiny_model(), "onnx", folder / "m.onnx", verify=FACES)


def _old_or_whole(folder: Path) -> None:
    content = (folder / "m.onnx").read_bytes()
    if content != b"the old one":
        load_model(folder / "m.onnx")


def _of_text(folder: Path) -> str:
    return (folder / "report.json").read_text()


def _text(folder: Path) -> None:
    with atomic_write(folder / "report.json") as temporary:
        temporary.write_text("new")


def _two(folder: Path) -> None:
    assert _of_text(folder) in ("old", "new")


STORES: dict[str, Store] = {
    "a file": Store(_text, _of_text, lambda folder: (folder / "report.json").write_text("old"), _two),
    "model folder": Store(
        lambda folder: save_model(_other_model(), folder / "model"),
        _of_model,
        lambda folder: save_model(tiny_model(), folder / "model"),
        _of_model,
    ),
    "cache: embeddings": Store(_embedded, _embedded),
    "cache: blocks": Store(_blocks, _blocks),
    "cache: nearest": Store(_nearest, _nearest),
    "prepare": Store(_prepare, _of_prepare, _photos),
    "clean": Store(_clean, _of_clean, _people),
    "export": Store(
        _export,
        lambda folder: (folder / "m.onnx").read_bytes(),
        lambda folder: (folder / "m.onnx").write_bytes(b"the old one"),
        _old_or_whole,
    ),
    "run": Store(_run, _of_run),
}
QUICK = ("a file", "model folder", "cache: nearest")


def _places(operations: int, most: int) -> list[int]:
    """Return up to `most` of the numbers 1 to `operations`, the first and the last among them."""
    return sorted({int(n) for n in np.linspace(1, operations, min(most, operations)).round()})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, int, str]]:
    """A function of a store's name: the folder before the work, the number of its operations, and what it ends with."""
    known: dict[str, tuple[Path, int, str]] = {}

    def found(name: str) -> tuple[Path, int, str]:
        if name not in known:
            root = tmp_path_factory.mktemp("store")
            store, before, work = STORES[name], root / "before", root / "work"
            before.mkdir()
            store.before(before)
            _put(before, work)
            store.work(work)
            expected = digest(store.content(work))
            _put(before, work)
            known[name] = before, operations(partial(store.work, work)), expected
        return known[name]

    return found


def _put(before: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(before, work)


CASES = [(name, 4) for name in QUICK] + [pytest.param(name, 200, marks=pytest.mark.slow) for name in STORES]


@pytest.mark.parametrize(("name", "kills"), CASES)
def test_killed_at_any_operation_it_ends_the_same(name: str, kills: int, undisturbed: Any) -> None:
    before, count, expected = undisturbed(name)
    store, work = STORES[name], before.parent / "work"
    assert count >= 3, "the hook sees the operations"
    for at in _places(count, kills):
        _put(before, work)
        assert killed(partial(store.work, work), at), f"not killed at {at} of {count}"
        store.sound(work)
        store.work(work)
        assert digest(store.content(work)) == expected, f"killed at {at} of {count}"
        assert not [path for path in work.rglob(".*") if path.name.endswith((".tmp", ".old"))], "no temporaries stay"


@pytest.mark.parametrize(("name", "places"), CASES)
def test_a_disk_that_is_full_from_any_operation_on_loses_nothing(name: str, places: int, undisturbed: Any) -> None:
    before, count, expected = undisturbed(name)
    store, work = STORES[name], before.parent / "work"
    for at in _places(count, max(4, places // 4)):
        _put(before, work)
        code = full(partial(store.work, work), at)
        assert code in (0, 3), f"full at {at} of {count}: exit {code}, expected one line or a cache that is left out"
        store.sound(work)
        store.work(work)
        assert digest(store.content(work)) == expected, f"full at {at} of {count}"


NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in STORES if name not in QUICK)]


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_is_read_only_stays_as_it_is(name: str, undisturbed: Any) -> None:
    before, _, _ = undisturbed(name)
    store, work = STORES[name], before.parent / "work"
    _put(before, work)
    code = read_only(partial(store.work, work))
    assert code == (0 if name.startswith("cache") else 3), "one line, or a cache that is left out"
    assert _tree(work) == _tree(before)


@pytest.mark.parametrize(("name", "places"), CASES)
def test_a_folder_that_is_removed_meanwhile_is_one_line(name: str, places: int, undisturbed: Any) -> None:
    before, count, _ = undisturbed(name)
    store, work = STORES[name], before.parent / "work"
    for at in _places(count, max(4, places // 4)):
        _put(before, work)
        assert emptied(partial(store.work, work), work, at) in (0, 3), f"removed at {at} of {count}"


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
