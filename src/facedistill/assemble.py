"""From a recipe to the things that train: data, teachers, W, student, method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from facedistill import parallel, starts
from facedistill.backbones import OnnxBackbone, create_backbone
from facedistill.check import require_fit
from facedistill.checkpoint import epoch_file
from facedistill.classifier import Classifier, ClassWeight
from facedistill.data.dataset import Dataset, open_dataset
from facedistill.data.split import hold_out
from facedistill.data.views import mixup
from facedistill.embed import Embeddings, embed_dataset
from facedistill.errors import UsageError, UserError
from facedistill.evaluation.sets import EvaluationSet, open_sets
from facedistill.files import cache_dir, fingerprint
from facedistill.margins import Margin
from facedistill.methods import Method, build_terms, resolve, teacher_needs
from facedistill.model import InputSpec, Model, load_model
from facedistill.recipe import Data, MethodSpec, Recipe
from facedistill.teacher import Teacher
from facedistill.terms import MarginSoftmax, Term

IN_MEMORY_BYTES = 2 << 30
CHECKED_IMAGES = 2000  # of a teacher that brings its classifier, before training against it


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


def _heads(method: MethodSpec, terms: Mapping[str, tuple[Term, float, str]]) -> dict[str, Term]:
    """The first term that needs a W, of every teacher that brings one; where none does, of one W for all terms."""
    heads: dict[str, Term] = {}
    for term, _, teacher in terms.values():
        if term.needs_weight:
            heads.setdefault(teacher, term)
    if method.classifier.start in (None, "random") and method.classifier.moved_by != "teacher":
        return dict(list(heads.items())[:1])
    return heads


def open_training_data(data: Data) -> tuple[Dataset, Dataset | None]:
    """Open the training images, in memory where they fit, and split off the held-out identities."""
    dataset = open_dataset(data.train, max_unreadable=data.max_unreadable)
    height, width = dataset.shape
    fits = len(dataset) * height * width * 3 <= IN_MEMORY_BYTES
    if data.in_memory or (data.in_memory is None and fits):
        dataset = dataset.in_memory()
    if not data.hold_out:
        return dataset, None
    return hold_out(dataset, data.hold_out, data.hold_out_seed)


def _embed(models: dict[str, Model], train: Dataset) -> tuple[dict[str, Embeddings], Dataset]:
    """Embed the training set, both flips, cached on disk; images that cannot be read leave the training set."""
    embeddings: dict[str, Embeddings] = {}
    for name, model in models.items():
        embeddings[name] = embed_dataset(model, train, cache=cache_dir() / "embeddings")
        if len(embeddings[name]) < len(train):
            readable = set(embeddings[name].keys)
            return _embed(models, train.subset([i for i, key in enumerate(train.keys) if key in readable]))
    return embeddings, train


def _make_classifier(
    recipe: Recipe,
    method: MethodSpec,
    head: Term,
    name: str,
    space_dim: int | None,
    models: dict[str, Model],
    train: Dataset,
    embeddings: dict[str, Embeddings],
) -> Classifier:
    start = method.classifier.start
    if start is None:
        raise UsageError(
            f"method {method.name} has no W, and one of its terms needs one; set method.classifier.start "
            "(random, teacher, centres, fitted or instances) and method.classifier.moved_by"
        )
    if start == "random":
        free = recipe.student.embedding_dim or (models[name].embedding_dim if name in models else 512)
        dim = space_dim or free
        # Not the seed alone: the same rows as a teacher's first ones would put both into one space by chance.
        run = fingerprint(recipe.seed, recipe.student, recipe.method, recipe.schedule, train.fingerprint)
        return starts.random_classifier(train.class_names, dim, int(run, 16) >> 1)
    if name not in models:
        raise UsageError(
            f"method {method.name}: W starts from '{start}' but the recipe has no teacher '{name}'; set teacher="
        )
    if start == "teacher":
        own = models[name].classifier
        if own is None:
            raise UserError(
                f"teacher '{name}' brings no classifier; set method.classifier.start=centres (or fitted), or import it "
                "with --fit-classifier"
            )
        return own.select(train.class_names)
    if start == "centres":
        return starts.centres(embeddings[name])
    if start == "instances":
        return starts.instances(embeddings[name])
    margin, scale = _margin_of(head)
    return starts.fit_classifier(embeddings[name], margin, scale)


def _require_fit(
    recipe: Recipe, classifier: Classifier, head: Term | None, teacher: Model, train: Dataset, known: Embeddings | None
) -> None:
    """Refuse a W through which the teacher does not know its own images; a W of instances fits by construction."""
    if not isinstance(head, MarginSoftmax) or classifier.origin == "instances" or teacher.backbone is None:
        return
    if known is None:
        some = np.random.default_rng(0).permutation(len(train))[:CHECKED_IMAGES]
        known = embed_dataset(teacher, train.subset(np.sort(some)), cache=cache_dir() / "embeddings")
    require_fit(classifier, known, head.margin, head.scale, recipe.check.own_class)


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


def _margin_of(term: Term) -> tuple[Margin, float]:
    if not isinstance(term, MarginSoftmax):
        raise UsageError("method.classifier.start=fitted needs the term margin_softmax, whose margin and scale it uses")
    return term.margin, term.scale


def make_student(
    recipe: Recipe, models: dict[str, Model], classifier: Classifier | None, space_dim: int | None = None
) -> Model:
    """Make the student: its embedding size is the teacher's unless the recipe says otherwise.

    One that starts from another model takes over its weights, preprocessing and offset.

    `space_dim`: the size of a space that the method ties it to.
    """
    spec = recipe.student
    if twice := [name for name in ("embedding_dim", "input_size") if name in spec.options]:
        raise UsageError(f"student.options.{twice[0]}: set student.{twice[0]} instead")
    wanted = classifier.dim if classifier else space_dim
    dim = spec.embedding_dim or wanted or next((m.embedding_dim for m in models.values()), 512)
    if wanted and dim != wanted and not spec.projection:
        raise UsageError(
            f"student.embedding_dim is {dim} but the teacher's space has {wanted} dimensions; drop it to use {wanted}, "
            "or set student.projection=true to add a linear layer that the model keeps"
        )
    backbone = create_backbone(spec.backbone, embedding_dim=dim, input_size=spec.input_size, **spec.options)
    projection = None
    if wanted and dim != wanted:
        projection = nn.Linear(dim, wanted, bias=False)
    if not spec.start:
        return Model(backbone, input=InputSpec(size=spec.input_size), projection=projection)
    start = load_model(spec.start)
    if start.backbone is None:
        raise UserError(f"student.start {spec.start}: an embeddings-only model has no weights to start from")
    student = Model(backbone, replace(start.input, size=spec.input_size), offset=start.offset, projection=projection)
    _load_weights(student, start, spec.start)
    return student


def _load_weights(student: Model, start: Model, path: str) -> None:
    own, other = student.state_dict(), start.state_dict()
    for name, tensor in own.items():
        if name not in other or other[name].shape != tensor.shape:
            found = tuple(other[name].shape) if name in other else "absent"
            raise UserError(f"student.start {path}: '{name}' is {found}, the student expects {tuple(tensor.shape)}")
    student.load_state_dict(other, strict=False)
