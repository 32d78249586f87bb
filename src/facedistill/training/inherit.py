"""The W of every teacher: make it, check that it fits the teacher, and hold it during training."""

from collections.abc import Mapping

import numpy as np
import torch

from facedistill import parallel
from facedistill.check import require_fit, require_labels_fit
from facedistill.data import Dataset, Embeddings
from facedistill.errors import UsageError, UserError, some
from facedistill.files import cache_dir, fingerprint
from facedistill.head import Classifier, ClassWeight, Given
from facedistill.models import Model, embed_dataset
from facedistill.recipe import Recipe
from facedistill.terms import MarginSoftmax, MultiLabel, Term
from facedistill.training.method import WiredTerm
from facedistill.training.resolved import ResolvedMethod

CHECKED_IMAGES = 2000  # for the check before training against a teacher's classifier


def terms_with_classifier(method: ResolvedMethod, terms: Mapping[str, WiredTerm]) -> dict[str, Term]:
    """Return the first term of each teacher that needs a W, by the teacher's name.

    A W that does not come from a teacher is shared by all terms, so only the first of them is returned.
    """
    found: dict[str, Term] = {}
    for wired in terms.values():
        if wired.term.needs_weight:
            found.setdefault(wired.teacher, wired.term)
    if method.start.of_teacher or method.moved_by == "teacher":
        return found
    return dict(list(found.items())[:1])


def home_of(method: ResolvedMethod, terms: Mapping[str, WiredTerm], models: Mapping[str, Model]) -> str | None:
    """Return the name of the teacher in whose space the method wants the student, or None if that is left to its W.

    A term that anchors, or a W that the teacher moves, ties the student to its teacher's space.
    """
    moved = method.moved_by == "teacher"
    names = (
        wired.teacher
        for wired in terms.values()
        if wired.teacher in models and (wired.term.anchors or (wired.term.needs_weight and moved))
    )
    return next(names, None)


def make_classifier(
    recipe: Recipe,
    method: ResolvedMethod,
    term: Term,
    teacher: str,
    models: Mapping[str, Model],
    train: Dataset,
    embeddings: Mapping[str, Embeddings],
    space_dim: int | None,
) -> Classifier:
    """Make the W that `term` trains against.

    Args:
        teacher: the teacher's name. embeddings: those of the training images, by teacher, if the start needs them.
        space_dim: the dimension of the space that the method ties the student to, or None; see `home_of`.

    Raises:
        UsageError, UserError: the recipe lacks the teacher, the teacher its classifier, or the term its margin.
    """
    start, name = method.start, method.spec.classifier.start
    model = models.get(teacher)
    if start.of_teacher and model is None:
        raise UsageError(
            f"method {method.name}: W starts from '{name}' but the recipe has no teacher '{teacher}'; set teacher="
        )
    if "classifier" in start.needs and model is not None and model.classifier is None:
        raise UserError(
            f"teacher '{teacher}' brings no classifier; set method.classifier.start=centres (or fitted), or import it "
            "with --fit-classifier"
        )
    if "margin" in start.needs and not isinstance(term, MarginSoftmax):
        raise UsageError(
            f"method.classifier.start={name} needs the term margin_softmax, whose margin and scale it uses"
        )
    softmax = term if isinstance(term, MarginSoftmax) else None
    targets = _known(term, name, model, train) if term.knows_a_subset and isinstance(term, MarginSoftmax) else None
    found = start.make(
        Given(
            class_names=targets or train.targets,
            dim=space_dim or recipe.student.embedding_dim or (model.embedding_dim if model else 512),
            seed=_seed(recipe, method, train),
            classifier=model.classifier if model and "classifier" in start.needs else None,
            embeddings=embeddings[teacher] if "embeddings" in start.needs else None,
            margin=softmax.margin if softmax else None,
            scale=softmax.scale if softmax else None,
        )
    )
    found.of_teacher = start.of_teacher
    if train.multi_hot is not None and found.bias is None and not start.a_row_an_image:
        found.bias = log_odds(torch.from_numpy(train.target_counts), len(train))
    return found


def _known(term: Term, start: str | None, model: Model | None, train: Dataset) -> list[str]:
    """Return the classes of the data that a subset teacher knows."""
    if start != "teacher" or model is None or model.classifier is None:
        raise UsageError(
            f"method.classifier.start={start}: a subset is that of the classes which a teacher's own W knows; set "
            "teacher, and no further start"
        )
    known = set(model.classifier.class_names)
    found = [target for target in train.targets if target in known]
    if not found:
        raise UserError(
            f"teacher: its W knows none of the {len(train.targets)} classes of the data ({some(train.targets)}); train "
            "it on this data, with data.subset"
        )
    return found


def require_covered(terms: Mapping[str, WiredTerm], classifiers: Mapping[str, Classifier], train: Dataset) -> None:
    """Raise UserError if no teacher knows a class of the data, and no other term would train on its images."""
    if not classifiers or not all(wired.term.needs_weight and wired.term.knows_a_subset for wired in terms.values()):
        return
    known = {name for classifier in classifiers.values() for name in classifier.class_names}
    if missing := [target for target in train.targets if target not in known]:
        raise UserError(
            f"data: {len(missing)} of {len(train.targets)} classes are in no teacher's subset ({some(missing)}); add a "
            "teacher that knows them, or leave them out"
        )


def log_odds(counts: torch.Tensor, images: int) -> torch.Tensor:
    """Return log(n / (N - n)) of each label, float32 (L,): the bias with which it is as likely as in the data."""
    n = counts.double().clamp(0.5, images - 0.5)
    return (n / (images - n)).log().float()


def require_own_images(
    recipe: Recipe,
    method: ResolvedMethod,
    classifier: Classifier,
    term: Term,
    teacher: Model,
    train: Dataset,
    known: Embeddings | None,
) -> None:
    """Raise UserError if the teacher does not know its own images through W. The first process checks all of W.

    A W with a row per image fits by construction, and a random one is not the teacher's.

    Args:
        known: the teacher's embeddings of the training images, if they were made.
    """
    if not method.start.of_teacher or method.start.a_row_an_image or parallel.rank() != 0:
        return
    if isinstance(term, MultiLabel) and teacher.backbone is not None and recipe.check.own_class:
        require_labels_fit(teacher, classifier, train, cache_dir() / "embeddings")
    if not isinstance(term, MarginSoftmax) or teacher.backbone is None:
        return
    if known is None:
        part = train.with_labels(classifier.class_names) if term.knows_a_subset else train
        chosen = np.random.default_rng(0).permutation(len(part))[:CHECKED_IMAGES]
        known = embed_dataset(teacher, part.subset(np.sort(chosen)), cache=cache_dir() / "embeddings")
    require_fit(classifier, known, term.margin, term.scale, recipe.check.own_class)


def hold_weights(
    method: ResolvedMethod,
    classifiers: Mapping[str, Classifier],
    terms: Mapping[str, WiredTerm],
    home: str | None,
    student_dim: int,
    train: Dataset,
) -> dict[str, ClassWeight]:
    """Return the ClassWeight of each classifier, by teacher.

    The student lives in the space of `home` (see `home_of`), else in the first one's. A projection leads to the space
    of each other teacher's W.
    """
    counts = None if method.start.a_row_an_image else torch.from_numpy(train.target_counts)
    place = {target: i for i, target in enumerate(train.targets)}
    whole = any(wired.term.whole_weight for wired in terms.values())
    home = home or next(iter(classifiers), None)
    abroad = method.start.of_teacher or method.moved_by == "teacher"
    found = {}
    for name, classifier in classifiers.items():
        partly = counts is not None and list(classifier.class_names) != list(train.targets)
        rows = [place[of] for of in classifier.class_names] if partly else slice(None)
        found[name] = ClassWeight(
            *(classifier, method.moved_by, student_dim if abroad and name != home else None, method.rows, whole),
            *(None if counts is None else counts[rows], len(train), train.targets if partly else None),
        )
    return found


def _seed(recipe: Recipe, method: ResolvedMethod, train: Dataset) -> int:
    """Return W's seed. The recipe's alone would give a student the same first rows as a teacher of the same seed."""
    written = str(method.spec).replace("SamplerSpec(", "Sampler(").replace("ViewSpec(", "View(")  # as earlier versions
    return int(fingerprint(recipe.seed, recipe.student, written, recipe.schedule, train.fingerprint), 16) >> 1
