"""Runs of several recipes with several seeds: the mean of each recipe, and the differences between recipes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facedistill.errors import UserError
from facedistill.evaluation import Estimate, Figure, declaration, paired_difference
from facedistill.progress import say
from facedistill.results.reading import estimate

Runs = dict[int, dict[str, Any]]  # the evaluations of one recipe, by seed
COST_KEYS = ("seconds", "images_per_second", "teacher_forwards", "peak_memory_mb")


def over_seeds(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the mean over the seeds of each recipe: one evaluation per recipe, by its name (see `differences_to`).

    A figure that all seeds have becomes {"value": mean, "ci95": of that mean, if they were resampled, "seeds": their
    values}; everything else is kept only if it is the same in all. "training" has "seeds" instead of "seed", and the
    mean costs. Evaluations that belong to no run (files, published figures) follow unchanged.
    """
    found = {name: _mean_evaluation(runs) for name, runs in _recipes(evaluations).items()}
    return found | {name: evaluation for name, evaluation in evaluations.items() if not evaluation.get("training")}


def _mean_evaluation(runs: Runs) -> dict[str, Any]:
    each = [runs[seed] for seed in sorted(runs)]
    first, trained = each[0], [evaluation["training"] for evaluation in each]
    training = {key: value for key, value in trained[0].items() if key not in ("seed", *COST_KEYS)}
    training |= {"seeds": sorted(runs)}
    training |= {
        key: float(np.mean([of[key] for of in trained])) for key in COST_KEYS if all(key in of for of in trained)
    }
    kept = {key: first[key] for key in ("method", "models") if key in first}
    return kept | {"training": training, "results": [_mean_result(results) for results in _matched(each)]}


def _mean_result(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    says = declaration(*each)
    known = says.paths(each)
    figures = {path.partition(".")[0] for path in known} | {figure.interval for figure in says.figures}
    figures |= {"curves", "resampled", "at_gallery_threshold"}
    mean = {key: v for key, v in each[0].items() if key not in figures and all(r.get(key) == v for r in each)}
    for path in known:
        of = [one for r in each if (one := estimate(r, path)) is not None]
        if len(of) == len(each):
            key, _, rate = path.partition(".")
            value = _mean_value(of, [r.get("resampled", {}).get(path) for r in each], says.figure(path))
            mean[key] = {**mean.get(key, {}), rate: value} if rate else value
    at = [r.get("at_gallery_threshold", {}) for r in each]
    if fars := [far for far in at[0] if all(far in of for of in at)]:
        mean["at_gallery_threshold"] = {
            far: {key: float(np.mean([of[far][key] for of in at])) for key in ("tar", "far")} for far in fars
        }
    return mean


def _mean_value(
    each: Sequence[dict[str, Any]], resampled: Sequence[list[float] | None], figure: Figure | None
) -> dict[str, Any]:
    if all(of == each[0] for of in each):
        return dict(each[0])  # of one run, or the teacher's own
    values = [of["value"] for of in each]
    mean: dict[str, Any] = {"value": float(np.mean(values))}
    if all(drawn is not None for drawn in resampled):
        mean = Estimate(mean["value"], np.mean(np.array(resampled), axis=0)).to_json()
    decided = [figure.target.decided_by] if figure and figure.target else []
    return {key: each[0][key] for key in decided if key in each[0]} | mean | {"seeds": values}


def differences_to(evaluations: Mapping[str, dict[str, Any]], to: Sequence[str]) -> list[dict[str, Any]]:
    """Return the differences of every recipe's runs from those of the recipes named in `to`, over their common seeds.

    Runs whose recipes differ only in the seed form one recipe, named as they are but without the seed. A recipe with
    other epochs, data or student size is left out, and a line on the console says so. The interval is that of the mean
    over the seeds; it is paired, because all runs were resampled alike. A difference is distinguishable if the interval
    excludes 0 and all seeds, at least two, agree in sign.

    Args:
        evaluations: of finished runs, by name, with "training" and "resampled"; those without are left out.
        to: names of recipes, or of methods that one recipe has.

    Returns:
        {"a", "b": names, "seeds": count, "set", "protocol", "probe", "gallery", "resolution" if set,
        "of": {path: {"value", "ci95", "distinguishable"}}}.

    Raises:
        UserError: no recipe, or no single one, has that name or method.
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
                say(f"{name} is not compared with {base}: their epochs, data or students differ")
            else:
                pairs = [(runs[seed], recipes[base][seed]) for seed in seeds]
                found += [{"a": name, "b": base, "seeds": len(seeds), **d} for d in _seed_differences(pairs)]
    return found


def _recipes(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, Runs]:
    """Return the runs of each recipe, by the first run's name without its seed. A repeated seed starts a new group."""
    found: dict[str, Runs] = {}
    groups: dict[str, list[str]] = {}  # the names of each recipe's groups
    for run, evaluation in evaluations.items():
        if training := evaluation.get("training"):
            alike, seed = groups.setdefault(training["recipe"], []), training["seed"]
            name = next((name for name in alike if seed not in found[name]), None)
            if name is None:
                short = re.sub(rf"(?:^|[-_])(?:seed|s){seed}(?=$|[-_])", "", run).lstrip("-_")
                name = run if short in {"", *found, *evaluations} else short
                alike.append(name)
            found.setdefault(name, {})[seed] = evaluation
    return found


def _named(recipes: Mapping[str, Runs], wanted: str) -> str:
    methods = {name: next(iter(runs.values())).get("method", "").partition(" (")[0] for name, runs in recipes.items()}
    fitting = [wanted] if wanted in recipes else [name for name, method in methods.items() if method == wanted]
    if len(fitting) == 1:
        return fitting[0]
    what = f"{len(fitting)} recipes have that method ({', '.join(fitting)})" if fitting else "no runs of that name"
    raise UserError(f"--to {wanted}: {what}; expected one of {', '.join(recipes) or 'finished runs'}")


def _comparable(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether both have the same data and epochs, and students of one size and resolution."""
    one, other = (e["models"].get("student", {}) for e in (a, b))
    same = all(a["training"][key] == b["training"][key] for key in ("epochs", "data"))
    return same and all(one.get(key) == other.get(key) for key in ("parameters", "macs"))


def _matched(evaluations: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the results that all the evaluations have and that may be paired, each in the evaluations' order."""
    found = [{_what(r): r for r in evaluation["results"]} for evaluation in evaluations]
    return [[results[what] for results in found] for what in found[0] if all(what in results for results in found)]


def _seed_differences(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the differences of two recipes. `pairs`: their evaluations with one seed each."""
    found = []
    for results in _matched([evaluation for side in zip(*pairs) for evaluation in side]):
        a, b, first = results[: len(pairs)], results[len(pairs) :], results[0]
        at = {key: first[key] for key in ("set", "protocol", "probe", "gallery")}
        at |= {key: first[key] for key in ("declared",) if key in first}
        at |= {key: first["settings"][key] for key in ("resolution",) if key in first.get("settings", {})}
        drawn = [r.get("resampled", {}) for r in results]
        paths = [path for path in drawn[0] if all(path in of for of in drawn)]
        of = {path: seed_difference(*([_estimate(r, path) for r in side] for side in (a, b))) for path in paths}
        found += [at | {"of": of}] if of else []
    return found


def seed_difference(a: Sequence[Estimate], b: Sequence[Estimate]) -> dict[str, Any]:
    """Return the mean of a - b over the seeds, one estimate each: {"value", "ci95", "distinguishable"}."""
    each = [paired_difference(x, y) for x, y in zip(a, b, strict=True)]
    mean = Estimate(float(np.mean([d.value for d in each])), np.mean([d.resampled for d in each], axis=0))
    low, high = mean.ci95 or (-np.inf, np.inf)
    agree = len(each) > 1 and {np.sign(d.value) for d in each} in ({1}, {-1})
    return mean.to_json() | {"distinguishable": agree and (low > 0 or high < 0)}


def _estimate(result: Mapping[str, Any], path: str) -> Estimate:
    found = estimate(result, path)
    assert found is not None
    return Estimate(found["value"], np.array(result["resampled"][path]))


def _what(result: Mapping[str, Any]) -> str:
    """Return what must be equal for two results to be paired; the models' own numbers are not part of it."""
    settings = {key: value for key, value in result.get("settings", {}).items() if key != "directions"}
    return repr([*(result.get(key) for key in ("set", "protocol", "probe", "gallery", "data")), settings])
