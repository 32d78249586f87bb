"""The module that puts a row of the method table to work: the only forward of training."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from facedistill.data import Batch
from facedistill.errors import UsageError
from facedistill.head import ClassWeight
from facedistill.methods import resolve
from facedistill.models import Model
from facedistill.recipe import MethodSpec, Recipe
from facedistill.terms import Term, make_term
from facedistill.training.teacher import Teacher


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
