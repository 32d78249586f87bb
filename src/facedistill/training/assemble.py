"""From a recipe to the parts of a run: data, teachers, W, student, method."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from facedistill import parallel
from facedistill.data import Batch, Dataset, Embeddings, Sampler, View, make_sampler
from facedistill.errors import UsageError, UserError, some
from facedistill.evaluation import EvaluationSet, open_sets, protocols_of, protocols_of_task
from facedistill.models import Model, load_model
from facedistill.progress import say
from facedistill.recipe import Recipe
from facedistill.run import epoch_file
from facedistill.training.images import embed_training_images, open_training_data
from facedistill.training.inherit import (
    hold_weights,
    home_of,
    make_classifier,
    require_covered,
    require_own_images,
    terms_with_classifier,
)
from facedistill.training.kinds import require_kind
from facedistill.training.labels import require_apart, require_labels
from facedistill.training.method import Method, WiredTerm, teacher_needs, wire_terms
from facedistill.training.resolved import ResolvedMethod
from facedistill.training.student import make_student
from facedistill.training.teacher import Teacher

Needs = Mapping[str, frozenset[str]]  # the outputs that each teacher gives at every step, by its name


@dataclass
class Assembly:
    """The parts of a run.

    Attributes:
        models: the teachers' models, for evaluation.
        origin: the origin of the first W, or None without a W.
        a_row_an_image: True if W has a row for every image, so that an image's number is its label.
        sets: the student's evaluation sets by name: the recipe's, and the held-out identities.
        view: what the networks see. It changes images by themselves where they are decoded, and batches in `method`.
        embedded: the number of images, mirror images included, that teachers embed before training, or embedded when
            the cache was made.
    """

    train: Dataset
    held_out: Dataset | None
    sampler: Sampler
    method: Method
    models: dict[str, Model]
    origin: str | None
    a_row_an_image: bool
    sets: dict[str, EvaluationSet]
    view: View
    embedded: int


def assemble(recipe: Recipe, method: ResolvedMethod) -> Assembly:
    """Load the teachers, open the data, make W and the student, and wire the terms to them.

    Raises:
        UserError: recipe, data, teachers, W or terms do not fit together.
    """
    terms = wire_terms(method)
    models = {name: load_model(spec.model).to(parallel.device()) for name, spec in recipe.teachers.items()}
    _do_without(terms, models)
    asked = teacher_needs(terms, method.moved_by)
    refuse_contradictions(method, terms)
    _require_networks(asked, models, method.view)
    epochs = _epochs(recipe, method, asked, models)
    sets = open_sets(recipe.evaluation.sets)  # fails before hours of training, not after
    for name, one in sets.items():
        protocols_of(one, name, protocols_of_task(recipe.task, sets))
    train, held_out = open_training_data(recipe.data, recipe.task == "classification")
    require_kind(recipe, method.view, terms, models, train)
    require_labels(method, terms, train)
    require_apart(train, sets)
    if held_out is not None:
        sets |= open_sets({"hold-out": held_out})

    heads = terms_with_classifier(method, terms)
    cached = _cached(recipe, method, asked, epochs)
    made_of = {name for name in heads if name in models and "embeddings" in method.start.needs}
    made_of |= _tables(terms, models)
    with parallel.first_here():  # the others find in the cache what the first one embedded
        embedding = {n: models[n] for n in models if n in cached | made_of}
        embeddings, train = embed_training_images(embedding, train, recipe.data.mirror)

    home = home_of(method, terms, models)
    space_dim = models[home].embedding_dim if home else None
    classifiers = {
        name: make_classifier(recipe, method, term, name, models, train, embeddings, space_dim)
        for name, term in heads.items()
    }
    require_covered(terms, classifiers, train)
    classifier = next(iter(classifiers.values()), None)
    student = make_student(recipe, models, classifier, space_dim)
    for wired in terms.values():
        if wired.term.needs_table:
            wired.term.bind_table(embeddings[wired.teacher], models[wired.teacher].classifier)
    teachers = _teachers(models, terms, asked, train, {name: embeddings[name] for name in cached}, epochs)
    for name in classifiers.keys() & models.keys():
        require_own_images(recipe, method, classifiers[name], heads[name], models[name], train, embeddings.get(name))
    weights = hold_weights(method, classifiers, terms, home, student.embedding_dim, train)
    first = weights.pop(next(iter(weights))) if weights else None
    composed = Method(student, first, teachers, terms, _of_batches(method.view, recipe.seed), weights)
    _require_trained(composed)
    return Assembly(
        train,
        held_out,
        make_sampler(
            *(method.sampler, train.labels, recipe.schedule.batch, recipe.seed, train.weights, recipe.data.mirror),
            **method.sampler_options,
        ),
        composed,
        models,
        classifier.origin if classifier else None,
        method.start.a_row_an_image,
        sets,
        method.view,
        sum(e.vectors.shape[0] * e.vectors.shape[1] for e in embeddings.values()),
    )


def _require_trained(composed: Method) -> None:
    if not any(parameter.requires_grad for parameter in composed.parameters()):
        raise UsageError(
            "student.frozen=true leaves nothing to train: W does not move either; set method.classifier.moved_by="
            "gradient, or student.frozen=false"
        )


def _of_batches(view: View, seed: int) -> Callable[[Batch], Batch] | None:
    """Return the view as a function of batches; None if the processes that decode do its work."""
    return None if view.by_image else partial(view, seed=seed)


def _do_without(terms: Mapping[str, WiredTerm], models: Mapping[str, Model]) -> None:
    """Take the stage features from what a term needs if it can do without them and its teacher has none; say so."""
    for key, wired in terms.items():
        model, term = models.get(wired.teacher), wired.term
        if model is None or "features" not in term.needs & term.optional:
            continue
        if model.backbone is None or not model.backbone.has_features:
            term.needs -= {"features"}
            if parallel.rank() == 0:
                say(f"term '{key}': teacher '{wired.teacher}' gives no stage maps, so its embedding alone is imitated")


def refuse_contradictions(method: ResolvedMethod, terms: Mapping[str, WiredTerm]) -> None:
    """Raise UsageError if the view rules out what moves W, if a W that something moves is not stored in fp32, or if a
    term compares classes where W has images."""
    for key, wired in terms.items():
        if method.start.a_row_an_image and "logits" in wired.term.needs:
            raise UsageError(
                f"term '{key}' compares the classes of student and teacher, but W has a row for every image "
                f"(method.classifier.start={method.spec.classifier.start}); choose another start, or set "
                f"method.terms.{key}.weight=0"
            )
    if why := method.view.rules_out.get(method.moved_by):
        raise UsageError(why)
    if method.rows != "fp32" and method.moved_by != "nothing":
        raise UsageError(
            f"method.classifier.rows={method.rows} needs a W that nothing moves, not one moved by {method.moved_by}; "
            "set fp32"
        )


def _require_networks(asked: Needs, models: Mapping[str, Model], view: View) -> None:
    """Raise UserError if a teacher cannot give the outputs that it is asked for, before anything long begins."""
    for name, needs in asked.items():
        if name not in models or not needs or not (view.teacher_sees or "features" in needs):
            continue
        backbone = models[name].backbone
        if backbone is None:
            sees = f"teacher '{name}' to see {view.teacher_sees}"
            what = sees if view.teacher_sees else f"the stage features of teacher '{name}'"
            raise UserError(
                f"method: a term needs {what}, but only its embeddings are known; import the teacher's checkpoint, or "
                "choose a method on embeddings of unchanged images"
            )
        if "features" in needs and not backbone.has_features:
            what = "a network of feature vectors" if backbone.takes_features else "an ONNX file"
            raise UserError(
                f"method: a term needs the stage features of teacher '{name}', but {what} gives its embedding "
                "alone; import the teacher's checkpoint, or choose a method on embeddings"
            )


def _tables(terms: Mapping[str, WiredTerm], models: Mapping[str, Model]) -> Set[str]:
    """Return the teachers whose embeddings of the training images a term reads before the first step."""
    needed = {wired.teacher: key for key, wired in terms.items() if wired.term.needs_table}
    for name, key in needed.items():
        if name not in models:
            raise UsageError(f"term '{key}' needs the teacher '{name}'; the recipe has: {', '.join(models) or 'none'}")
    return needed.keys()


def _epochs(recipe: Recipe, method: ResolvedMethod, asked: Needs, models: Mapping[str, Model]) -> dict[str, list[Path]]:
    """Return the files of each epoch's weights, by teacher, if the method trains with them."""
    if method.teacher_epoch == "last":
        return {}
    epochs = {name: _epoch_files(recipe, name) for name in models if asked.get(name)}
    if any("logits" in asked[name] for name in epochs):
        raise UsageError("a teacher's W is that of its last epoch: its logits need method.teacher_epoch=last")
    return epochs


def _epoch_files(recipe: Recipe, name: str) -> list[Path]:
    """Return as many files as the student has epochs. Raises UserError if there are fewer or more."""
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


def _cached(recipe: Recipe, method: ResolvedMethod, asked: Needs, epochs: Mapping[str, list[Path]]) -> Set[str]:
    """Return the teachers that answer from a cache: it holds the finished teacher's outputs for unchanged images."""
    found = {
        name
        for name, spec in recipe.teachers.items()
        if spec.cache and name not in epochs and asked.get(name) and asked[name] <= Teacher.CACHED
    }
    if not method.view.teacher_sees:
        return found
    for name in sorted(found) if parallel.rank() == 0 else ():
        say(
            f"teacher '{name}' sees {method.view.teacher_sees}, so its network runs at every step: its cached "
            "embeddings are those of clean images"
        )
    return frozenset()


def _teachers(
    models: Mapping[str, Model],
    terms: Mapping[str, WiredTerm],
    asked: Needs,
    train: Dataset,
    caches: Mapping[str, Embeddings],
    epochs: Mapping[str, list[Path]],
) -> dict[str, Teacher]:
    """Return the frozen teachers; those that give logits have their classifier in the order of the classes."""
    found = {}
    whole = {w.teacher for w in terms.values() if "logits" in w.term.needs and not w.term.knows_a_subset}
    for name, model in models.items():
        logits = "logits" in asked.get(name, ())
        own = model.classifier if logits else None
        if own is not None:
            known = set(train.targets if name in whole else own.class_names)
            if not known & set(train.targets):
                raise UserError(
                    f"teacher '{name}' knows none of the {len(train.targets)} classes or labels of the data "
                    f"({some(train.targets)}); train one on this data, e.g. by the recipe bce, or with data.subset"
                )
            own = own.select([target for target in train.targets if target in known])
        found[name] = Teacher(name, model, own, caches.get(name), epochs.get(name, ()))
    return found
