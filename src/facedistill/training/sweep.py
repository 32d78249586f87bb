"""A sweep: recipes x values of their keys, with a run for each combination.

Finished runs are skipped, interrupted ones resume, and several processes may share the work.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from facedistill.data import is_path
from facedistill.errors import UsageError, UserError
from facedistill.progress import say
from facedistill.recipe import Recipe, load_recipe
from facedistill.results import markdown
from facedistill.run import Busy
from facedistill.training.engine import measure, train

OPENING, CLOSING = "[{(", ")}]"


def combinations(recipes: Sequence[str], overrides: Sequence[str]) -> dict[str, Recipe]:
    """Return every recipe with every combination of the overrides' values, by the name of its run.

    Args:
        recipes: files, or names of shipped ones. overrides: "key=value" or "key=value,value,..."; commas inside
            brackets, or in a data set such as synthetic:images=4,seed=1, separate nothing. A run is named after its
            recipe and the values that vary: "l2kd-lr0.3-seed1".

    Raises:
        UsageError: an override is malformed, two recipes have one name, or a recipe is wrong.
    """
    names = [Path(recipe).stem for recipe in recipes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"sweep: two recipes are called '{twice[0]}', and runs are named after them; rename one")
    choices = [_choices(override) for override in overrides]
    varied = [key for key, values in choices if len(values) > 1]
    last = [key.rpartition(".")[2] for key in varied]
    short = {key: tail if last.count(tail) == 1 else key for key, tail in zip(varied, last)}
    found = {}
    for name, recipe in zip(names, recipes):
        for values in product(*(values for _, values in choices)):
            chosen = [(key, value) for (key, _), value in zip(choices, values)]
            tags = [f"{short[key]}{_word(value)}" for key, value in chosen if key in short]
            run = "-".join([name, *tags])
            if run in found:
                raise UsageError(f"sweep: two runs would be called '{run}'; give their values other names")
            found[run] = load_recipe(recipe, [f"{key}={value}" for key, value in chosen])
    return found


def _word(value: str) -> str:
    """Return a value as part of a folder's name; of a path, only the last part."""
    return Path(value).stem if "/" in value else value


def _choices(override: str) -> tuple[str, list[str]]:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(f"'{override}': expected key=value or key=value,value, e.g. seed=0,1,2")
    if not is_path(text):
        return key, [text]  # a data set with options, whose commas separate no values
    values, depth = [""], 0
    for letter in text:
        depth += (letter in OPENING) - (letter in CLOSING)
        if letter == "," and depth == 0:
            values.append("")
        else:
            values[-1] += letter
    return key, values


def plan(runs: Mapping[str, Recipe], out: Path) -> str:
    """Return a table of the unfinished work: images, images per second, hours.

    The speed is measured on the first unfinished run of each student and method, not for each rate and seed.
    """
    measured: dict[str, tuple[int, float]] = {}
    rows, seconds = [], 0.0
    for name, recipe in runs.items():
        if _finished(out / name):
            rows.append([name, "finished", "", ""])
            continue
        method = recipe.method
        what = (method.name, method.classifier, method.sampler, list(method.terms))
        kind = repr(
            (recipe.data, recipe.student, recipe.teachers, what, recipe.schedule.batch, recipe.schedule.quantise)
        )
        if kind not in measured:
            measured[kind] = measure(recipe)
        images, rate = measured[kind]
        total = images * recipe.schedule.epochs
        seconds += total / rate
        rows.append([name, f"{total:,}", f"{rate:,.0f}", f"{total / rate / 3600:.2f}"])
    table = markdown(["run", "images", "images/s", "hours"], rows)
    return f"{table}\n{len(rows)} runs, {seconds / 3600:.1f} hours of training for one process\n"


def sweep(runs: Mapping[str, Recipe], out: Path) -> None:
    """Train every run in its folder OUT/NAME. Runs that another process is working on are skipped.

    Raises:
        UsageError: torchrun started several processes, which would have to agree on the runs to skip.
        UserError: at the end, if runs failed; the others are done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("sweep: each run takes one process; start the command several times instead of with torchrun")
    out.mkdir(parents=True, exist_ok=True)
    failed = {}
    for n, (name, recipe) in enumerate(runs.items(), 1):
        if not _finished(out / name):
            say(f"{name} ({n} of {len(runs)})")
        try:
            train(recipe, out / name)
        except Busy:
            say(f"{name}: another process is working on it")
        except (UserError, OSError, MemoryError, RuntimeError) as e:  # torch out of memory: RuntimeError
            failed[name] = str(e)
            say(f"{name} failed: {e}")
    if failed:
        name, why = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(runs)} runs failed; {name}: {why}")


def _finished(run: Path) -> bool:
    return (run / "evaluation.json").exists()
