"""The last stage: the network before a recogniser, end to end, against what the recipe's method asks.

It is an ordinary training run whose student is the composed model: by default ProxylessKD, so that the loss is against
the teacher's inherited classifier.
"""

from dataclasses import replace
from pathlib import Path

from facedistill import training
from facedistill.errors import UsageError
from facedistill.hallucination.composed import NAME, compose
from facedistill.hallucination.starts import JOINT, start_of
from facedistill.models import load_model, save_model
from facedistill.recipe import Hallucination, Recipe, Student, ViewSpec

COMPOSED = "composed"


def train_jointly(recipe: Recipe, settings: Hallucination, out: Path) -> Path:
    """Train the network before the recogniser `student.start`, end to end, by the recipe's method."""
    if not recipe.student.start:
        raise UsageError(
            "hallucinate train: stage joint needs a trained recogniser: set student.start to its model or run"
        )
    network, _ = start_of(settings, out, JOINT)
    model = compose(network, settings.size, load_model(recipe.student.start, classifier=False))
    start = out / f"{COMPOSED}-{model.fingerprint()}"  # of other parts it is another folder, and another recipe
    if not (start / "config.json").exists():
        save_model(model, start)
    assert model.backbone is not None
    options = {
        key: value
        for key, value in model.backbone.spec["options"].items()
        if key not in ("embedding_dim", "input_size")
    }
    student = Student(NAME, options, settings.size, model.embedding_dim, start=str(start))
    view = recipe.method.view if recipe.method.view.kind else ViewSpec("degrade")
    method = replace(recipe.method, view=view)
    return training.train(replace(recipe, student=student, method=method, hallucination=None), out / JOINT)
