"""The training loop: resume to the same bits, idempotence, what it refuses, what it leaves behind."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from facedistill.data.batch import Batch, Output
from facedistill.data.dataset import open_source
from facedistill.errors import UsageError, UserError
from facedistill.files import claimed
from facedistill.models.crossing import untied
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import Model
from facedistill.recipe.read import dump_recipe, make_recipe
from facedistill.recipe.schema import Recipe
from facedistill.results import load_evaluations, render_table
from facedistill.run.claim import Busy
from facedistill.training.engine import train

DATA = "synthetic:identities=12,images=6,size=32,seed=1"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))


def _recipe(**changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "data": {"train": DATA},
        "teachers": {},
        "student": {"input_size": 32, "embedding_dim": 16, "options": {"width": 0.25}},
        "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
        "schedule": {"epochs": 2, "batch": 12, "lr": 0.05, "checkpoint_steps": 2, "log_steps": 1},
        "check": {"own_class": 0},
    }
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(raw.get(key), dict) and isinstance(value, dict) else value
    return make_recipe(raw)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(_recipe(), tmp_path_factory.mktemp("runs") / "teacher")


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("method", ["proxylesskd", "proxylesskd_finetune", "l2kd", "margin_softmax_l2", "kd"])
def test_every_method_trains_through_the_one_loop(method: str, teacher: Path, tmp_path: Path) -> None:
    run = train(_recipe(teacher=str(teacher), method=method, student={"embedding_dim": None}), tmp_path / "run")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    student, original = load_model(run), load_model(teacher)
    anchored = method in ("proxylesskd", "l2kd", "margin_softmax_l2")
    assert (student.space == original.space) == anchored
    assert (student.classifier is None) == (method in ("proxylesskd", "l2kd"))
    assert json.loads((run / "evaluation.json").read_text())["method"].startswith(method)


def test_proxylesskd_never_runs_the_teacher(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facedistill.training.teacher import Teacher

    asked: list[Any] = []
    original = Teacher.__call__

    def watched(teacher: Teacher, batch: Batch, needs: frozenset[str]) -> Output | None:
        asked.append(needs)
        return original(teacher, batch, needs)

    monkeypatch.setattr(Teacher, "__call__", watched)
    monkeypatch.setattr("facedistill.models.model.Model.outputs", _forbid_teacher(16), raising=True)
    train(_recipe(teacher=str(teacher), method="proxylesskd", student={"embedding_dim": None}), tmp_path / "run")
    assert asked and not any(asked)


def _forbid_teacher(_: int) -> Any:
    from facedistill.models.model import Model

    outputs = Model.outputs

    def guarded(self: Model, images: torch.Tensor, features: bool = True) -> Any:
        assert self.training, "a frozen model ran inside the training loop"
        return outputs(self, images, features)

    return guarded


def test_cached_and_online_teacher_give_the_same_loss(teacher: Path, tmp_path: Path) -> None:
    losses = []
    for cache in (True, False):
        spec = {"teacher": {"model": str(teacher), "cache": cache}}
        recipe = _recipe(teachers=spec, method="l2kd", schedule={"epochs": 1})
        recipe.student.embedding_dim = None
        run = train(recipe, tmp_path / str(cache))
        losses.append([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()])
    # The cache is made in other batch sizes: its last bits differ, and training makes that grow.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_the_inherited_rows_never_move_and_learned_ones_do(teacher: Path, tmp_path: Path) -> None:
    original = load_model(teacher).classifier
    assert original is not None
    run = train(
        _recipe(teacher=str(teacher), method="proxylesskd_finetune", student={"embedding_dim": None}), tmp_path / "f"
    )
    tuned = load_model(run).classifier
    assert tuned is not None and not torch.equal(tuned.weight, original.weight)
    assert (
        "weight.weight" not in torch.load(next((_frozen(teacher, tmp_path)).glob("*.pt")), weights_only=True)["method"]
    )


def test_a_w_that_the_teacher_moves_is_kept_resumed_and_saved(teacher: Path, tmp_path: Path) -> None:
    recipe = _recipe(teacher=str(teacher), method="adadistill", student={"embedding_dim": None})
    whole = train(recipe, tmp_path / "whole")
    run = train(recipe, tmp_path / "run")
    state = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    (run / "evaluation.json").unlink()
    max((run / "checkpoints").glob("*.pt")).unlink()  # goes on from the one before
    train(recipe, run)
    first, again = load_model(whole), load_model(run)
    assert first.classifier is not None and again.classifier is not None
    assert torch.equal(first.classifier.weight, again.classifier.weight) and first.classifier.origin == "teacher"
    torch.testing.assert_close(first.classifier.weight, state["method"]["weight.weight"])
    assert first.space == load_model(teacher).space
    own = load_model(teacher).classifier
    assert own is not None and first.classifier.class_names == own.class_names


def _frozen(teacher: Path, tmp_path: Path) -> Path:
    recipe = _recipe(teacher=str(teacher), method="proxylesskd", student={"embedding_dim": None})
    return train(recipe, tmp_path / "frozen") / "checkpoints"


@pytest.mark.parametrize("start", ["centres", "fitted", "instances"])
def test_w_may_start_elsewhere(start: str, teacher: Path, tmp_path: Path) -> None:
    method = {"name": "proxylesskd", "classifier": {"start": start}, "terms": {"margin_softmax": {"scale": 16}}}
    run = train(_recipe(teacher=str(teacher), method=method, student={"embedding_dim": None}), tmp_path / "run")
    assert json.loads((run / "evaluation.json").read_text())["method"] == f"proxylesskd (W: {start})"
    assert load_model(run).space == load_model(teacher).space


def test_where_every_image_has_a_row_relations_still_see_the_classes(teacher: Path, tmp_path: Path) -> None:
    terms = {"margin_softmax": {"scale": 16}, "triplet_distillation": 1, "ekd": 1}
    method = {"name": "proxylesskd", "classifier": {"start": "instances"}, "terms": terms, "sampler": {"kind": "pk"}}
    run = train(_recipe(teacher=str(teacher), method=method, student={"embedding_dim": None}), tmp_path / "run")
    first = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert first["triplet_distillation"] > 0  # 0 where no two images are of one class


def test_projection_is_kept_and_never_silent(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="projection"):
        train(_recipe(teacher=str(teacher), method="proxylesskd", student={"embedding_dim": 8}), tmp_path / "a")
    student = {"embedding_dim": 8, "projection": True}
    run = train(_recipe(teacher=str(teacher), method="proxylesskd", student=student), tmp_path / "b")
    model = load_model(run)
    assert model.embedding_dim == 16 and model.projection is not None


def test_same_recipe_continues_another_is_refused(teacher: Path, tmp_path: Path) -> None:
    before = (teacher / "model" / "model.safetensors").stat().st_mtime_ns
    train(_recipe(), teacher)
    assert (teacher / "model" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another recipe"):
        train(_recipe(seed=5), teacher)
    with pytest.raises(UserError, match="nobody: no such file or folder"):
        train(_recipe(data={"train": "nobody"}), tmp_path / "mended")
    (tmp_path / "mended" / ".recipe.yaml.1.tmp.yaml").write_text("left by a kill")
    assert (train(_recipe(), tmp_path / "mended") / "evaluation.json").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "recipe.yaml").write_text("method: scratch  # mine\n")
    with pytest.raises(UsageError, match="another recipe"):
        train(_recipe(), tmp_path / "own")
    assert (tmp_path / "own" / "recipe.yaml").read_text() == "method: scratch  # mine\n"
    with claimed(tmp_path / "own" / ".lock"), pytest.raises(Busy, match="own: another process is working on this run"):
        train(make_recipe({"method": "scratch"}), tmp_path / "own")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds no run"):
        train(_recipe(), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_a_recipe_of_an_earlier_version_without_todays_keys_is_the_same_recipe(tmp_path: Path) -> None:
    run = train(_recipe(schedule={"epochs": 1}), tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    older = text.replace("  view:\n    kind: same\n    alpha: 0.2\n", "").replace("  teacher_epoch: last\n", "")
    assert len(older.splitlines()) == len(text.splitlines()) - 4
    (run / "recipe.yaml").write_text(older)
    train(_recipe(schedule={"epochs": 1}), run)
    with pytest.raises(UsageError, match="there: 'epochs: 1'"):
        train(_recipe(schedule={"epochs": 3}), run)


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step \d+"):
        train(_recipe(schedule={"lr": 1e18, "clip": None, "checkpoint_steps": 1}), tmp_path / "run")
    kept = sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert kept
    state = torch.load(kept[0], weights_only=True)["method"]
    assert all(torch.isfinite(v.float()).all() for v in state.values())


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        ({"seed": 7}, "recipe"),
        ({"student": {"options": {"width": 0.5}}}, "recipe"),
        ({"schedule": {"epochs": 3}}, "recipe, number of steps"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, other: dict[str, Any], changed: str) -> None:
    mine, theirs = train(_recipe(), tmp_path / "mine"), train(_recipe(**other), tmp_path / "theirs")
    (mine / "evaluation.json").unlink()
    for file in (mine / "checkpoints").iterdir():
        file.unlink()
    for file in (theirs / "checkpoints").iterdir():
        shutil.copy(file, mine / "checkpoints")
    with pytest.raises(UserError, match=f"mine: {changed}: changed since this run began"):
        train(_recipe(), mine)


@pytest.mark.parametrize("damage", ["lost", "empty", "noise", "other rows"])
def test_a_run_ends_whatever_became_of_its_log(tmp_path: Path, damage: str) -> None:
    run = train(_recipe(data={"train": DATA, "hold_out": 0.4}, evaluation={"every": 1}), tmp_path / "run")
    before = json.loads((run / "evaluation.json").read_text())["training"]
    (run / "evaluation.json").unlink()
    for log in (run / "log.jsonl", run / "verification.jsonl"):
        if damage == "lost":
            log.unlink()
        else:
            rows = b'[]\n7\n{"step": "x"}\n{"step": 1}\n{"step": null, "epoch": 0}\n' + b"[" * 5000
            log.write_bytes({"empty": b"", "noise": bytes(range(256)) * 9}.get(damage, rows))
    train(_recipe(data={"train": DATA, "hold_out": 0.4}, evaluation={"every": 1}), run)
    after = json.loads((run / "evaluation.json").read_text())["training"]
    assert after["seconds"] == before["seconds"] > 0 and after["images"] == before["images"]


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_at_random_and_resumed_ends_with_the_same_bits(tmp_path: Path, kills: int) -> None:
    recipe = _recipe(schedule={"epochs": 6, "checkpoint_steps": 3})
    expected = _weights(train(recipe, tmp_path / "whole"))
    recipe_file, run = tmp_path / "recipe.yaml", tmp_path / "killed"
    recipe_file.write_text(dump_recipe(recipe))
    chance = random.Random(3)
    for stop_at in sorted(chance.sample(range(4, 34), kills)):
        _run_until(recipe_file, run, stop_at)
    assert not (run / "evaluation.json").exists()
    _run_until(recipe_file, run, None)
    found = _weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 37))


def test_resumed_with_dropout_rounding_and_decoding_workers_ends_with_the_same_bits(tmp_path: Path) -> None:
    student = {"backbone": "iresnet18", "options": {"width": 0.0625, "dropout": 0.4}}
    data, schedule = {"in_memory": False, "workers": 1}, {"quantise": "int8"}
    recipe = _recipe(student=student, data=data, schedule=schedule)
    run = train(recipe, tmp_path / "run")
    expected = _weights(run)
    (run / "evaluation.json").unlink()
    max((run / "checkpoints").glob("*.pt")).unlink()
    train(recipe, run)
    assert all(torch.equal(expected[name], tensor) for name, tensor in _weights(run).items())


@pytest.mark.parametrize("sees", ["clean", "same"])
def test_augmented_and_resumed_ends_with_the_same_bits(
    sees: str, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = {"kind": "augment", "options": {"strength": 0.8, "teacher": sees}}
    recipe = _recipe(teacher=str(teacher), method={"name": "l2kd", "terms": {}, "view": view})
    recipe.student.embedding_dim = None
    recipe.data.workers = 1
    run = train(recipe, tmp_path / "run")
    said = "teacher 'teacher' sees the augmented images, so its network runs at every step"
    assert (said in " ".join(capsys.readouterr().err.split())) == (sees == "same")
    training = json.loads((run / "evaluation.json").read_text())["training"]
    assert training["teacher_forwards"] == 144  # 72 images: both flips before training, or in two epochs
    expected = _weights(run)
    (run / "evaluation.json").unlink()
    for checkpoint in sorted((run / "checkpoints").glob("*.pt"))[-1:]:
        checkpoint.unlink()
    train(recipe, run)
    assert all(torch.equal(expected[name], tensor) for name, tensor in _weights(run).items())
    plain = _recipe(teacher=str(teacher), method="l2kd", student={"embedding_dim": None})
    other = _weights(train(plain, tmp_path / "plain"))
    assert not all(torch.equal(expected[name], tensor) for name, tensor in other.items())


def test_stopped_between_the_checkpoint_and_the_end_of_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch's weights and its verification are made when the run goes on."""
    schedule, data = {"epochs": 3, "keep": "epochs", "checkpoint_steps": None}, {"train": DATA, "hold_out": 0.4}
    recipe = _recipe(data=data, schedule=schedule, evaluation={"every": 1})
    whole, run = train(recipe, tmp_path / "whole"), tmp_path / "run"

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    for what in ("save_weights", "_verify"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"facedistill.training.engine.{what}", kill)
            train(recipe, run)
    train(recipe, run)
    for name in ("epochs/0000.safetensors", "epochs/0001.safetensors", "epochs/0002.safetensors", "verification.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_does_not_go_on_with_other_images_or_another_teacher(teacher: Path, tmp_path: Path) -> None:
    moved = tmp_path / "teacher"
    shutil.copytree(teacher / "model", moved)
    source = open_source(DATA)
    for i, key in enumerate(source.keys):
        file = (tmp_path / "faces" / key).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = source.read(i)
        assert isinstance(pixels, np.ndarray)
        Image.fromarray(pixels).save(file)
    recipe = _recipe(data={"train": str(tmp_path / "faces")}, teacher=str(moved), method="l2kd",
                     student={"embedding_dim": None})  # fmt: skip
    run = train(recipe, tmp_path / "run")
    (run / "evaluation.json").unlink()
    shutil.copy(file, file.with_name("more.png"))
    with pytest.raises(UserError, match="run: data: changed since this run began"):
        train(recipe, run)
    file.with_name("more.png").unlink()
    model = load_model(moved)
    save_model(model, tmp_path / "kept")
    model.subtract_mean(torch.ones(16))
    save_model(model, moved)
    with pytest.raises(UserError, match="run: teacher teacher: changed since this run began"):
        train(recipe, run)
    save_model(load_model(tmp_path / "kept"), moved)
    train(recipe, run)


def test_a_teacher_without_a_network_is_inherited_from(teacher: Path, tmp_path: Path) -> None:
    model = load_model(teacher)
    save_model(Model(None, classifier=model.classifier, space=model.space), tmp_path / "table")
    data = {"train": DATA, "hold_out": 0.4}
    recipe = _recipe(data=data, teacher=str(tmp_path / "table"), method="proxylesskd", student={"embedding_dim": None})
    result = json.loads((train(recipe, tmp_path / "run") / "evaluation.json").read_text())
    assert list(result["models"]) == ["student"] and result["results"]


def _run_until(recipe: Path, run: Path, step: int | None) -> None:
    """Train in a process of its own; kill it with SIGKILL as soon as its log reaches `step`."""
    code = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    code += "from facedistill import load_recipe, train\n"
    code += f"train(load_recipe({str(recipe)!r}), {str(run)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ.copy(), stderr=subprocess.DEVNULL)
    log = run / "log.jsonl"
    while process.poll() is None:
        if step is not None and log.exists() and len(log.read_text().splitlines()) >= step:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.002)
    assert step is None and process.returncode == 0


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: every write beyond it fails as on a full one."""
    recipe, run = _recipe(), tmp_path / "run"
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    arguments = f"['facedistill', 'train', {str(file)!r}, '--out', {str(run)!r}]"
    code = f"{limit}\nimport sys; sys.argv = {arguments}\nfrom facedistill.cli.app import main; main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1 and "cannot write" in found.stderr and "Traceback" not in found.stderr
    assert not list(run.rglob("*.tmp*"))
    assert (train(recipe, run) / "evaluation.json").exists()


@pytest.mark.parametrize("schedule", [{"precision": "bf16"}, {"optimizer": "adamw", "lr": 1e-3}])
def test_options_of_the_schedule_train(schedule: dict[str, Any], tmp_path: Path) -> None:
    run = train(_recipe(schedule={"epochs": 2, **schedule}), tmp_path / "run")
    assert all(torch.isfinite(tensor.float()).all() for tensor in _weights(run).values())
    assert not (run / "epochs").exists()


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'track' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = {"train": DATA, "hold_out": 0.4}
    run = train(_recipe(track="tensorboard", data=data, evaluation={"every": 1}), tmp_path / "run")
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == list(range(1, 9))


def test_verification_while_training_is_logged_and_changes_no_bit(tmp_path: Path) -> None:
    data = {"train": DATA, "hold_out": 0.4}
    plain = train(_recipe(data=data, schedule={"epochs": 3}), tmp_path / "plain")
    run = train(_recipe(data=data, schedule={"epochs": 3}, evaluation={"every": 1}), tmp_path / "run")
    lines = [json.loads(line) for line in (run / "verification.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]  # the last epoch's stands in evaluation.json
    assert all(0 <= line["hold-out/all-pairs/tar_at_far/1e-2"] <= 1 for line in lines)
    mine, other = _weights(run), _weights(plain)
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert not (plain / "verification.jsonl").exists()


def test_a_resumed_run_whose_w_changed_is_refused(teacher: Path, tmp_path: Path) -> None:
    moved = tmp_path / "teacher"
    shutil.copytree(teacher / "model", moved)
    recipe = _recipe(teacher=str(moved), method="proxylesskd", student={"embedding_dim": None}, schedule={"epochs": 1})
    run = train(recipe, tmp_path / "run")
    (run / "evaluation.json").unlink()
    model = load_model(moved)
    assert model.classifier is not None
    model.classifier.weight = model.classifier.weight.roll(1, 0)
    save_model(model, moved)
    with pytest.raises(UserError, match="W has changed since this run began"):
        train(recipe, run)


def test_a_resumed_run_with_two_teachers_sees_that_the_seconds_w_changed(teacher: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(teacher / "model", second)
    terms = {"margin_softmax": {"scale": 16}, "other": {"term": "margin_softmax", "teacher": "second", "scale": 16}}
    recipe = _recipe(
        teachers={"teacher": {"model": str(teacher)}, "second": {"model": str(second)}},
        method={"name": "proxylesskd", "terms": terms},
        student={"embedding_dim": None},
        schedule={"epochs": 1},
    )
    run = train(recipe, tmp_path / "run")
    assert json.loads((run / "evaluation.json").read_text())["method"] == "proxylesskd + other (W: teacher)"
    assert not any("projection" in name for name in _weights(run))
    (run / "evaluation.json").unlink()
    train(recipe, run)  # unchanged, it goes on
    (run / "evaluation.json").unlink()
    model = load_model(second)
    assert model.classifier is not None
    model.classifier.weight = model.classifier.weight.roll(1, 0)
    save_model(model, second)
    with pytest.raises(UserError, match="W has changed since this run began"):
        train(recipe, run)


def test_the_callers_process_is_left_as_it_was(tmp_path: Path) -> None:
    torch.set_flush_denormal(False)  # another test may have opened an ONNX model
    tiny = torch.tensor([1e-39])
    assert (tiny * 1).item() > 0
    train(_recipe(schedule={"epochs": 1}), tmp_path / "run")
    assert (tiny * 1).item() > 0


def test_a_log_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"

    def into_a_folder(*_: Any) -> None:
        (run / "log.jsonl").unlink()
        (run / "log.jsonl").mkdir()

    monkeypatch.setattr("facedistill.training.engine.checkpoint", into_a_folder)
    with pytest.raises(UserError, match=r"cannot write .*log\.jsonl: Is a directory"):
        train(_recipe(schedule={"epochs": 1}), run)


def test_weights_of_every_epoch_are_kept_when_asked_for(tmp_path: Path) -> None:
    run = train(_recipe(schedule={"keep": "epochs", "channels_last": True}), tmp_path / "run")
    kept = sorted((run / "epochs").iterdir())
    assert [f.name for f in kept] == ["0000.safetensors", "0001.safetensors"]
    last, model = load_file(kept[-1]), _weights(run)
    assert all(torch.equal(last[name], model[name]) for name in model)


def test_pocketnets_teacher_is_in_each_epoch_as_far_as_the_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facedistill.training.teacher import Teacher

    own = train(_recipe(schedule={"keep": "epochs"}), tmp_path / "teacher")
    kept = [load_file(own / "epochs" / f"000{epoch}.safetensors") for epoch in (0, 1)]
    seen: list[dict[str, torch.Tensor]] = []
    answer = Teacher.__call__

    def watched(self: Teacher, batch: Any, needs: Any) -> Any:
        seen.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        assert not self.model.training and not any(p.requires_grad for p in self.model.parameters())
        return answer(self, batch, needs)

    monkeypatch.setattr(Teacher, "__call__", watched)
    recipe = _recipe(teacher=str(own), method="pocketnet", student={"embedding_dim": None})
    run = train(recipe, tmp_path / "run")
    assert len(seen) == 12
    for step, weights in enumerate(seen):
        assert all(torch.equal(weights[name], kept[step // 6][name]) for name in kept[0])
    assert json.loads((run / "evaluation.json").read_text())["method"] == "pocketnet"

    expected, log = _weights(run), [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (run / "evaluation.json").unlink()
    max((run / "checkpoints").glob("*.pt")).unlink()  # goes on within the second epoch
    seen.clear()
    train(recipe, run)
    assert len(seen) == 2 and all(torch.equal(seen[0][name], kept[1][name]) for name in kept[1])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(run).items())
    assert all(line["embedding_l2"] > 0 for line in log)


def test_a_teacher_without_the_weights_of_every_epoch_is_refused_before_training(teacher: Path, tmp_path: Path) -> None:
    def start(run: str, own: Path, **changes: Any) -> None:
        train(_recipe(teacher=str(own), student={"embedding_dim": None}, **changes), tmp_path / run)

    with pytest.raises(
        UserError, match=r"one for each of the student's 2, but '0000\.safetensors' is missing; .*keep="
    ):
        start("none", teacher, method="pocketnet")
    own = train(_recipe(schedule={"keep": "epochs"}), tmp_path / "teacher")
    with pytest.raises(UserError, match=r"student's 3, but '0002\.safetensors' is missing"):
        start("more", own, method="pocketnet", schedule={"epochs": 3})
    with pytest.raises(UserError, match="student's 1, but there are more"):
        start("fewer", own, method="pocketnet", schedule={"epochs": 1})
    with pytest.raises(UsageError, match=r"logits need method\.teacher_epoch=last"):
        start("logits", own, method={"name": "kd", "teacher_epoch": "same"})
    assert not list(tmp_path.rglob("log.jsonl"))[1:]  # the teacher's alone
    start("without", own, method={"name": "proxylesskd", "teacher_epoch": "same"})  # the teacher never runs


def test_unreadable_images_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = open_source("synthetic:identities=4,images=30,size=32,seed=1")
    for i, key in enumerate(source.keys):
        file = (tmp_path / "faces" / key).with_suffix(".jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = source.read(i)
        assert isinstance(pixels, np.ndarray)
        Image.fromarray(pixels).save(file)
    broken = sorted((tmp_path / "faces").rglob("*.jpg"))[7]
    broken.write_bytes(broken.read_bytes()[:200])
    for memory in (True, False):
        recipe = _recipe(data={"train": str(tmp_path / "faces"), "in_memory": memory, "workers": 1})
        run = train(recipe, tmp_path / f"run-{memory}")
        assert "1 unreadable images were left out" in capsys.readouterr().err
        assert load_model(run).made["unreadable"] == [f"{broken.parent.name}/{broken.name}"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_leaves_an_ordinary_model(tmp_path: Path) -> None:
    run = train(_recipe(schedule={"compile": True}), tmp_path / "run")
    assert not any("_orig_mod" in name for name in _weights(run))


def test_in_a_log_file_each_epoch_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(_recipe(), tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for n, line in enumerate(lines, 1):
        at = next(row for row in logged if row["step"] == 6 * n)
        assert line.startswith(f"epoch {n} of 2, step {6 * n} of 12: loss {at['loss']:.3f}, ")
        assert re.fullmatch(r"[\d,]+ images/s, 0:00:\d\d left", line.split(", ", 2)[2])


def test_a_w_behind_a_projection_is_not_the_students_own(teacher: Path, tmp_path: Path) -> None:
    """Its rows lie in another space, so the model that comes out has no classifier."""
    method = {
        "name": "backward_compatible",
        "classifier": {"start": "centres", "moved_by": "gradient"},
        "terms": {"margin_softmax": {"teacher": "new", "scale": 16}, "influence": {"scale": 16}},
    }
    other = train(_recipe(student={"embedding_dim": 24}), tmp_path / "new")
    teachers = {"teacher": {"model": str(teacher)}, "new": {"model": str(other)}}
    run = train(_recipe(teachers=teachers, method=method, student={"embedding_dim": None}), tmp_path / "run")
    student = load_model(run)
    assert student.classifier is None and student.space == load_model(teacher).space


@pytest.mark.parametrize(
    ("method", "purpose", "tied"),
    [
        ("rkd", None, False),
        ("kd", "asymmetric", False),
        ("rkd", "symmetric", False),
        ("proxylesskd", "asymmetric", True),
    ],
)
def test_a_student_that_no_term_ties_to_its_teacher_is_told_so(
    method: str, purpose: str | None, tied: bool, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(teacher=str(teacher), method=method, student={"embedding_dim": None}, schedule={"epochs": 1})
    recipe.purpose = purpose  # type: ignore[assignment]
    run = train(recipe, tmp_path / "run")
    warning = f"warning: no term of {method} ties the student to its teacher's space"
    said = " ".join(capsys.readouterr().err.split())
    assert (warning in said and "0.1% mAP" in said) == (not tied and purpose != "symmetric")
    (evaluation,) = load_evaluations([run]).values()
    assert evaluation["training"]["anchored"] == tied
    table = render_table(evaluation)
    assert re.search(r"\| the teacher’s +\|" if tied else r"\| its own +\|", table)
    assert ("A student in a space of its own matches the teacher’s gallery at chance" in table) != tied
    student, space = load_model(run), load_model(teacher).space
    assert student.made["teachers"] == [space] and bool(untied(student, space)) != tied
