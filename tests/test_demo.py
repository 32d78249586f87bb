"""The demo at a tiny scale in seconds; the slow test runs the real one and looks at its difficulty."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facedistill import demo
from facedistill.data.dataset import Dataset, open_dataset
from facedistill.data.sources.verification import VerificationSet
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import evaluate
from facedistill.evaluation.protocols.pairs import pair_protocol
from facedistill.models.folder import load_model
from facedistill.recipe.read import load_recipe
from facedistill.recipe.schema import Recipe
from facedistill.run.claim import Busy
from facedistill.training.student import make_student

TINY = demo.Scale(
    identities=6,
    teacher_images=12,
    teacher_width=0.25,
    teacher_epochs=2,
    student_images=11,
    student_width=0.125,
    student_epochs=1,
    size=32,
    embedding_dim=8,
    unseen_identities=8,
    unseen_images=7,
    pairs=60,
)
ROOT = Path(__file__).parents[1]
RUNS = ["teacher", "proxylesskd", "l2kd", "scratch"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(
            "facedistill.training.inherit.require_fit", lambda *_: None
        )  # a teacher of two epochs knows nobody
        folder = tmp_path_factory.mktemp("demo") / "out"
        return folder, demo.demo_at(TINY, folder)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_the_table_has_every_row_and_column(made: tuple[Path, dict[str, Any]]) -> None:
    folder, result = made
    header, _, *rows = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    numbers = ["parameters", "MACs", "accuracy", "TAR at FAR 1e-2", "1e-3", "EER"]
    assert _cells(header) == ["probe", "gallery", *numbers, "in the field"]
    pairs = [(cells[0].split()[0], cells[1]) for cells in map(_cells, rows)]
    assert pairs == [
        ("teacher", "itself"),
        *((name, gallery) for name in RUNS[1:] for gallery in ("itself", "teacher")),
    ]
    for cells in map(_cells, rows):
        assert all(cells[:8]) and bool(cells[8]) == (cells[1] == "teacher")
    model = load_model(folder / "scratch")
    assert _cells(rows[-1])[2:4] == [f"{model.parameters_count() / 1e6:.2f} M", f"{(model.macs() or 0) / 1e6:.1f} M"]
    found = {r["probe"]: r for r in result["runs"]["teacher"]["results"] if r["protocol"] == "pairs"}["student"]
    assert _cells(rows[0])[4] == f"{100 * found['accuracy']:.1f}"


def test_the_folder_holds_what_its_readme_says(made: tuple[Path, dict[str, Any]]) -> None:
    folder, result = made
    readme = (folder / "README.md").read_text()
    listed = [name for row in re.findall(r"^\| (.+?) \|", readme, re.M)[2:] for name in row.split(", ")]
    assert sorted(name.rstrip("/") for name in listed) == sorted(
        f.name for f in folder.iterdir() if f.name != "README.md"
    )
    for run in RUNS:
        for file in re.findall(r"`([\w./]+)`", readme.split("In a run:")[1].split("\n\n")[0]):
            assert (folder / run / file).exists(), file
        assert load_recipe(str(folder / run / "recipe.yaml")).seed in (result["seed"], result["seed"] + 1)
    assert json.loads((folder / "results.json").read_text()) == result
    assert result["settings"]["identities"] == 6 and result["data"]["evaluation"] == TINY.unseen


def test_students_of_a_teacher_live_in_its_space_and_the_control_does_not(made: tuple[Path, dict[str, Any]]) -> None:
    spaces = {run: load_model(made[0] / run).space for run in RUNS}
    assert spaces["teacher"] == spaces["proxylesskd"] == spaces["l2kd"] != spaces["scratch"]


def test_nobody_is_both_trained_on_and_evaluated(made: tuple[Path, dict[str, Any]]) -> None:
    unseen = open_dataset(made[0] / "unseen.bin")
    for spec in (demo.FULL, demo.QUICK, TINY):
        trained = open_dataset(spec.faces(1)).class_names
        assert not set(trained) & set(unseen.class_names)
        assert not set(trained) & set(open_dataset(spec.unseen).class_names)


def test_a_second_time_does_nothing(made: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, result = made
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}
    assert demo.demo_at(TINY, folder) == result
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()} == before
    assert (folder / "table.md").read_text() in capsys.readouterr().out


def test_another_scale_and_foreign_folders_are_refused(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another recipe"):
        demo.run_demo(made[0], quick=True)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds no demo"):
        demo.run_demo(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        demo.run_demo(tmp_path / "thesis.tex")
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_demo_teacher_is_trained_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FULL", TINY)
    run = demo.demo_teacher(tmp_path)
    assert "training the demo's once" in " ".join(capsys.readouterr().err.split())
    model = load_model(run)
    assert model.classifier is not None and len(model.classifier) == 6
    before = (run / "model" / "model.safetensors").stat().st_mtime_ns
    assert demo.demo_teacher(tmp_path) == run
    assert (run / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert len(capsys.readouterr().err.split("teacher: ")) == 2


def test_a_method_of_labels_is_refused_before_the_demo_teacher_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "train", None)
    with pytest.raises(UsageError, match="the demo's knows people; train one, `facedistill train bce --out labels`"):
        demo.with_demo_teachers(load_recipe("rskd"))


@pytest.mark.parametrize("missing", ["data=nowhere", 'evaluation.sets=["nowhere"]'])
def test_what_is_missing_is_found_before_the_demo_teacher_is_trained(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "train", None)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="nowhere"):
        demo.with_demo_teachers(load_recipe("csd", [missing]))


def test_the_demo_teacher_that_another_process_trains_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def busy_at_first(recipe: Recipe, run: Path) -> Path:
        asked.append(run)
        if len(asked) == 1:
            raise Busy("another process is at it")
        return run

    monkeypatch.setattr(demo, "train", busy_at_first)
    assert demo.demo_teacher(tmp_path) == asked[0] == asked[1]


def test_the_table_in_the_docs_is_that_of_the_committed_run() -> None:
    docs = (ROOT / "docs" / "demo.md").read_text("utf-8")
    stored = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text("utf-8"))["demo"]
    assert demo.render(stored["runs"], demo.FULL).strip() in docs
    assert all(stored["settings"][key] == value for key, value in asdict(demo.FULL).items())


@pytest.mark.slow
def test_the_demo_is_neither_too_easy_nor_too_hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    result = demo.run_demo(tmp_path / "demo")
    runs = {
        name: {r["protocol"]: r for r in run["results"] if r["probe"] == r["gallery"] == "student"}
        for name, run in result["runs"].items()
    }
    assert 0.93 <= runs["teacher"]["pairs"]["accuracy"] <= 0.995
    tar = {name: run["all-pairs"]["tar_at_far"]["1e-2"]["value"] for name, run in runs.items()}
    assert tar["scratch"] <= tar["teacher"] - 0.05
    unseen = open_dataset(tmp_path / "demo" / "unseen.bin")
    torch.manual_seed(0)
    untrained = make_student(demo.recipe_of("teacher", demo.FULL), {}, None).eval()
    found = evaluate({"untrained": untrained}, {"unseen": unseen}, threshold="exact", resamples=0)
    assert all(r["accuracy"] <= 0.75 for r in found["results"] if r["protocol"] == "pairs")
    assert _raw_pixel_accuracy(unseen) <= 0.75


def _raw_pixel_accuracy(dataset: Dataset) -> float:
    assert isinstance(dataset.source, VerificationSet)
    pixels = np.stack([dataset.image(i).ravel() for i in range(len(dataset))]).astype(np.float32)
    units = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    pairs, same = dataset.source.pairs, dataset.source.same
    found = pair_protocol(units, units, pairs, same, thresholds="exact", resamples=0)
    assert found.accuracy is not None
    return found.accuracy.value
