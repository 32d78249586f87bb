"""A resolved method: the recipe's values, the method's row in the table and the defaults, put together."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from facedistill.data import SAMPLERS, VIEWS, Sampler, View, make_view
from facedistill.errors import UsageError, closest
from facedistill.head import NoClassifier, Start, make_start
from facedistill.methods import METHODS
from facedistill.recipe import (
    ClassifierSpec,
    MethodSpec,
    MovedBy,
    Recipe,
    SamplerSpec,
    Stored,
    TeacherEpoch,
    TermSpec,
    ViewSpec,
    find,
)


@dataclass(frozen=True)
class ResolvedTerm:
    """One term of the loss.

    Attributes:
        kind: a name in TERMS, or `package.module:Class`. options: the arguments of its __init__.
        weight: its factor in the loss; 0 if the recipe removes the term.
        teacher: the name of its teacher.
    """

    kind: str
    options: Mapping[str, Any]
    weight: float
    teacher: str


@dataclass(frozen=True)
class ResolvedMethod:
    """A method with every value filled in.

    Attributes:
        start: where W starts; a NoClassifier if the method has no W.
        rows: how a W that nothing moves is stored.
        terms: by their key in the recipe.
        sampler: a name in SAMPLERS, or `package.module:Class`.
        spec: the same values in the form of a recipe.
    """

    name: str
    start: Start
    moved_by: MovedBy
    rows: Stored
    terms: Mapping[str, ResolvedTerm]
    sampler: str
    sampler_options: Mapping[str, Any]
    view: View
    teacher_epoch: TeacherEpoch
    spec: MethodSpec


def resolve(method: MethodSpec) -> ResolvedMethod:
    """Return the method, with the values of its row where the recipe gives none.

    Raises:
        UsageError: the method, its start, view or sampler is unknown, or an option does not fit.
    """
    if method.name not in METHODS:
        raise UsageError(
            f"method '{method.name}' is unknown{closest(method.name, METHODS)}; known: {', '.join(METHODS)}"
        )
    row = METHODS[method.name]
    own, usual = method.classifier, row.classifier
    start = own.start or usual.start
    moved_by, rows = own.moved_by or usual.moved_by, own.rows or "fp32"
    terms = _terms(method.terms, row.terms)
    sampler = method.sampler.kind or row.sampler.kind or "uniform"
    k = method.sampler.k or row.sampler.k or 4
    view = method.view.kind or row.view.kind or "same"
    alpha = method.view.alpha or row.view.alpha or 0.2
    teacher_epoch = method.teacher_epoch or row.teacher_epoch or "last"
    return ResolvedMethod(
        name=method.name,
        start=make_start(start, **own.options) if start else NoClassifier(method.name),
        moved_by=moved_by or "nothing",
        rows=rows,
        terms={
            key: ResolvedTerm(term.term or key, term.options, term.weight or 0.0, term.teacher)
            for key, term in terms.items()
        },
        sampler=sampler,
        sampler_options={**_taken(find(SAMPLERS, sampler, "sampler", Sampler), k=k), **method.sampler.options},
        view=make_view(view, **{**_taken(find(VIEWS, view, "view", View), alpha=alpha), **method.view.options}),
        teacher_epoch=teacher_epoch,
        spec=MethodSpec(
            method.name,
            ClassifierSpec(start, moved_by, rows, own.options),
            terms,
            SamplerSpec(sampler, k, method.sampler.options),
            ViewSpec(view, alpha, method.view.options),
            teacher_epoch,
        ),
    )


def resolved_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with its method written out in full, as a run folder keeps it."""
    return replace(recipe, method=resolve(recipe.method).spec)


def describe(method: MethodSpec, origin: str | None) -> str:
    """Return the name under which results print a resolved method: its differences from its row, and W's origin.

    Options and weights of terms are left out; the recipe holds them.
    """
    row = resolve(MethodSpec(method.name)).spec
    added = [f" + {n}" for n, term in method.terms.items() if term.weight and n not in row.terms]
    removed = [f" - {n}" for n, term in method.terms.items() if not term.weight and n in row.terms]
    for what, usual, plain in (
        (method.view.kind, row.view.kind, "same"),
        ("epochs" if method.teacher_epoch == "same" else "", "epochs" if row.teacher_epoch == "same" else "", ""),
    ):
        if what != usual:
            added += [f" + {what}"] * (what != plain)
            removed += [f" - {usual}"] * (usual != plain)
    if method.classifier.moved_by != row.classifier.moved_by:
        added.append(f" + W moved by {method.classifier.moved_by}")
    if method.sampler.kind != row.sampler.kind:
        added.append(f" + {method.sampler.kind} sampler")
    name = "".join([method.name, *added, *removed])
    unsaid = "random" if row.classifier.start == "random" else None
    return name if origin in (None, unsaid) else f"{name} (W: {origin})"


def _terms(own: Mapping[str, TermSpec], usual: Mapping[str, TermSpec]) -> dict[str, TermSpec]:
    """Return the row's terms with the recipe's changes, and the recipe's further terms, each with a weight."""
    found = dict(usual)
    for key, term in own.items():
        base = found.get(key, TermSpec())
        options = base.options
        if term.options.get("margin", options.get("margin")) != options.get("margin"):
            options = {name: value for name, value in options.items() if name != "margin_options"}  # of another margin
        weight = base.weight if term.weight is None else term.weight
        found[key] = replace(term, weight=weight, term=term.term or base.term, options={**options, **term.options})
    return {
        key: replace(term, weight=1.0 if term.weight is None else term.weight, options=dict(term.options))
        for key, term in found.items()
    }


def _taken(kind: type, **options: Any) -> dict[str, Any]:
    """Return the options that the class takes: a recipe holds `k` and `alpha` for any sampler and view."""
    return {name: value for name, value in options.items() if name in inspect.signature(kind).parameters}
