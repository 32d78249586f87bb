"""The verbs that train: demo, train, distill, sweep."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from facedistill.cli.app import Flag, app
from facedistill.errors import UsageError

if TYPE_CHECKING:
    from facedistill.recipe import Recipe


@app.command(sort_key=1)
def demo(*, out: Path = Path("demo-run"), quick: Annotated[bool, Flag] = False) -> None:
    """The whole story on synthetic faces, in minutes.

    Trains a teacher and three students, measures them on people never seen in training, and prints one table.

    Example: `facedistill demo --out demo-run`

    Parameters
    ----------
    out:
        Folder for the faces, the models and the results. Run again, it does only what is missing.
    quick:
        Smaller and shorter: two minutes, and a weaker teacher.
    """
    from facedistill.demo import run_demo

    run_demo(out, quick)


@app.command(sort_key=5)
def train(recipe: str, /, *overrides: str, out: Path) -> None:
    """Train by a recipe: a teacher, or any method's student.

    Run again with the same recipe, it goes on where it stopped. A shipped recipe runs as it stands, on synthetic faces
    and with the demo's teacher.

    Examples:

    `facedistill train proxylesskd --out run`

    `facedistill train recipe.yaml --out run schedule.epochs=20 method.terms.margin_softmax.scale=32`

    `torchrun --nproc-per-node=4 -m facedistill train recipe.yaml --out run`

    Parameters
    ----------
    recipe:
        A YAML file, or the name of a shipped recipe (`facedistill list recipes`).
    overrides:
        key=value: change the recipe, e.g. schedule.epochs=20.
    out:
        The folder of the run: recipe, log, checkpoints, model, evaluation.
    """
    from facedistill.recipe import load_recipe

    _train(load_recipe(recipe, overrides), out)


@app.command(sort_key=4)
def distill(
    *overrides: str, teacher: Path, data: str, student: str = "mobilefacenet", out: Path, method: str | None = None
) -> None:
    """Distil a student from a teacher: check, train, evaluate.

    A tenth of the identities is held out for the evaluation (data.hold_out). A teacher that brings no classifier for
    these classes gets one made of class centres; the result says so. Where identities are few and no method is named,
    it says what did better there. Run again with the same arguments, it goes on where it stopped.

    Example: `facedistill distill --teacher teacher.onnx --data photos --out run student.options.width=0.5`

    Parameters
    ----------
    overrides:
        key=value: change the recipe, e.g. schedule.epochs=20.
    teacher:
        A model folder, a run, or an .onnx.
    data:
        The images to train on, with class names.
    student:
        The network (`facedistill list backbones`).
    out:
        The folder of the run: recipe, log, checkpoints, model, evaluation.
    method:
        How to distil (`facedistill list methods`). [default: proxylesskd]
    """
    from facedistill.training import distillation_recipe

    _train(distillation_recipe(teacher, data, student, out, method, overrides), out)


@app.command(sort_key=6)
def sweep(*recipes: str, out: Path, plan: Annotated[bool, Flag] = False) -> None:
    """Train every combination of recipes and values, each in a folder of its own.

    What is finished is skipped, what was begun goes on; started several times at once, the processes share the work.
    `facedistill compare OUT` then puts the results side by side.

    Example: `facedistill sweep l2kd proxylesskd --out runs seed=0,1,2 schedule.lr=0.3,1 schedule.epochs=20`

    Parameters
    ----------
    recipes:
        YAML files or shipped recipes, and key=value,value: a run for each value.
    out:
        The folder of the runs.
    plan:
        Only print the runs and the hours they would take, from measured images per second.
    """
    from facedistill import training
    from facedistill.demo import with_demo_teachers

    files = [text for text in recipes if "=" not in text]
    if not files:
        raise UsageError("sweep: RECIPES needs a value, e.g. facedistill sweep l2kd proxylesskd --out runs seed=0,1")
    runs = training.combinations(files, [text for text in recipes if "=" in text])
    runs = {name: with_demo_teachers(recipe) for name, recipe in runs.items()}
    if plan:
        print(training.plan(runs, out))
    else:
        training.sweep(runs, out)


def _train(recipe: "Recipe", out: Path) -> None:
    """Train, with the demo's teacher where the recipe names none, and print the result."""
    from facedistill import training
    from facedistill.cli.show import describe
    from facedistill.demo import with_demo_teachers

    training.train(with_demo_teachers(recipe), out)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        print(describe(str(out)))
