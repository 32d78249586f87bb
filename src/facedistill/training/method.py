"""Terms wired to their teachers, and the module that combines them: the only forward of training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facedistill.data import Batch
from facedistill.errors import UsageError
from facedistill.head import ClassWeight
from facedistill.models import Model
from facedistill.recipe import MovedBy, Recipe
from facedistill.terms import MarginSoftmax, MultiLabel, Term, make_term
from facedistill.training.resolved import ResolvedMethod, resolve
from facedistill.training.teacher import Teacher


@dataclass(frozen=True)
class WiredTerm:
    """A term, its weight in the loss, and the name of its teacher."""

    term: Term
    weight: float
    teacher: str


def wire_terms(method: ResolvedMethod) -> dict[str, WiredTerm]:
    """Build the method's terms, except those of weight 0. Raises UsageError for unknown terms and options."""
    terms = {
        key: WiredTerm(make_term(term.kind, dict(term.options)), term.weight, term.teacher)
        for key, term in method.terms.items()
        if term.weight
    }
    if not terms:
        raise UsageError(f"method {method.name}: no term has a weight, so there is no loss; set method.terms.<name>=1")
    return terms


def missing_teachers(recipe: Recipe) -> list[str]:
    """Return the names of the teachers that the recipe's method needs and the recipe lacks."""
    method = resolve(recipe.method)
    terms = wire_terms(method)
    asked = {teacher for teacher, needs in teacher_needs(terms, method.moved_by).items() if needs}
    asked |= {wired.teacher for wired in terms.values() if wired.term.needs_table}
    if method.start.of_teacher:
        asked |= {wired.teacher for wired in terms.values() if wired.term.needs_weight}
    return sorted(asked - set(recipe.teachers))


def teacher_needs(terms: Mapping[str, WiredTerm], moved_by: MovedBy) -> dict[str, frozenset[str]]:
    """Return the outputs that each teacher must give at every step, for its terms and for a W that it moves."""
    needs: dict[str, frozenset[str]] = {}
    for wired in terms.values():
        mover = {"embedding"} if wired.term.needs_weight and moved_by == "teacher" else set()
        needs[wired.teacher] = needs.get(wired.teacher, frozenset()) | wired.term.needs | mover
    return needs


class Method(nn.Module):
    """The only forward of training; DDP wraps this. Teachers are outside the module tree.

    Args:
        student: the model that is trained.
        weight: its W, or None if no term uses one.
        further: the W of other teachers, by name; they replace `weight` in those teachers' terms.
        teachers: by name.
        terms: by name.
        view: changes each batch before the networks see it.
    """

    def __init__(
        self,
        student: Model,
        weight: ClassWeight | None,
        teachers: Mapping[str, Teacher],
        terms: Mapping[str, WiredTerm],
        view: Callable[[Batch], Batch] | None = None,
        further: Mapping[str, ClassWeight] | None = None,
    ) -> None:
        super().__init__()
        self.student, self.weight, self.view = student, weight, view
        further = further or {}
        self.further = nn.ModuleList(further.values())
        self.wired = dict(terms)
        self.terms = nn.ModuleDict({name: wired.term for name, wired in terms.items()})
        self.teachers = dict(teachers)
        self.features = any("features" in wired.term.needs for wired in terms.values())
        asked = teacher_needs(terms, weight.moved_by if weight else "nothing")
        self.frozen = not any(parameter.requires_grad for parameter in student.parameters())
        self.needs = {name: asked.get(name, frozenset()) for name in teachers}
        self.moved: dict[str, ClassWeight] = {}  # by the teacher that moves it
        for name, wired in terms.items():
            term, teacher = wired.term, wired.teacher
            if asked[teacher] and teacher not in teachers:
                raise UsageError(
                    f"term '{name}' needs the teacher '{teacher}'; the recipe has: {', '.join(teachers) or 'none'}"
                )
            own = further.get(teacher, weight)
            if term.needs_weight and own is not None and own.moved_by == "teacher":
                self.moved[teacher] = own
            term.bind(own, teachers[teacher].classifier if teacher in teachers else None)
            if term.parts:
                _require_parts(student, term.parts, name)
            if "features" in term.needs:
                term.bind_features(_stage_shapes(student), _stage_shapes(teachers[teacher].model))

    def train(self, mode: bool = True) -> "Method":
        super().train(mode)
        if self.frozen:
            self.student.eval()  # its statistics stay, too
        return self

    @property
    def weights(self) -> list[ClassWeight]:
        """Every W, the student's own first."""
        return [] if self.weight is None else [self.weight, *self.further]

    @property
    def scale(self) -> float | None:
        """The scale of the loss that trains the student's W, None without one."""
        kinds = (MarginSoftmax, MultiLabel)
        return next((w.term.scale for w in self.wired.values() if isinstance(w.term, kinds)), None)

    @property
    def anchors(self) -> str | None:
        """The name of the teacher whose space the student is tied to, or None."""
        return next((wired.teacher for wired in self.wired.values() if wired.term.anchors), None)

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
        return {
            name: wired.weight * wired.term(student, teachers.get(wired.teacher), batch)
            for name, wired in self.wired.items()
        }

    def start_epoch(self, epoch: int) -> None:
        for teacher in self.teachers.values():
            teacher.start_epoch(epoch)


def _require_parts(student: Model, parts: tuple[str, ...], term: str) -> None:
    found = student.backbone.part_names if student.backbone else ()
    if not set(parts) <= set(found):
        raise UsageError(
            f"term '{term}' needs a student of the networks {' and '.join(parts)}; set student.backbone=residual, and "
            "student.options.network to the network that each of them is"
        )


@torch.no_grad()
def _stage_shapes(model: Model) -> list[torch.Size]:
    """Return the shapes (C, h, w) of the model's stage maps; its statistics and mode do not change."""
    training, side = model.training, model.input_size
    try:
        output = model.eval().outputs(torch.zeros(1, 3, side, side, device=model.device))
    finally:
        model.train(training)
    return [stage.shape[1:] for stage in output.features]
