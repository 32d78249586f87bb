"""The study of the number of people: its plan, its recipes, and a run of it on a few people from end to end."""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

import pytest
import scale

from facedistill.data.dataset import open_dataset
from facedistill.training.method import missing_teachers, wire_terms
from facedistill.training.resolved import resolve


def _measured(value: float, teacher: float | None = None) -> dict[str, Any]:
    def rates(of: float) -> dict[str, list[float]]:
        return {far: [of, of - 0.1, of + 0.1] for far in scale.FARS}

    unseen = {"student": rates(value)} | ({} if teacher is None else {"teacher": rates(teacher)})
    return {"0": {"unseen": unseen, "tuning": {"student": rates(value)}}}


def test_every_row_is_a_recipe_with_a_student_a_quarter_as_wide() -> None:
    for row in scale.METHODS:
        for people in scale.PEOPLE:
            recipe = scale.recipe_of(row, scale.Crowd(people), 0.3, 1, Path("work"))
            method = resolve(recipe.method)
            assert wire_terms(method) and not missing_teachers(recipe)
            assert recipe.schedule.epochs * people * scale.IMAGES == scale.SEEN[people]
            assert recipe.student.options["width"] * 4 == scale.TEACHER_WIDTH
    trained, centres = (
        scale.recipe_of(f"proxylesskd (W: {w})", scale.Crowd(400), 0.3, 0, Path("w")) for w in ("trained", "centres")
    )
    assert resolve(trained.method).start.needs == {"classifier"}
    assert resolve(centres.method).start.needs == {"embeddings"}
    names = {scale.run_name(row, scale.Crowd(400), 0.3, 0) for row in scale.METHODS}
    assert len(names) == len(scale.METHODS) and not any(set(name) & set(" (:)") for name in names)


def test_all_rates_are_tried_before_one_is_chosen() -> None:
    first, lower, higher = scale.rates("csd")
    assert scale.chosen({}, "csd") == first
    tried = {f"{first:g}": _measured(0.4), f"{lower:g}": _measured(0.6)}
    runs: dict[str, Any] = {"1600": {"csd": tried}}
    assert scale.chosen(runs, "csd") == first
    tried[f"{higher:g}"] = _measured(0.5)
    assert scale.chosen(runs, "csd") == lower
    plan = list(scale.jobs(runs, [scale.Crowd(400)], [0, 1], [scale.Crowd(1600)]))
    assert plan[0][0] == "teacher" and len(plan) == 1 + 3 * len(scale.METHODS) + 2 * (1 + len(scale.METHODS))
    assert ("csd", scale.Crowd(400), lower, 1) in plan


def test_cells_that_were_not_measured_are_empty() -> None:
    runs = {
        "400": {"teacher": {"0.2": _measured(0.9)}, "l2kd": {"1": _measured(0.5, 0.6)}},
        "1600": {"l2kd": {"1": _measured(0.55, 0.65)}, "csd": {"2": _measured(0.5, 0.7)}},
    }
    tables = scale.tables({"runs": runs})
    assert "| teacher | 1 | 90.0 [80.0, 100.0] |  |  |  |" in tables["scale 1e-4"]
    assert "| l2kd | 1 | 50.0 [40.0, 60.0] | 60.0 [50.0, 70.0] | 55.0 [45.0, 65.0] |" in tables["scale 1e-4"]
    assert "| csd |  |  | −5.00 | +5.00 |" in tables["scale differences"]
    assert "| l2kd | 1,600 | 1 | 55.0 | yes |" in tables["scale trials"]
    drawn = scale.drawing(runs)
    assert drawn.count('<circle cx="') == 4 and drawn == scale.drawing(runs) and "1,600" in drawn


def test_other_numbers_of_images_see_as_many_images_and_have_a_table_of_their_own() -> None:
    crowd = scale.Crowd.of("400x32")
    assert crowd == (400, 32) and crowd.name == "400x32" and scale.Crowd.of("400").name == "400"
    recipe = scale.recipe_of("l2kd", crowd, 1.0, 0, Path("work"))
    assert recipe.schedule.epochs * 400 * 32 == scale.SEEN[400] and recipe.data.sets == ["work/400x32.tar"]
    assert "400x32" in recipe.teachers["teacher"].model
    for name in ("401", "400x1", "x8", "many"):
        with pytest.raises(ArgumentTypeError, match="expected one of"):
            scale.Crowd.of(name)
    runs = {name: {"l2kd": {"1": _measured(0.5, 0.6)}} for name in ("1600", "400x32", "400", "400x2")}
    tables = scale.tables({"runs": runs})
    heads = tables["scale images"].splitlines()[0]
    assert [heads.index(f"400 people x {n}, S/S") for n in (2, 8, 32)] and "1,600" not in heads
    assert tables["scale 1e-4"].splitlines()[0].count("people") == 4


def test_a_study_of_a_few_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scale, "RESULTS", tmp_path / "scale.json")
    monkeypatch.setattr(scale, "OTHERS", {"unseen": (6, 4, 1_000_000), "tuning": (4, 4, 2_000_000)})
    monkeypatch.setattr(scale, "METHODS", {k: v for k, v in scale.METHODS.items() if k.startswith("proxylesskd (W: t")})
    for name, value in {
        "SIZE": 32,
        "DIM": 16,
        "TEACHER_WIDTH": 0.25,
        "SCHEDULE": {"batch": 32},
        "SEEN": {9: 72},
    }.items():
        monkeypatch.setattr(scale, name, value)
    args = Namespace(work=str(tmp_path / "work"), people=[scale.Crowd(9)], seeds=[0], tune=[], only=None)
    scale.run(args)
    first = (tmp_path / "scale.json").read_text()
    drawn = open_dataset(tmp_path / "work" / "9.tar")
    assert (len(drawn), len(drawn.class_names)) == (72, 9)
    same = open_dataset("synthetic:identities=9,images=8,size=32,seed=1")
    assert drawn.class_names == same.class_names and (drawn.image(20) == same.image(20)).all()
    assert "proxylesskd (W: trained)" in first and '"unseen"' in first and '"images_per_cpu_second"' in first
    capsys.readouterr()
    scale.run(args)
    assert not capsys.readouterr().out and (tmp_path / "scale.json").read_text() == first
