"""Do the labels of the training images fit what is trained on them? Refused before anything long begins."""

from collections.abc import Mapping

import numpy as np

from facedistill.data import SAMPLERS, Dataset, Sampler
from facedistill.errors import UsageError, UserError, some
from facedistill.evaluation import EvaluationSet
from facedistill.recipe import find
from facedistill.terms import TERMS
from facedistill.training.method import WiredTerm
from facedistill.training.resolved import ResolvedMethod


def require_labels(method: ResolvedMethod, terms: Mapping[str, WiredTerm], train: Dataset) -> None:
    """Raise UserError if a term, the start of W or the sampler cannot take the labels that the images have.

    Images have one class each, any number of labels, or no label.
    """
    if train.multi_hot is not None:
        _require_several(method, terms, train)
        return
    for key, wired in terms.items():
        if not wired.term.takes_one:
            raise UserError(
                f"term '{key}' takes images with several labels, but {train.source.path} gives each image one class; "
                "choose a method for classes, such as scratch or proxylesskd, or data with label columns "
                "(labels:table=FILE)"
            )
    _require_known(method, terms, train)


def _require_known(method: ResolvedMethod, terms: Mapping[str, WiredTerm], train: Dataset) -> None:
    """Raise UserError if images have no label and a term needs one.

    A W made of the teacher's embeddings has a row for each of these images, which is a class of its own.
    """
    unknown = int(train.unlabelled.sum())
    for key, wired in terms.items() if unknown else ():
        term, has_rows = wired.term, "embeddings" in method.start.needs
        if term.needs_labels or "logits" in term.needs or (term.needs_weight and not has_rows):
            instead = "" if term.needs_labels or has_rows else ", make W of the teacher's embeddings "
            instead += "(method.classifier.start=instances)" if instead else ""
            raise UserError(
                f"data: {unknown:,} of {len(train):,} images have no label, and the term '{key}' needs one; leave out "
                f"the unlabelled data{instead}, or choose a method without labels, such as l2kd"
            )


def _require_several(method: ResolvedMethod, terms: Mapping[str, WiredTerm], train: Dataset) -> None:
    path, start = train.source.path, method.spec.classifier.start
    for key, wired in terms.items():
        term = wired.term
        needs = term.needs_labels or "logits" in term.needs or (term.needs_weight and not method.start.a_row_an_image)
        if needs and not term.takes_several:
            able = ", ".join(name for name, kind in TERMS.items() if kind.takes_several)
            raise UserError(
                f"term '{key}' takes one class an image, but images of {path} may have several labels; terms that take "
                f"them: {able}; or choose a method without labels, such as l2kd"
            )
    several = any(wired.term.takes_several for wired in terms.values())
    if several and (method.start.a_row_an_image or "embeddings" in method.start.needs):
        raise UsageError(f"method.classifier.start={start}: images have several labels; set random or teacher")
    if several and method.moved_by == "teacher":
        raise UsageError("method.classifier.moved_by=teacher moves W by one class an image; set gradient or nothing")
    if find(SAMPLERS, method.sampler, "sampler", Sampler).needs_classes:
        raise UsageError(
            f"method.sampler.kind={method.sampler}: it draws images by their class, but images of {path} may have "
            "several labels; set uniform"
        )
    if several and (empty := [train.targets[i] for i in np.flatnonzero(train.target_counts == 0)]):
        raise UserError(
            f"data: no training image has the label {some(empty)} ({len(empty)} of {len(train.targets)} labels of "
            f"{path}); leave these columns out (without=), or take more images"
        )


def require_apart(train: Dataset, sets: Mapping[str, EvaluationSet]) -> None:
    """Raise UserError if the images of a patient, or another group, are in the training data and in a set."""
    if train.multi_hot is None or train.unlabelled.all():
        return
    for name, one in sets.items():
        for part in one.parts.values():
            both = sorted(set(train.class_names) & set(part.class_names))
            if part.multi_hot is not None and not part.unlabelled.all() and both:
                raise UserError(
                    f"{name}: {len(both):,} of its {len(part.class_names):,} groups, e.g. patients, are in the "
                    f"training data too ({some(both)}), so its figures would be too good; split the images by group"
                )
