"""Recipes over seeds, means and differences, against the formulas written out, and when a difference counts."""

from typing import Any

import numpy as np
import pytest

from facedistill.errors import UserError
from facedistill.evaluation.statistics import Estimate
from facedistill.results import render_comparison
from facedistill.results.across_runs import differences_to, over_seeds, seed_difference
from facedistill.results.stored import without_resamples

FIGURE = "tar_at_far.1e-3"


def run(method: str, seed: int, tar: float, **training: Any) -> dict[str, Any]:
    """A finished run's evaluation; the resamples are alike for all runs, but for a noise of the run's own."""
    shared, own = np.random.default_rng(0), np.random.default_rng([seed, len(method)])
    drawn = tar + 0.05 * shared.standard_normal(400) + 0.002 * own.standard_normal(400)
    result = {
        "protocol": "all-pairs",
        "set": "lfw",
        "probe": "student",
        "gallery": "student",
        "same_space": True,
        "settings": {"flip": "sum", "resamples": 400, "seed": 0},
        "data": "x",
        "images": 10,
        "pairs": 100,
        "genuine": 10,
        "tar_at_far": {"1e-3": {"value": tar, "impostors": 90, "far": 1e-3, "threshold": 0.4}},
        "resampled": {FIGURE: drawn.tolist()},
    }
    return {
        "schema": 1,
        "models": {"student": {"parameters": 5, "macs": 7}},
        "results": [result],
        "method": method,
        "training": {"recipe": method, "seed": seed, "epochs": 14, "data": "faces", "images": 9} | training,
    }


def runs(method: str, tars: list[float], name: str | None = None, **training: Any) -> dict[str, dict[str, Any]]:
    return {f"{name or method}-seed{seed}": run(method, seed, tar, **training) for seed, tar in enumerate(tars)}


def test_the_mean_over_seeds_is_paired() -> None:
    evaluations = runs("l2kd", [0.50, 0.52]) | runs("proxylesskd (W: centres)", [0.55, 0.58], "proxylesskd")
    (found,) = differences_to(evaluations, ["l2kd"])
    assert (found["a"], found["b"], found["seeds"]) == ("proxylesskd", "l2kd", 2)
    of = found["of"][FIGURE]
    assert of["value"] == pytest.approx(0.055)
    drawn = [np.array(e["results"][0]["resampled"][FIGURE]) for e in evaluations.values()]
    expected = np.quantile((drawn[2] - drawn[0] + drawn[3] - drawn[1]) / 2, [0.025, 0.975])
    assert of["ci95"] == pytest.approx(expected) and of["ci95"][1] - of["ci95"][0] < 0.02  # the shared noise is gone
    assert of["distinguishable"]
    (other,) = differences_to(evaluations, ["proxylesskd"])  # a method's name will do
    assert other["of"][FIGURE]["value"] == pytest.approx(-0.055)
    text = render_comparison(without_resamples(evaluations), [found])
    assert "Differences between recipes" in text and "+5.50 [" in text and "resampled" not in text


@pytest.mark.parametrize("tars", [[0.56], [0.60, 0.49], [0.5001, 0.5201]])
def test_when_it_does_not_count(tars: list[float]) -> None:
    """One seed; seeds of different sign; an interval that holds 0."""
    (found,) = differences_to(runs("l2kd", [0.50, 0.52]) | runs("rkd", tars), ["l2kd"])
    assert not found["of"][FIGURE]["distinguishable"] and found["seeds"] == len(tars)
    assert "not distinguishable" in render_comparison({}, []) + render_comparison(
        without_resamples(runs("l2kd", [0.5]) | runs("rkd", tars)), [found]
    )


def test_swapping_two_recipes_swaps_the_sign_alone() -> None:
    """Seeds of no difference agree with nothing."""
    drawn = np.random.default_rng(0).normal(0.5, 0.01, 100)
    equal, higher = Estimate(0.5, drawn), Estimate(0.6, drawn + 0.1)
    for a, b in (([equal, equal], [equal, higher]), ([equal, equal], [equal, equal]), ([equal] * 2, [higher] * 2)):
        one, other = seed_difference(a, b), seed_difference(b, a)
        assert one["distinguishable"] == other["distinguishable"] == (equal not in b)


def test_runs_that_differ_in_more_than_the_method_are_not_compared(capsys: pytest.CaptureFixture) -> None:
    base = runs("l2kd", [0.5, 0.5])
    assert differences_to(base | runs("rkd", [0.6, 0.6], epochs=20), ["l2kd"]) == []
    assert "rkd is not compared with l2kd: their epochs, data or students differ" in capsys.readouterr().err
    assert differences_to(base | runs("rkd", [0.6, 0.6], data="others"), ["l2kd"]) == []
    larger = runs("rkd", [0.6, 0.6])
    for evaluation in larger.values():
        evaluation["models"]["student"]["macs"] = 8
    assert differences_to(base | larger, ["l2kd"]) == []
    text = render_comparison(without_resamples(base | runs("rkd", [0.6], epochs=20)))
    assert "differ in epochs or data" in text and "differ in epochs" not in render_comparison(without_resamples(base))


def test_a_name_that_nothing_has() -> None:
    evaluations = runs("l2kd", [0.5]) | runs("rkd", [0.6])
    with pytest.raises(UserError, match="expected one of l2kd, rkd"):
        differences_to(evaluations, ["pkt"])
    two = runs("l2kd", [0.5], "l2kd-lr1") | {"l2kd-lr3-seed0": run("l2kd", 0, 0.4, recipe="another")}
    with pytest.raises(UserError, match="2 recipes have that method"):
        differences_to(two, ["l2kd"])
    assert len(differences_to(two, ["l2kd-lr1"])) == 1


def test_the_mean_over_seeds_has_an_interval_and_the_seeds() -> None:
    evaluations = runs("rkd", [0.50, 0.53, 0.56], seconds=60.0) | runs("l2kd", [0.7])
    evaluations["rkd-seed1"]["training"]["seconds"] = 120.0
    recipes = over_seeds(evaluations)
    assert list(recipes) == ["rkd", "l2kd"]
    (result,) = recipes["rkd"]["results"]
    figure = result["tar_at_far"]["1e-3"]
    drawn = [np.array(e["results"][0]["resampled"][FIGURE]) for e in list(evaluations.values())[:3]]
    assert figure["value"] == pytest.approx(0.53) and figure["seeds"] == [0.50, 0.53, 0.56]
    assert figure["ci95"] == pytest.approx(np.quantile(sum(drawn) / 3, [0.025, 0.975]))
    assert figure["impostors"] == 90 and "threshold" not in figure, "seeds have thresholds of their own"
    training = recipes["rkd"]["training"]
    assert training["seeds"] == [0, 1, 2] and training["seconds"] == 80 and "seed" not in training
    (alone,) = recipes["l2kd"]["results"]
    figure = evaluations["l2kd-seed0"]["results"][0]["tar_at_far"]["1e-3"]
    assert alone["tar_at_far"]["1e-3"] == figure, "one run stays as it is"


def test_a_figure_that_a_seed_lacks_has_no_mean() -> None:
    evaluations = runs("rkd", [0.5, 0.6])
    evaluations["rkd-seed0"]["results"][0]["eer"] = 0.1
    evaluations["rkd-seed1"]["results"].append(evaluations["rkd-seed1"]["results"][0] | {"set": "another"})
    (result,) = over_seeds(evaluations)["rkd"]["results"]
    assert "eer" not in result and result["set"] == "lfw"


def test_what_is_no_figure_stays_only_where_all_seeds_have_it_alike() -> None:
    evaluations = runs("rkd", [0.5, 0.6])
    for seed, evaluation in enumerate(evaluations.values()):
        evaluation["results"][0] |= {"mean_cosine": {"value": 0.5 + seed}, "false_accepts": {"far": 1e-3}}
    del evaluations["rkd-seed1"]["results"][0]["same_space"]
    (result,) = over_seeds(evaluations)["rkd"]["results"]
    assert "mean_cosine" not in result and "same_space" not in result
    assert result["false_accepts"] == {"far": 1e-3} and result["pairs"] == 100


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ("l2kd-epochs10:a0 l2kd-epochs20:b0", "l2kd-epochs10:0 l2kd-epochs20:0"),  # no seed, but part of a word
        ("l2kd-s10:a10 l2kd-s1-wide:b1 l2kd_seed1:c1", "l2kd:10 l2kd-wide:1 l2kd_seed1:1"),  # "l2kd" is taken
        ("s0-l2kd:a0 s1-l2kd:a1 seed0:b0", "l2kd:0,1 seed0:0"),  # without it nothing would be left
        ("l2kd-s1:b1 l2kd:a0", "l2kd-s1:1 l2kd:0"),  # another run's name
        ("one:a0 two:a0 three:a1 four:a1", "one:0,1 two:0,1"),  # the same seed again
        ("x-s0:a0 y-s0:a0 x-s1:a1", "x:0,1 y:0"),
        ("x-s0:a0 x_s0:a0 x-seed0:a0", "x:0 x_s0:0 x-seed0:0"),
    ],
)
def test_no_run_is_lost_and_no_two_recipes_become_one(given: str, groups: str) -> None:
    """`given`: run:recipe and seed. `groups`: the name of each group and its seeds."""
    parted = [one.split(":") for one in given.split()]
    evaluations = {name: run(of[0], int(of[1:]), 0.5) for name, of in parted}
    found = over_seeds(evaluations)
    shown = {name: ",".join(map(str, recipe["training"]["seeds"])) for name, recipe in found.items()}
    assert " ".join(f"{name}:{seeds}" for name, seeds in shown.items()) == groups


def test_what_is_of_no_run_stays_as_it_is() -> None:
    file = {"schema": 1, "models": {}, "results": []}
    found = over_seeds({"file": file} | runs("rkd", [0.5, 0.6]))
    assert list(found) == ["rkd", "file"] and found["file"] is file
