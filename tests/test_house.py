"""The plan of the house's recipe: every row is a recipe that resolves, and the second round follows the first."""

from argparse import Namespace
from typing import Any

import house
import pytest

from facedistill.training.method import wire_terms
from facedistill.training.resolved import resolve

ARGS = Namespace(data="photos", teacher="t.onnx", fused="both", lfw="lfw.bin")


def _measured(value: float) -> dict[int, Any]:
    return {0: {"hold-out": {"student": {"1e-3": [value, value, value]}}, "lfw": {}, "epochs": 14, "seconds": 60}}


def test_every_row_is_a_recipe_and_together_has_the_best_of_each_factor() -> None:
    rows: house.Rows = {row: _measured(0.5) for row, _ in house.jobs()}
    rows |= {"augment 0.5, same": _measured(0.7), "augment 0.25, clean": _measured(0.6), "40 epochs": _measured(0.52)}
    rows |= {"csd beside L2": _measured(0.4), "25,000 drawn images": _measured(0.55)}
    assert set(house.best(rows).values()) == {"augment 0.5, same", "40 epochs", "25,000 drawn images"}
    for row, seed in house.jobs():
        recipe = house.recipe_of(row, seed, ARGS, rows)
        resolved = resolve(recipe.method)
        assert wire_terms(resolved) and recipe.seed == seed and recipe.data.hold_out == 0.1
        changed = row == "together" or row in house.RIVALS
        if changed:
            assert resolved.view.teacher_sees == "the augmented images" and recipe.schedule.epochs == 40
            assert recipe.data.sets == ["photos", "synthetic:identities=5000,images=5,size=64,seed=7"]
    base, alone = (house.recipe_of(row, 0, ARGS, rows) for row in ("base", "csd instead of L2"))
    assert resolve(base.method).view.teacher_sees == "" and base.data.sets == ["photos"]
    assert set(wire_terms(resolve(alone.method))) == {"margin_softmax", "csd"}
    fused, averaged = (house.recipe_of(row, 0, ARGS, rows) for row in ("two teachers fused", "moving average, 0.99"))
    assert (fused.teachers["teacher"].model, base.teachers["teacher"].model) == ("both", "t.onnx")
    assert (averaged.schedule.ema, base.schedule.ema) == (0.99, None)


def test_the_table_has_what_was_measured() -> None:
    lines = house.table({"base": {0: _measured(0.5)[0], 1: _measured(0.6)[0]}}).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["base"] == ["2", "14", "1", "55.0 (50.0 to 60.0)"] and "together" not in cells
    assert cells["recipe"] == ["seeds", "epochs", "minutes", "hold-out, FAR 1e-3, S→S"]  # no empty column


def test_a_row_with_two_teachers_asks_for_them() -> None:
    args = Namespace(**vars(ARGS) | {"fused": None})
    with pytest.raises(SystemExit, match="needs --fused"):
        house.recipe_of("two teachers fused", 0, args, {})
    assert house.recipe_of("base", 0, args, {}).teachers["teacher"].model == "t.onnx"
