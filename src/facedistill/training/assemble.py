"""From a recipe to the things that train: data, teachers, W, student, method."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from facedistill import parallel
from facedistill.backbones import OnnxBackbone
from facedistill.data import Dataset, mixup
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import EvaluationSet, open_sets
from facedistill.head import ClassWeight
from facedistill.methods import resolve
from facedistill.models import Model, load_model
from facedistill.recipe import Recipe
from facedistill.run import epoch_file
from facedistill.training.images import _embed, open_training_data
from facedistill.training.inherit import _heads, _make_classifier, _require_fit
from facedistill.training.method import Method, build_terms, teacher_needs
from facedistill.training.student import make_student
from facedistill.training.teacher import Teacher


@dataclass
class Assembly:
    """What a run works with.

    Attributes:
        models: the teachers' models, for evaluation.
        sets: what the student is evaluated on, by name: the recipe's, and the held-out identities.
        embedded: how often a teacher's network embeds an image before training (or did, when the cache was made).
    """

    train: Dataset
    held_out: Dataset | None
    method: Method
    models: dict[str, Model]
    origin: str | None
    sets: dict[str, EvaluationSet]
    embedded: int


def assemble(recipe: Recipe) -> Assembly:
    """Open the data, load the teachers, make W and the student. Raises UserError for whatever does not fit."""
    method = resolve(recipe.method)
    terms = build_terms(method)
    models = {name: load_model(spec.model).to(parallel.device()) for name, spec in recipe.teachers.items()}
    asked = teacher_needs(terms, method.classifier.moved_by)
    mixed = method.view.kind == "mixup"
    if mixed and method.classifier.moved_by == "teacher":
        raise UsageError("a W that the teacher moves cannot follow mixed images; set method.view.kind=same")
    moved_by, stored = method.classifier.moved_by or "nothing", method.classifier.rows or "fp32"
    if stored != "fp32" and moved_by != "nothing":
        raise UsageError(
            f"method.classifier.rows={stored} needs a W that nothing moves, not one moved by {moved_by}; set fp32"
        )
    _require_networks(asked, models, mixed)
    epochs = {name: _epochs(recipe, name) for name in models if asked.get(name) and method.teacher_epoch == "same"}
    if any("logits" in asked[name] for name in epochs):
        raise UsageError("a teacher's W is that of its last epoch: its logits need method.teacher_epoch=last")
    sets = open_sets(recipe.evaluation.sets)  # before hours of training, not after
    train, held_out = open_training_data(recipe.data)
    if held_out is not None:
        sets |= open_sets({"hold-out": held_out})
    needs = {name: asked.get(name, frozenset()) for name in models}
    # A cache knows the images as they are, not mixed, and the teacher as it is at last.
    cached = {
        name
        for name in models
        if recipe.teachers[name].cache and needs[name] and needs[name] <= Teacher.CACHED
        if not mixed and name not in epochs
    }
    heads = _heads(method, terms)
    made_of = set(heads) & set(models) if method.classifier.start in ("centres", "fitted", "instances") else set()
    with parallel.first_here():  # the others find in the cache what the first one embedded
        embeddings, train = _embed({name: models[name] for name in models if name in cached | made_of}, train)
    # A term that anchors, or a W that the teacher moves, is in the teacher's space: then all has its dimension.
    moved = method.classifier.moved_by == "teacher"
    anchors = [
        models[teacher].embedding_dim
        for term, _, teacher in terms.values()
        if (term.anchors or (term.needs_weight and moved)) and teacher in models
    ]
    space_dim = anchors[0] if anchors else None
    classifiers = {
        name: _make_classifier(recipe, method, head, name, space_dim, models, train, embeddings)
        for name, head in heads.items()
    }
    classifier = next(iter(classifiers.values()), None)
    student = make_student(recipe, models, classifier, space_dim)
    teachers = {}
    for name, model in models.items():
        own = model.classifier.select(train.class_names) if "logits" in needs[name] and model.classifier else None
        teachers[name] = Teacher(name, model, own, embeddings[name] if name in cached else None, epochs.get(name, ()))
    for name, made in classifiers.items():
        if name in models and made.origin != "random" and parallel.rank() == 0:  # it reads all of W
            _require_fit(recipe, made, heads[name], models[name], train, embeddings.get(name))
    whole = any(term.whole_weight for term, _, _ in terms.values())
    # The student lives in the first W's space; the spaces of other teachers are reached by a projection each.
    weights = {
        name: ClassWeight(made, moved_by, None if made is classifier else student.embedding_dim, stored, whole)
        for name, made in classifiers.items()
    }
    weight = weights.pop(next(iter(weights))) if weights else None
    origin = classifier.origin if classifier else None
    embedded = sum(e.vectors.shape[0] * e.vectors.shape[1] for e in embeddings.values())
    assert method.view.alpha is not None  # resolved
    view = partial(mixup, alpha=method.view.alpha, seed=recipe.seed) if mixed else None
    trained = Method(student, weight, teachers, terms, view, weights)
    return Assembly(train, held_out, trained, models, origin, sets, embedded)


def _require_networks(asked: Mapping[str, frozenset[str]], models: dict[str, Model], mixed: bool) -> None:
    """Refuse a teacher that cannot answer what it is asked at every step, before anything long begins."""
    for name, needs in asked.items():
        backbone = models[name].backbone if name in models else None
        if name not in models or not needs or not (mixed or "features" in needs):
            continue
        if backbone is None:
            what = "its network to see the mixed images" if mixed else "its stage features"
            raise UserError(
                f"method: a term needs of teacher '{name}' {what}, but only its embeddings are known; import the "
                "teacher's checkpoint, or choose a method on embeddings of images as they are"
            )
        if "features" in needs and isinstance(backbone, OnnxBackbone):
            raise UserError(
                f"method: a term needs of teacher '{name}' its stage features, but an ONNX file gives its embedding "
                "alone; import the teacher's checkpoint, or choose a method on embeddings"
            )


def _epochs(recipe: Recipe, name: str) -> list[Path]:
    """The weights that the teacher's run kept of each epoch: as many as the student has epochs."""
    folder = Path(recipe.teachers[name].model) / "epochs"
    wanted = [folder / epoch_file(epoch) for epoch in range(recipe.schedule.epochs)]
    if sorted(folder.glob("*.safetensors")) != wanted:
        missing = next((file.name for file in wanted if not file.exists()), None)
        lack = f"'{missing}' is missing" if missing else "there are more"
        raise UserError(
            f"teacher '{name}': the weights of its epochs are needed in {folder}, one for each of the student's "
            f"{len(wanted)}, but {lack}; train it with schedule.keep=epochs schedule.epochs={len(wanted)}, or set "
            "method.teacher_epoch=last"
        )
    return wanted
