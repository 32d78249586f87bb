"""Recognition beyond faces: handwritten digits in MNIST's files, a teacher and its students, measured as classes."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from facedistill.data import Loader
from facedistill.errors import UsageError
from facedistill.evaluation import TASKS
from facedistill.models.folder import load_model
from facedistill.recipe.read import make_recipe
from facedistill.training.assemble import assemble
from facedistill.training.engine import train
from facedistill.training.resolved import resolve

SCALE = {"margin": "cosface", "margin_options": {"size": 0.1}, "scale": 16}
TERMS: dict[str, dict[str, Any]] = {
    "kd": {"margin_softmax": SCALE, "soft_targets": {"scale": 16}},
    "l2kd": {},
    "proxylesskd": {"margin_softmax": SCALE},
    "balanced_softmax": {"balanced_softmax": {"scale": 16}},
}

METHODS = [name if name == "proxylesskd" else pytest.param(name, marks=pytest.mark.slow) for name in TERMS]


def write_digits(folder: Path, split: str, first: int, last: int) -> None:
    """scikit-learn's digits of 8 x 8, each pixel 3 x 3 with a border of 2: 28 x 28, in MNIST's files."""
    digits = load_digits()
    pixels = np.pad(np.kron(digits.images[first:last] * 15.9, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    images, labels = pixels.astype(np.uint8), digits.target[first:last].astype(np.uint8)
    head = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    (folder / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    head = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def recipe(folder: Path, method: str, terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "task": "classification",
        "data": {"train": str(folder / "train-images-idx3-ubyte"), "mirror": False},
        "student": {"backbone": "resnet_small", "input_size": 28, "options": {"width": 0.5}},
        "method": {"name": method, "terms": terms},
        "schedule": {"epochs": 4, "batch": 16, "lr": 0.05},
        "evaluation": {"sets": [str(folder / "t10k-images-idx3-ubyte")]},
    } | more


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with both splits and a teacher's run; the cache is the module's own."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, "train", 0, 400)
    write_digits(root, "t10k", 400, 600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(root / "cache"))
        raw = recipe(root, "scratch", {"margin_softmax": SCALE})
        raw["student"]["embedding_dim"] = 32
        train(make_recipe(raw), root / "teacher")
        yield root


def results(run: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = json.loads((run / "evaluation.json").read_text())["results"]
    return {(r["protocol"], r["probe"], r["gallery"]): r for r in found}


def test_the_teacher_keeps_its_class_sizes_and_scale_and_is_measured_by_classes(digits: Path) -> None:
    classifier = load_model(digits / "teacher").classifier
    assert classifier is not None and classifier.counts is not None
    assert classifier.scale == 16 and classifier.counts.sum() == 400
    found = results(digits / "teacher")
    assert {protocol for protocol, *_ in found} == {"classification", "retrieval"}
    own = found["classification", "student", "student"]
    assert own["top1"]["value"] > 0.5 and own["centre_top1"]["value"] > 0.5
    assert own["few_shots" if (classifier.counts <= 20).any() else "medium_shots"]["value"] > 0.4
    assert 0 <= own["ece"]["value"] < 1 and len(own["of_classes"]) == 10


@pytest.mark.parametrize("method", METHODS)
def test_a_student_of_it(method: str, digits: Path, tmp_path: Path) -> None:
    raw = recipe(
        digits,
        method,
        TERMS[method],
        data={"train": str(digits / "train-images-idx3-ubyte"), "imbalance": 4, "mirror": False},
    )
    if method != "balanced_softmax":
        raw["teacher"] = str(digits / "teacher")
    run = train(make_recipe(raw), tmp_path / "run")
    found = results(run)
    assert found["classification", "student", "student"]["centre_top1"]["value"] > 0.2, "chance is 0.1"
    assert ("top1" in found["classification", "student", "student"]) == (method in ("kd", "balanced_softmax"))
    if method == "proxylesskd":
        crossed = found["classification", "student", "teacher"]
        assert crossed["settings"]["classifier"] == "teacher" and crossed["top1"]["value"] > 0.2
        knn = found["retrieval", "student", "teacher"]["knn"]["5"]
        assert knn["value"] > 0.2, "k-NN: the student's queries in the teacher's gallery"


def test_no_mirror_image_is_drawn_embedded_or_measured(digits: Path, tmp_path: Path) -> None:
    raw = recipe(digits, "l2kd", {}, teacher=str(digits / "teacher"))
    raw["schedule"]["epochs"] = 1
    recipe_of_it = make_recipe(raw)
    assembly = assemble(recipe_of_it, resolve(recipe_of_it.method))
    assert not any(batch.index[:, 1].any() for batch in Loader(assembly.train, assembly.sampler).epoch(0))
    cache = assembly.method.teachers["teacher"].cache
    assert cache is not None and cache.shape[:2] == (400, 1)
    found = results(train(recipe_of_it, tmp_path / "run"))
    assert {one["settings"]["flip"] for one in found.values()} == {"none"}


def test_a_set_that_the_task_cannot_measure_is_refused_before_training(digits: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"an image is not read before it is needed")
    pairs.write_text("a.png,b.png,same\n")
    raw = recipe(digits, "scratch", {"margin_softmax": SCALE}, evaluation={"sets": [str(pairs)]})
    with pytest.raises(UsageError, match=r"'classification'.*pairs is measured by"):
        train(make_recipe(raw), tmp_path / "run")


def test_every_task_has_its_protocols() -> None:
    for task in TASKS:
        assert make_recipe({"task": task}).task == task
    with pytest.raises(UsageError, match="task"):
        make_recipe({"task": "detection"})


def test_a_frozen_network_keeps_everything_and_w_alone_is_trained_anew(digits: Path, tmp_path: Path) -> None:
    raw = recipe(digits, "scratch", {"margin_softmax": SCALE})
    raw["method"]["sampler"] = {"kind": "class_balanced"}
    raw["student"] |= {"embedding_dim": 32, "start": str(digits / "teacher"), "frozen": True}
    raw["schedule"] |= {"epochs": 2, "lr": 1.0, "ema": 0.9}
    run = train(make_recipe(raw), tmp_path / "run")
    teacher, student = load_model(digits / "teacher"), load_model(run)
    before, after = teacher.state_dict(), student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # running statistics, too
    assert student.space == teacher.space and student.classifier is not None and teacher.classifier is not None
    assert student.classifier.weight.shape == (10, 32)
    assert (student.classifier.weight * teacher.classifier.weight).sum(1).mean() < 0.95  # from random rows
    found = results(run)["classification", "student", "student"]
    old = results(digits / "teacher")["classification", "student", "student"]
    assert found["top1"]["value"] > old["top1"]["value"] - 0.1
    assert found["centre_top1"] == old["centre_top1"]


@pytest.mark.parametrize(
    ("changes", "method", "message"),
    [
        ({"frozen": True}, "scratch", r"student\.frozen=true keeps the weights of student\.start; name a model"),
        ({"frozen": True, "start": "teacher"}, "proxylesskd", r"leaves nothing to train: W does not move either"),
    ],
)
def test_frozen_without_a_start_or_with_nothing_to_train(
    digits: Path, tmp_path: Path, changes: dict[str, Any], method: str, message: str
) -> None:
    raw = recipe(digits, method, TERMS.get(method, {"margin_softmax": SCALE}), teacher=str(digits / "teacher"))
    changes = changes | ({"start": str(digits / "teacher")} if "start" in changes else {})
    raw["student"] |= {"embedding_dim": 32} | changes
    with pytest.raises(UsageError, match=message):
        train(make_recipe(raw), tmp_path / "run")


def test_a_student_at_the_pace_of_its_subset_teachers(digits: Path, tmp_path: Path) -> None:
    """RSKD with one class an image: accuracy on held-out images of each subset's classes sets the weights."""
    (tmp_path / "s.csv").write_text("".join(f"{'low' if c < 5 else 'high'},{c}\n" for c in range(10)))
    teachers = {}
    for name in ("low", "high"):
        raw = recipe(digits, "scratch", {"margin_softmax": SCALE}, evaluation={})
        raw["data"] |= {"hold_out": 0.2, "subset": f"{tmp_path / 's.csv'}:{name}"}
        raw["student"] |= {"embedding_dim": 16}
        teachers[name] = str(train(make_recipe(raw), tmp_path / name))
        own = results(tmp_path / name)["classification", "student", "student"]
        assert len(own["of_classes"]) == 5
    paced = {"term": "rskd", "balance": "self_paced", "scale": 16, "temperature": 2}
    terms = {"margin_softmax": SCALE, **{name: paced | {"teacher": name} for name in teachers}}
    raw = recipe(digits, "scratch", terms, teachers=teachers)
    raw["data"]["hold_out"] = 0.2
    raw["student"] |= {"embedding_dim": 16}
    run = train(make_recipe(raw), tmp_path / "student")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(row["low"] >= 0 for row in rows)
    raw["task"] = "recognition"  # holds out whole classes
    raw["data"]["hold_out"] = 0.1
    raw["evaluation"] = {}
    with pytest.raises(UsageError, match="balance=self_paced: the student is measured on held-out images"):
        train(make_recipe(raw), tmp_path / "other")
