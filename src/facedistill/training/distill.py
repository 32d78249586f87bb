"""From a teacher and photos to a recipe: choose where W starts, check that all fits, hint at better methods."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.check import check_teacher
from facedistill.data import Dataset
from facedistill.errors import UserError, some
from facedistill.files import cache_dir
from facedistill.head import Centres, Margin, Start
from facedistill.models import Model, load_model
from facedistill.recipe import Recipe, make_recipe
from facedistill.run import begun
from facedistill.terms import MarginSoftmax
from facedistill.training.assemble import refuse_contradictions, require_labels
from facedistill.training.images import open_images
from facedistill.training.method import WiredTerm, missing_teachers, teacher_needs, wire_terms
from facedistill.training.resolved import resolve

# With 1,560 identities, class centres as W lost by far; the paper recommends an inherited W with its 85,742. Nothing
# in between was measured; this is about their geometric mean.
FEW_IDENTITIES = 10_000
HOLD_OUT = 0.1
MOST_HELD_OUT = 50_000  # images, on average; they make more than a billion pairs, enough for a FAR of 1e-6
# With fewer, whose names may mean nothing, chance decides which input convention separates them better.
LEAST_IDENTITIES = 10
BEST = "--method proxylesskd_instances_l2 schedule.lr=0.3"
ON_FEW = (
    "with 1,560, imitating embeddings beat class centres by 20 to 33 points of TAR at FAR 1e-4, and the best was one "
    f"class per image plus L2 to the embeddings (docs/comparison.md); try {BEST}, or --method l2kd schedule.lr=1"
)
ON_UNLABELLED = f"one class per image was better with L2 to the embeddings beside it (docs/comparison.md); try {BEST}"


def distillation_recipe(
    teacher: Path,
    data: str | list[str],
    student: str,
    out: Path,
    method: str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Make the recipe of a distillation, and print the check of teacher and data unless the run in `out` has begun.

    W starts from class centres if the teacher's classifier lacks classes of the data; if no image has a label, it has a
    row for each.

    Args:
        data: a data set, or several.
        method: None leaves the choice to the program.
        overrides: key=value, see make_recipe.

    Raises:
        UserError: teacher and data do not fit.
    """
    raw: dict[str, Any] = {"data": {"train": data, "hold_out": HOLD_OUT}, "student": student, "teacher": str(teacher)}
    recipe = make_recipe(raw | {"method": method or "proxylesskd"}, overrides)
    dataset = open_images(recipe.data)
    if recipe.data.hold_out == HOLD_OUT and not any(o.startswith("data.hold_out=") for o in overrides):
        recipe = replace(recipe, data=replace(recipe.data, hold_out=_held_out(dataset)))
    resolved = resolve(recipe.method)
    terms = wire_terms(resolved)
    if not missing_teachers(replace(recipe, teachers={})):
        return recipe  # the method needs no teacher
    model = load_model(teacher)
    recipe = _with_start(recipe, model, dataset)
    resolved = resolve(recipe.method)
    start = resolved.start
    refuse_contradictions(resolved, terms)
    require_labels(resolved, terms, dataset)
    if begun(out):
        return recipe
    logits = any("logits" in needs for needs in teacher_needs(terms, "nothing").values())
    if "classifier" not in start.needs and not logits:
        model.classifier = None  # W is made of the teacher's embeddings, so its own classifier is not used
    # The teacher needs to know the classes only if W has a row for each class.
    by_class = logits or (start.of_teacher and not start.a_row_an_image)
    if unchecked := _unchecked(model, dataset, by_class):
        print(f"not checked: {unchecked}")
    else:
        least, cache = recipe.check.own_class if by_class else 0.0, cache_dir() / "embeddings"
        report = check_teacher(model, dataset, *_softmax(terms), least, images=600, cache=cache)
        print(report.text())
        if not report.passed:
            lower = ", or lower check.own_class to train anyway" if "own_class" in report.faults else ""
            sets = ", ".join(recipe.data.sets)
            raise UserError(f"{teacher} and {sets} do not fit, see above; nothing was trained: correct that{lower}")
    # A user who names the method, or W's start, needs no hint.
    named = ("method=", "method.name=", "method.classifier", "method.terms.embedding_l2")
    if method is None and not any(override.startswith(named) for override in overrides):
        _hint(start, dataset)
    return recipe


def _hint(start: Start, dataset: Dataset) -> None:
    """Print what was measured to be better than the start of W that the program chose."""
    if start.a_row_an_image:
        print(ON_UNLABELLED)
    elif isinstance(start, Centres) and len(dataset.class_names) < FEW_IDENTITIES:
        print(f"{len(dataset.class_names):,} classes are few: {ON_FEW}")


def _with_start(recipe: Recipe, model: Model, dataset: Dataset) -> Recipe:
    """Return the recipe, and say so, with another start of W if the teacher's classifier lacks classes of the data."""
    own = set(model.classifier.class_names if model.classifier else [])
    missing = [name for name in dataset.class_names if name not in own]
    given = recipe.method.classifier
    if "classifier" not in resolve(recipe.method).start.needs or given.start is not None or not missing:
        return recipe
    lacks = f"'s classifier lacks {len(missing):,} of {len(dataset.class_names):,} classes ({some(missing)})"
    start, rows = ("instances", "its embeddings") if dataset.unlabelled.all() else ("centres", "class centres")
    print(f"the teacher{lacks if own else ' has no classifier'}: W starts from {rows}")
    return replace(recipe, method=replace(recipe.method, classifier=replace(given, start=start)))


def _held_out(dataset: Dataset) -> float:
    """Return the share of the identities that is held out: a tenth, less of a huge set, nobody of unknown people."""
    images = np.count_nonzero(~dataset.extra)
    return min(HOLD_OUT, float(f"{MOST_HELD_OUT / images:.3g}")) if images else 0.0


def _unchecked(model: Model, dataset: Dataset, by_class: bool) -> str:
    """Return why the teacher cannot be checked against the data, or "" if it can be."""
    if model.backbone is None:
        return "only the teacher's embeddings are known, so nothing tells whether its classifier fits these images"
    if not by_class and (found := np.sum(np.bincount(dataset.labels) > 1)) < LEAST_IDENTITIES:
        return f"{found} classes have several images; {LEAST_IDENTITIES} are needed to tell if the teacher knows them"
    return ""


def _softmax(terms: Mapping[str, WiredTerm]) -> tuple[Margin, float]:
    """The margin and scale that the student is trained with."""
    softmax = (wired.term for wired in terms.values() if isinstance(wired.term, MarginSoftmax))
    term = next(softmax, None) or MarginSoftmax()
    return term.margin, term.scale
