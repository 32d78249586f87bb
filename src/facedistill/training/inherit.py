"""The W of every teacher that brings one: made, and checked against the teacher before training."""

from collections.abc import Mapping

import numpy as np

from facedistill.check import require_fit
from facedistill.data import Dataset, Embeddings
from facedistill.errors import UsageError, UserError
from facedistill.files import cache_dir, fingerprint
from facedistill.head import Classifier, Margin, centres, fit_classifier, instances, random_classifier
from facedistill.models import Model, embed_dataset
from facedistill.recipe import MethodSpec, Recipe
from facedistill.terms import MarginSoftmax, Term

CHECKED_IMAGES = 2000  # of a teacher that brings its classifier, before training against it


def _heads(method: MethodSpec, terms: Mapping[str, tuple[Term, float, str]]) -> dict[str, Term]:
    """The first term that needs a W, of every teacher that brings one; where none does, of one W for all terms."""
    heads: dict[str, Term] = {}
    for term, _, teacher in terms.values():
        if term.needs_weight:
            heads.setdefault(teacher, term)
    if method.classifier.start in (None, "random") and method.classifier.moved_by != "teacher":
        return dict(list(heads.items())[:1])
    return heads


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
        return random_classifier(train.class_names, dim, int(run, 16) >> 1)
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
        return centres(embeddings[name])
    if start == "instances":
        return instances(embeddings[name])
    margin, scale = _margin_of(head)
    return fit_classifier(embeddings[name], margin, scale)


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


def _margin_of(term: Term) -> tuple[Margin, float]:
    if not isinstance(term, MarginSoftmax):
        raise UsageError("method.classifier.start=fitted needs the term margin_softmax, whose margin and scale it uses")
    return term.margin, term.scale
