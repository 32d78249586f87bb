"""Sweeps: which runs they are, what is skipped, what a failure does to the others."""

import json
from pathlib import Path

import pytest

from facedistill.errors import UsageError, UserError
from facedistill.files import claimed
from facedistill.recipe.read import load_recipe
from facedistill.results.stored import load_evaluations
from facedistill.training.sweep import combinations, plan, sweep
from tiny_world import Tiny


def small(tiny: Tiny, *more: str) -> list[str]:
    return [
        f"data={tiny.photos}",
        f"teacher={tiny.teacher}",
        "student.input_size=32",
        "student.options.width=0.25",
        "schedule.epochs=1",
        "schedule.batch=12",
        "data.hold_out=0.2",
        *more,
    ]


def test_a_run_for_every_combination() -> None:
    more = ["seed=0,1", "schedule.lr=0.3,1", "schedule.epochs=2", "evaluation.sets=[a.bin, b.bin]"]
    runs = combinations(["l2kd", "scratch"], more)
    assert list(runs) == [
        f"{recipe}-seed{seed}-lr{lr}" for recipe in ("l2kd", "scratch") for seed in (0, 1) for lr in ("0.3", "1")
    ]
    one = runs["scratch-seed1-lr0.3"]
    assert one == load_recipe(
        "scratch", ["seed=1", "schedule.lr=0.3", "schedule.epochs=2", "evaluation.sets=[a.bin, b.bin]"]
    )
    assert list(combinations(["l2kd"], [])) == ["l2kd"]
    drawn = "data=synthetic:identities=6,images=4,size=32"
    assert combinations(["l2kd"], [drawn])["l2kd"].data.train == drawn.removeprefix("data=")


def test_names_tell_the_runs_apart() -> None:
    keys = ["student.options.width=0.5,1", "method.terms.margin_softmax.scale=16,32", "teacher=a/x.onnx,b/y.onnx"]
    assert "proxylesskd-width0.5-scale16-teacherx" in combinations(["proxylesskd"], keys)
    same_tail = ["data.hold_out_seed=1,2", "method.terms.a.weight=1,2", "method.terms.b.weight=1,2"]
    assert "l2kd-hold_out_seed1-method.terms.a.weight1-method.terms.b.weight2" in combinations(["l2kd"], same_tail)
    with pytest.raises(UsageError, match="two runs would be called"):
        combinations(["l2kd"], ["teacher=a/x.onnx,b/x.onnx"])
    with pytest.raises(UsageError, match="two recipes are called 'l2kd'"):
        combinations(["l2kd", "elsewhere/l2kd.yaml"], [])
    with pytest.raises(UsageError, match="key=value"):
        combinations(["l2kd"], ["seed"])
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        combinations(["l2kd"], ["schedule.epoch=1,2"])


def test_finished_runs_are_skipped_and_failures_do_not_stop_the_others(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    runs = combinations(["proxylesskd", "l2kd"], small(tiny, "check.own_class=0"))
    missing = combinations(["l2kd"], small(tiny, "data=nowhere"))["l2kd"]
    other = combinations(["l2kd"], small(tiny, "student=iresnet18", "student.options.width=-1"))["l2kd"]
    with pytest.raises(UserError, match=r"2 of 4 runs failed; broken: .*nowhere"):
        sweep({"broken": missing, "other": other, **runs}, out)
    found = load_evaluations([out])
    assert set(found) == {"proxylesskd", "l2kd"}
    for evaluation in found.values():
        cost = evaluation["training"]
        assert cost["epochs"] == 1 and cost["images"] == 60 and cost["seconds"] > 0 and cost["peak_memory_mb"] > 0
    assert found["proxylesskd"]["training"]["teacher_forwards"] == 0
    assert found["l2kd"]["training"]["teacher_forwards"] == 120  # each image and its mirror image, once
    before = (out / "l2kd" / "evaluation.json").stat().st_mtime_ns
    sweep(runs, out)
    assert (out / "l2kd" / "evaluation.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another recipe"):
        sweep(combinations(["l2kd"], small(tiny, "seed=7")), out)


def test_an_online_teacher_runs_at_every_step(tiny: Tiny, tmp_path: Path) -> None:
    sweep(combinations(["l2kd"], small(tiny, "teacher.cache=false")), tmp_path)
    result = json.loads((tmp_path / "l2kd" / "evaluation.json").read_text())
    assert result["training"]["teacher_forwards"] == 60


def test_a_run_that_another_process_has_is_left_to_it(tiny: Tiny, tmp_path: Path) -> None:
    runs = combinations(["l2kd"], small(tiny))
    (tmp_path / "l2kd").mkdir()
    with claimed(tmp_path / "l2kd" / ".lock"):
        sweep(runs, tmp_path)
    assert not (tmp_path / "l2kd" / "recipe.yaml").exists()
    sweep(runs, tmp_path)
    assert (tmp_path / "l2kd" / "evaluation.json").exists()


def test_under_torchrun_it_is_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="start the command several times instead of with torchrun"):
        sweep(combinations(["l2kd"], small(tiny)), tmp_path)


def test_the_plan_takes_the_sampler_that_the_method_asks_for(tiny: Tiny, tmp_path: Path) -> None:
    recipes = ["ekd", "l2kd"]
    text = plan(combinations(recipes, small(tiny, "method.sampler.kind=pk")), tmp_path)
    assert all(f"{name} " in text for name in recipes)


def test_the_plan_measures_and_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    runs = combinations(["l2kd"], small(tiny, "seed=0,1", "schedule.epochs=50"))
    (tmp_path / "l2kd-seed1").mkdir()
    (tmp_path / "l2kd-seed1" / "evaluation.json").write_text("{}")
    text = plan(runs, tmp_path)
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines()[2:4]]
    assert rows[0][:2] == ["l2kd-seed0", "3,000"] and rows[1][:2] == ["l2kd-seed1", "finished"]
    assert float(rows[0][2].replace(",", "")) > 1
    assert not (tmp_path / "l2kd-seed0").exists()
