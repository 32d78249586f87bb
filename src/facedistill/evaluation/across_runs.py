"""Runs of several recipes with several seeds: which of them differ, by paired intervals of the mean over seeds."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facedistill.errors import UserError
from facedistill.evaluation.reading import estimate
from facedistill.evaluation.statistics import Estimate, paired_difference
from facedistill.progress import console

Runs = dict[int, dict[str, Any]]  # the evaluations of one recipe, by seed


def differences_to(evaluations: Mapping[str, dict[str, Any]], to: Sequence[str]) -> list[dict[str, Any]]:
    """How every recipe's runs differ from those of the recipes named in `to`, a difference for each common seed.

    Runs whose recipes differ in the seed alone belong together; they are called what their runs are, without the seed.
    What differs in epochs, data or the student's size is left out, with a line on the console. The interval is that of
    the mean over the seeds, paired: all runs were resampled alike. A difference is distinguishable if the interval
    excludes 0 and all seeds, at least two, agree in sign.

    Args:
        evaluations: of finished runs, by name, with "training" and "resampled"; those without are left out.
        to: names of recipes, or of methods that one recipe has.

    Returns:
        {"a", "b": names, "seeds": count, "set", "protocol", "probe", "gallery", "resolution" where it was set,
        "of": {path: {"value", "ci95", "distinguishable"}}}.

    Raises:
        UserError: nothing of that name.
    """
    recipes = _recipes(evaluations)
    found = []
    for wanted in to:
        base = _named(recipes, wanted)
        for name, runs in recipes.items():
            seeds = sorted(runs.keys() & recipes[base].keys())
            if name == base or not seeds:
                continue
            if not _comparable(runs[seeds[0]], recipes[base][seeds[0]]):
                console.print(f"{name} is not compared with {base}: other epochs, other data, or another student")
            else:
                pairs = [(runs[seed], recipes[base][seed]) for seed in seeds]
                found += [{"a": name, "b": base, "seeds": len(seeds), **d} for d in _seed_differences(pairs)]
    return found


def _recipes(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, Runs]:
    names: dict[str, str] = {}
    found: dict[str, Runs] = {}
    for run, evaluation in evaluations.items():
        if training := evaluation.get("training"):
            name = names.setdefault(training["recipe"], re.sub(r"[-_]?(seed|s)\d+$", "", run) or run)
            found.setdefault(name, {})[training["seed"]] = evaluation
    return found


def _named(recipes: Mapping[str, Runs], wanted: str) -> str:
    methods = {name: next(iter(runs.values()))["method"].partition(" (")[0] for name, runs in recipes.items()}
    fitting = [wanted] if wanted in recipes else [name for name, method in methods.items() if method == wanted]
    if len(fitting) == 1:
        return fitting[0]
    what = f"{len(fitting)} recipes have that method ({', '.join(fitting)})" if fitting else "no runs of that name"
    raise UserError(f"--to {wanted}: {what}; expected one of {', '.join(recipes) or 'finished runs'}")


def _comparable(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether both were trained on the same data for as long, into students of one size and resolution."""
    students = [(e["models"]["student"].get("parameters"), e["models"]["student"].get("macs")) for e in (a, b)]
    same = all(a["training"][key] == b["training"][key] for key in ("epochs", "data"))
    return same and students[0] == students[1]


def _seed_differences(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """`pairs`: the evaluations of both recipes with one seed each."""
    sides = [[{_what(r): r for r in e["results"] if "resampled" in r} for e in side] for side in zip(*pairs)]
    found = []
    for what, first in sides[0][0].items():
        if all(what in results for side in sides for results in side):
            a, b = ([results[what] for results in side] for side in sides)
            at = {key: first[key] for key in ("set", "protocol", "probe", "gallery")}
            at |= {key: first["settings"][key] for key in ("resolution",) if key in first["settings"]}
            paths = [path for path in first["resampled"] if all(path in r["resampled"] for r in (*a, *b))]
            of = {path: [[_estimate(r, path) for r in side] for side in (a, b)] for path in paths}
            found.append(at | {"of": {path: seed_difference(*both) for path, both in of.items()}})
    return found


def seed_difference(a: Sequence[Estimate], b: Sequence[Estimate]) -> dict[str, Any]:
    """The mean of a - b over the seeds, one estimate each: {"value", "ci95", "distinguishable"}."""
    each = [paired_difference(x, y) for x, y in zip(a, b, strict=True)]
    mean = Estimate(float(np.mean([d.value for d in each])), np.mean([d.resampled for d in each], axis=0))
    low, high = mean.ci95 or (-np.inf, np.inf)
    agree = len(each) > 1 and len({d.value > 0 for d in each}) == 1
    return mean.to_json() | {"distinguishable": agree and (low > 0 or high < 0)}


def _estimate(result: Mapping[str, Any], path: str) -> Estimate:
    found = estimate(result, path)
    assert found is not None
    return Estimate(found["value"], np.array(result["resampled"][path]))


def _what(result: Mapping[str, Any]) -> str:
    """What must be equal for two results to be paired; not what a model makes of it."""
    settings = {key: value for key, value in result["settings"].items() if key != "directions"}
    return repr([*(result[key] for key in ("set", "protocol", "probe", "gallery", "data")), settings])
