"""The verbs that train: demo, train, distill, sweep."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from facedistill.cli.app import Flag, Folder, Repeated, answer, app
from facedistill.errors import UsageError

if TYPE_CHECKING:
    from facedistill.recipe import Recipe


@app.command(sort_key=1)
def demo(*, out: Folder = Path("demo-run"), quick: Annotated[bool, Flag] = False) -> None:
    """The whole story on synthetic faces, in minutes.

    Trains a teacher and three students, measures them on people never seen in training, and prints one table.

    Example: `facedistill demo --out demo-run`

    Parameters
    ----------
    out:
        The folder for the faces, models and results. If it exists, the demo makes only what is missing in it.
    quick:
        Run a smaller demo: two minutes, with a weaker teacher.
    """
    from facedistill.demo import run_demo

    run_demo(out, quick)


@app.command(sort_key=5)
def train(recipe: str, /, *overrides: str, out: Folder) -> None:
    """Train a teacher or a student from a recipe.

    The same command resumes a run that stopped. A shipped recipe runs unchanged, on synthetic faces with the demo's
    teacher.

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
    *overrides: str,
    teacher: Path,
    data: Annotated[list[str], Repeated],
    student: str = "mobilefacenet",
    out: Folder,
    method: str | None = None,
) -> None:
    """Distil a student from a teacher: check, train, evaluate.

    A tenth of the identities is held out for the evaluation, of more than 500,000 images less (data.hold_out). If the
    teacher has no classifier for these classes, one is made of class centres, and the result says so. If there are few
    identities, or no labels, and you name no method, a hint names a method that did better in that case. The same
    command resumes a run that stopped.

    Example: `facedistill distill --teacher teacher.onnx --data photos --out run student.options.width=0.5`

    Parameters
    ----------
    overrides:
        key=value: change the recipe, e.g. schedule.epochs=20.
    teacher:
        A model folder, a run, or an .onnx.
    data:
        The images to train on, with class names. Several data sets, `--data A --data B`, become one.
    student:
        The network (`facedistill list backbones`).
    out:
        The folder of the run: recipe, log, checkpoints, model, evaluation.
    method:
        How to distil (`facedistill list methods`). [default: proxylesskd]
    """
    from facedistill.training import distillation_recipe

    _train(distillation_recipe(teacher, data[0] if len(data) == 1 else data, student, out, method, overrides), out)


@app.command(sort_key=7)
def search(recipe: str, /, *overrides: str, out: Folder, train: Annotated[bool, Flag] = False) -> None:
    """Search the cells of a small network (PocketNet's way), on the recipe's data and for the recipe's method.

    Writes genotype.json, the network's cells, and a page with their picture. The same command resumes a search that
    stopped. --train then trains the network by the same recipe. `facedistill train` does it by another one:
    student.backbone=genotype student.options.file=RUN/genotype.json.

    Examples:

    `facedistill search scratch --out cells search.channels=4 search.cells=5 search.order=1 schedule.epochs=10`

    `facedistill search proxylesskd --out cells teacher=teacher data=photos search.latency=0.1`

    `facedistill search proxylesskd --out cells teacher=teacher data=photos --train student.options.channels=16`

    Parameters
    ----------
    recipe:
        A YAML file, or the name of a shipped recipe. Its method is the objective: proxylesskd chooses cells for the
        teacher's inherited classifier.
    overrides:
        key=value: change the recipe, e.g. search.order=1.
    out:
        The folder of the search: recipe, log, checkpoints, genotype.json, report.html.
    train:
        Then train the network of these cells, in OUT/student. student.options.channels and .depth are its own.
    """
    from facedistill import architecture_search
    from facedistill.cli.show import describe
    from facedistill.demo import with_demo_teachers
    from facedistill.recipe import load_recipe

    loaded = with_demo_teachers(load_recipe(recipe, overrides))
    if train:
        answer(describe(str(architecture_search.search_and_train(loaded, out))))
    else:
        answer(str(architecture_search.search(loaded, out) / architecture_search.GENOTYPE))


@app.command(sort_key=6)
def sweep(*recipes: str, out: Folder, plan: Annotated[bool, Flag] = False) -> None:
    """Train every combination of recipes and values, each in a folder of its own.

    Finished runs are skipped, and interrupted ones resume. Several processes with the same command share the runs.
    `facedistill compare OUT` then puts the results side by side.

    Example: `facedistill sweep l2kd proxylesskd --out runs seed=0,1,2 schedule.lr=0.3,1 schedule.epochs=20`

    Parameters
    ----------
    recipes:
        YAML files or names of shipped recipes, and key=value,value with one run for each value.
    out:
        The folder of the runs.
    plan:
        Only print the runs and the hours that they would take, estimated from measured images per second.
    """
    from facedistill import training
    from facedistill.demo import with_demo_teachers

    files = [text for text in recipes if "=" not in text]
    if not files:
        raise UsageError("sweep: RECIPES needs a value, e.g. facedistill sweep l2kd proxylesskd --out runs seed=0,1")
    runs = training.combinations(files, [text for text in recipes if "=" in text])
    runs = {name: with_demo_teachers(recipe) for name, recipe in runs.items()}
    if plan:
        answer(training.plan(runs, out))
    else:
        training.sweep(runs, out)


def _train(recipe: "Recipe", out: Path) -> None:
    """Train, with the demo's teacher if the recipe names none, and print the result."""
    from facedistill import training
    from facedistill.cli.show import describe
    from facedistill.demo import with_demo_teachers

    training.train(with_demo_teachers(recipe), out)
    if os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints
        answer(describe(str(out)))
