"""Methods: named rows of data (terms + classifier + sampler), and the module that puts a row to work."""

from dataclasses import replace

from facedistill.errors import UsageError, closest
from facedistill.recipe import ClassifierSpec, MethodSpec, Sampler, TermSpec, View

LEARNED = ClassifierSpec("random", "gradient")


INHERITED = ClassifierSpec("teacher", "nothing")


SOFTMAX = {"margin_softmax": TermSpec()}


# Two labels an image leave no one class to keep a margin to.
STKD = {
    "margin_softmax": TermSpec(options={"margin": "cosface", "margin_options": {"size": 0.0}}),
    "soft_targets": TermSpec(),
}


PK = Sampler("pk")


def _rival(name: str, weight: float = 1.0, sampler: Sampler | None = None) -> MethodSpec:
    """A term of the method's own name beside the margin softmax, at its published weight where there is one."""
    return MethodSpec(name, LEARNED, {**SOFTMAX, name: TermSpec(weight)}, sampler or Sampler())


METHODS: dict[str, MethodSpec] = {
    row.name: row
    for row in [
        MethodSpec("scratch", LEARNED, SOFTMAX),
        MethodSpec("proxylesskd", INHERITED, SOFTMAX),
        MethodSpec("proxylesskd_finetune", ClassifierSpec("teacher", "gradient"), SOFTMAX),
        MethodSpec("l2kd", ClassifierSpec(), {"embedding_l2": TermSpec()}),
        MethodSpec("margin_softmax_l2", LEARNED, {**SOFTMAX, "embedding_l2": TermSpec()}),
        MethodSpec("kd", LEARNED, {**SOFTMAX, "soft_targets": TermSpec()}),
        _rival("fitnet", 100),
        _rival("attention_transfer", 1000),
        _rival("shrinkteanet"),
        _rival("triplet_distillation", sampler=PK),
        _rival("similarity_preserving", 3000),
        _rival("rkd"),
        _rival("darkrank"),
        _rival("pkt", 469),
        _rival("cckd", 1000, PK),  # no weight is published; at 1 its gradient is 2,000 times below the softmax's
        _rival("ekd", sampler=PK),
        # 100 times a mean over the 128 dimensions of PocketNetS-128 too.
        MethodSpec("pocketnet", LEARNED, {**SOFTMAX, "embedding_l2": TermSpec(0.78)}, teacher_epoch="same"),
        MethodSpec("stkd", LEARNED, STKD, view=View("mixup")),
        MethodSpec("adadistill", ClassifierSpec("random", "teacher"), SOFTMAX),
        MethodSpec("margin_distillation", INHERITED, {"margin_distillation": TermSpec()}),
    ]
}


def resolve(method: MethodSpec) -> MethodSpec:
    """Return the method with its row's values where the recipe says nothing; resolving twice changes nothing.

    A term that the recipe removes stays, with weight 0. Raises UsageError for an unknown name.
    """
    if method.name not in METHODS:
        raise UsageError(
            f"method '{method.name}' is unknown{closest(method.name, METHODS)}; known: {', '.join(METHODS)}"
        )
    row = METHODS[method.name]
    terms = dict(row.terms)
    for name, term in method.terms.items():
        base = terms.get(name, TermSpec())
        weight = base.weight if term.weight is None else term.weight
        usual = base.options
        if term.options.get("margin", usual.get("margin")) != usual.get("margin"):  # its options are of another margin
            usual = {key: value for key, value in usual.items() if key != "margin_options"}
        terms[name] = replace(term, weight=weight, term=term.term or base.term, options={**usual, **term.options})
    terms = {
        n: replace(t, weight=1.0 if t.weight is None else t.weight, options=dict(t.options)) for n, t in terms.items()
    }
    own = method.classifier
    classifier = ClassifierSpec(
        own.start or row.classifier.start, own.moved_by or row.classifier.moved_by, own.rows or "fp32"
    )
    sampler = Sampler(method.sampler.kind or row.sampler.kind or "uniform", method.sampler.k or row.sampler.k or 4)
    view = View(method.view.kind or row.view.kind or "same", method.view.alpha or row.view.alpha or 0.2)
    return MethodSpec(
        method.name, classifier, terms, sampler, view, method.teacher_epoch or row.teacher_epoch or "last"
    )


def describe(method: MethodSpec, origin: str | None) -> str:
    """Name the method as results print it: what differs from its row, and where an inherited W came from.

    Options and weights of terms are not named; the recipe holds them.
    """
    row = resolve(MethodSpec(method.name))
    extra = [f" + {n}" for n, term in method.terms.items() if term.weight and n not in row.terms]
    removed = [f" - {n}" for n, term in method.terms.items() if not term.weight and n in row.terms]
    for what, has, usual in (
        ("mixup", method.view.kind == "mixup", row.view.kind == "mixup"),
        ("epochs", method.teacher_epoch == "same", row.teacher_epoch == "same"),
    ):
        if has != usual:
            (extra if has else removed).append(f" + {what}" if has else f" - {what}")
    if method.classifier.moved_by != row.classifier.moved_by:
        extra.append(f" + W moved by {method.classifier.moved_by}")
    if method.sampler.kind != row.sampler.kind:
        extra.append(f" + {method.sampler.kind} sampler")
    name = "".join([method.name, *extra, *removed])
    unsaid = "random" if row.classifier.start == "random" else None
    return name if origin in (None, unsaid) else f"{name} (W: {origin})"
