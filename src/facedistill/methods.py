"""Methods: named rows of data (terms + classifier + sampler), and the module that puts a row to work."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from facedistill.classifier import ClassWeight
from facedistill.data.batch import Batch
from facedistill.errors import UsageError, closest
from facedistill.model import Model
from facedistill.recipe import ClassifierSpec, MethodSpec, Recipe, Sampler, TermSpec, View
from facedistill.teacher import Teacher
from facedistill.terms import Term, make_term

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


def missing_teachers(recipe: Recipe) -> list[str]:
    """Names of the teachers that the recipe's method asks for and the recipe does not give."""
    method = resolve(recipe.method)
    terms = build_terms(method)
    asked = {teacher for teacher, needs in teacher_needs(terms, method.classifier.moved_by).items() if needs}
    if method.classifier.start not in (None, "random"):
        asked |= {teacher for term, _, teacher in terms.values() if term.needs_weight}
    return sorted(asked - set(recipe.teachers))


def teacher_needs(terms: Mapping[str, tuple[Term, float, str]], moved_by: str | None) -> dict[str, frozenset[str]]:
    """What each teacher is asked for at every step: by its terms, and by a W that it moves."""
    needs: dict[str, frozenset[str]] = {}
    for term, _, teacher in terms.values():
        mover = {"embedding"} if term.needs_weight and moved_by == "teacher" else set()
        needs[teacher] = needs.get(teacher, frozenset()) | term.needs | mover
    return needs


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


class Method(nn.Module):
    """The only forward of training; DDP wraps this. Teachers stand outside the module tree.

    Args:
        student: the model that is trained.
        weight: its W, None where no term uses one.
        further: the W of other teachers, by name, which take the place of `weight` for those teachers' terms.
        teachers: by name.
        terms: by name: (term, weight, name of its teacher).
        view: what is done to each batch before both networks see it.
    """

    def __init__(
        self,
        student: Model,
        weight: ClassWeight | None,
        teachers: Mapping[str, Teacher],
        terms: Mapping[str, tuple[Term, float, str]],
        view: Callable[[Batch], Batch] | None = None,
        further: Mapping[str, ClassWeight] | None = None,
    ) -> None:
        super().__init__()
        self.student, self.weight, self.view = student, weight, view
        further = further or {}
        self.further = nn.ModuleList(further.values())
        self.terms = nn.ModuleDict({name: term for name, (term, _, _) in terms.items()})
        self.shares = {name: (share, teacher) for name, (_, share, teacher) in terms.items()}
        self.teachers = dict(teachers)
        self.features = any("features" in term.needs for term, _, _ in terms.values())
        asked = teacher_needs(terms, weight.moved_by if weight else None)
        self.needs = {name: asked.get(name, frozenset()) for name in teachers}
        self.moved: dict[str, ClassWeight] = {}  # by the teacher that moves it
        for name, (term, _, teacher) in terms.items():
            if asked[teacher] and teacher not in teachers:
                raise UsageError(
                    f"term '{name}' needs the teacher '{teacher}'; the recipe has: {', '.join(teachers) or 'none'}"
                )
            own = further.get(teacher, weight)
            if term.needs_weight and own is not None and own.moved_by == "teacher":
                self.moved[teacher] = own
            term.bind(own, teachers[teacher].classifier if teacher in teachers else None)
            if "features" in term.needs:
                term.bind_features(_stage_shapes(student), _stage_shapes(teachers[teacher].model))

    @property
    def weights(self) -> list[ClassWeight]:
        """Every W, the student's own first."""
        return [] if self.weight is None else [self.weight, *self.further]  # type: ignore[list-item]

    @property
    def anchors(self) -> str | None:
        """The name of the teacher whose space the student is tied to, or None."""
        for name, term in self.terms.items():
            if term.anchors:
                return self.shares[name][1]
        return None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return every term's weighted loss, by name."""
        if self.view is not None:
            batch = self.view(batch)
        student = self.student.outputs(batch.images, features=self.features)
        teachers = {name: teacher(batch, self.needs[name]) for name, teacher in self.teachers.items()}
        for name, weight in self.moved.items():
            output = teachers[name]
            assert output is not None
            weight.move(student.embedding, output.embedding, batch.targets[0][0])
        losses = {}
        for name, term in self.terms.items():
            share, teacher = self.shares[name]
            losses[name] = share * term(student, teachers.get(teacher), batch)
        return losses

    def start_epoch(self, epoch: int) -> None:
        for teacher in self.teachers.values():
            teacher.start_epoch(epoch)


def build_terms(method: MethodSpec) -> dict[str, tuple[Term, float, str]]:
    """Build a resolved method's terms, but those of weight 0. Raises UsageError for unknown terms and options."""
    terms = {
        name: (make_term(spec.term or name, spec.options), spec.weight, spec.teacher)
        for name, spec in method.terms.items()
        if spec.weight
    }
    if not terms:
        raise UsageError(f"method {method.name}: no term has a weight, so there is no loss; set method.terms.<name>=1")
    return terms


@torch.no_grad()
def _stage_shapes(model: Model) -> list[torch.Size]:
    """Shapes (C, h, w) of the model's stage maps; its statistics and mode stay as they are."""
    training, side = model.training, model.input_size
    try:
        output = model.eval().outputs(torch.zeros(1, 3, side, side, device=model.device))
    finally:
        model.train(training)
    return [stage.shape[1:] for stage in output.features]
