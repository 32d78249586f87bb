"""Images with several labels through the whole of training: losses, subset teachers, RSKD, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from facedistill.data import open_dataset
from facedistill.errors import UserError
from facedistill.models.folder import load_model
from facedistill.recipe.read import make_recipe
from facedistill.training import engine
from facedistill.training.engine import train

LABELS = "synthetic:identities=20,images=3,size=32,seed=2,task=attributes"
FACES = "synthetic:identities=4,images=6,size=32,seed=1"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))


def run_of(out: Path, *overrides: str, **groups: Any) -> Path:
    raw = {
        "data": LABELS,
        "student": {"backbone": "resnet_small", "input_size": 32, "embedding_dim": 8, "options": {"width": 0.25}},
        "method": {"name": "bce"},
        "schedule": {"epochs": 1, "batch": 12, "lr": 0.05, "log_steps": 1},
        "evaluation": {"flip": "none"},
    }
    return train(make_recipe(raw | groups, overrides), out)


def result_of(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "evaluation.json").read_text())["results"]


def test_subset_teachers_and_their_student(tmp_path: Path) -> None:
    """Two teachers of labels' subsets, one student of all labels; the same hold-out keeps the same people out."""
    held = "data.hold_out=0.25"
    eyes = run_of(tmp_path / "eyes", held, "data.subset=eyes")
    mouth = run_of(tmp_path / "mouth", held, "data.subset=mouth")
    known = load_model(eyes).classifier
    assert known is not None and known.bias is not None and known.scale == 16 and known.counts is not None
    assert list(known.class_names) == ["glasses", "frown", "dark glasses", "narrow eyes"]
    method = {
        "name": "rskd",
        "terms": {
            "rskd": {"teacher": "eyes"},
            "second": {"term": "rskd", "teacher": "mouth", "weight": 50, "balance": "inverse_frequency"},
        },
    }
    teachers = {"eyes": str(eyes), "mouth": str(mouth)}
    student = run_of(tmp_path / "student", held, method=method, teachers=teachers)
    line = json.loads((student / "log.jsonl").read_text().splitlines()[-1])
    assert line["bce"] > 0 and line["rskd"] > 0 and line["second"] > 0
    found = {(one["probe"], one["gallery"]): one for one in result_of(student)}
    own = found["student", "student"]
    assert own["protocol"] == "multi-label" and own["labels"] == 17 and 0 < own["map"]["value"] <= 1
    assert own["settings"]["resampled"] == "groups" and len(own["of_classes"]) == 17
    assert own["map"]["ci95"][0] <= own["map"]["value"] <= own["map"]["ci95"][1]
    assert found["eyes", "eyes"]["settings"]["classifier"] == "teacher, 4 of 17 labels"


def test_a_self_paced_student_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ("data.hold_out=0.25", "schedule.epochs=2", "schedule.checkpoint_steps=1")
    teacher = run_of(tmp_path / "teacher", "data.hold_out=0.25")
    method = {"name": "rskd", "terms": {"rskd": {"balance": "self_paced"}}}
    groups = {"method": method, "teachers": {"teacher": str(teacher)}}
    whole = run_of(tmp_path / "whole", *held, **groups)
    real, steps = engine.to_batch, []

    def killed(*args: Any) -> Any:
        steps.append(1)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "to_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            run_of(tmp_path / "again", *held, **groups)
    again = run_of(tmp_path / "again", *held, **groups)
    first, second = (load_model(run).state_dict() for run in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    shares = [json.loads(line)["rskd"] for line in (whole / "log.jsonl").read_text().splitlines()]
    assert len(shares) == 6 and min(shares) >= 0
    with pytest.raises(UserError, match="balance=self_paced: the student is measured on held-out images"):
        run_of(tmp_path / "none", **groups)


def test_a_student_inherits_labels(tmp_path: Path) -> None:
    """ProxylessKD with several labels: the teacher's W and biases, frozen."""
    teacher = run_of(tmp_path / "teacher")
    given = {"name": "bce", "classifier": {"start": "teacher", "moved_by": "nothing"}}
    sets = {"sets": [LABELS.replace("seed=2", "seed=3,first=50")], "flip": "none"}
    groups = {"evaluation": sets, "method": given, "teachers": {"teacher": str(teacher)}}
    student = run_of(tmp_path / "student", "check.own_class=0", **groups)
    assert load_model(student).space == load_model(teacher).space
    found = {(one["probe"], one["gallery"]): one for one in result_of(student)}
    assert "map" in found["student", "teacher"] and "map" not in found["student", "student"]
    assert found["student", "student"]["settings"]["classifier"] == "none: the gallery's model has none"


def test_biases_begin_at_the_log_odds(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "schedule.lr=0")
    classifier = load_model(run).classifier
    data = open_dataset(LABELS)
    assert classifier is not None and classifier.bias is not None
    share = torch.from_numpy(data.target_counts) / len(data)
    assert torch.allclose(classifier.bias.sigmoid(), share.float(), atol=1e-6)
    assert classifier.counts is not None and classifier.counts.tolist() == data.target_counts.tolist()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"method": "scratch"}, "'margin_softmax' takes one class an image, but images of .* terms that take them"),
        ({"method": {"name": "bce", "terms": {"aml": 1}}}, "'aml' takes one class"),
        ({"data": FACES}, "term 'bce' takes images with several labels, but .* one class"),
        ({"method": {"name": "bce", "sampler": {"kind": "pk"}}}, "sampler.kind=pk: it draws images by their class"),
        ({"method": {"name": "bce", "classifier": {"start": "centres"}}}, "start=centres: images have several labels"),
        ({"method": {"name": "bce", "classifier": {"moved_by": "teacher"}}}, "moved_by=teacher moves W by one class"),
        ({"data": {"train": LABELS, "imbalance": 5}}, "imbalance=5: images of .* several labels"),
        ({"data": LABELS.replace("=20", "=4") + ",imbalance=1000"}, "no training image has the label"),
        ({"evaluation": {"sets": [LABELS]}}, "20 of its 20 groups, e.g. patients, are in the training data too"),
        ({"data": {"train": LABELS, "subset": "nose"}}, "no subset 'nose'"),
        ({"method": "rskd"}, "teacher"),
    ],
)
def test_refused_before_training(tmp_path: Path, groups: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_of(tmp_path / "run", **groups)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_teacher_that_knows_other_names(tmp_path: Path) -> None:
    teacher = run_of(tmp_path / "teacher", data=FACES, method="scratch")
    with pytest.raises(UserError, match="teacher 'teacher' knows none of the 17 classes or labels of the data"):
        run_of(tmp_path / "run", method="rskd", teachers={"teacher": str(teacher)})


def test_rskd_of_classes(tmp_path: Path) -> None:
    """A teacher of some people, chosen by a file; the student learns all of them by a softmax."""
    (tmp_path / "s.csv").write_text("some,id000001\nsome,id000003\n")
    teacher = run_of(tmp_path / "teacher", f"data.subset={tmp_path}/s.csv:some", data=FACES, method="scratch")
    assert list(load_model(teacher).classifier.class_names) == ["id000001", "id000003"]  # type: ignore[union-attr]
    method = {"name": "scratch", "terms": {"rskd": {"temperature": 2, "scale": 64}}}
    run = run_of(tmp_path / "run", data=FACES, method=method, teachers={"teacher": str(teacher)})
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["rskd"] > 0


def test_mimicry_needs_no_labels(tmp_path: Path) -> None:
    teacher = run_of(tmp_path / "teacher")
    run = run_of(tmp_path / "run", method="l2kd", teachers={"teacher": str(teacher)})
    assert load_model(run).space == load_model(teacher).space


def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    teacher = run_of(tmp_path / "teacher", "schedule.lr=0")  # W knows nothing
    given = {"name": "bce", "classifier": {"start": "teacher", "moved_by": "nothing"}}
    with pytest.raises(UserError, match="finds the labels of its own images hardly better than by chance"):
        run_of(tmp_path / "student", method=given, teachers={"teacher": str(teacher)})
