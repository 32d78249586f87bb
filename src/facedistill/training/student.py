"""The student: a new network, or one that starts from another model."""

from dataclasses import replace

from torch import nn

from facedistill.backbones import create_backbone
from facedistill.errors import UsageError, UserError
from facedistill.head import Classifier
from facedistill.models import InputSpec, Model, load_model
from facedistill.recipe import Recipe


def make_student(
    recipe: Recipe, models: dict[str, Model], classifier: Classifier | None, space_dim: int | None = None
) -> Model:
    """Make the student. Its embedding size is the teacher's unless the recipe says otherwise.

    A student that starts from another model gets its weights, preprocessing and offset; a frozen one its space, too.

    `space_dim`: the dimension of the space that the method ties the student to.
    """
    spec = recipe.student
    if spec.frozen and not spec.start:
        raise UsageError("student.frozen=true keeps the weights of student.start; name a model or run there")
    if twice := [name for name in ("embedding_dim", "input_size") if name in spec.options]:
        raise UsageError(f"student.options.{twice[0]}: set student.{twice[0]} instead")
    wanted = space_dim or (classifier.dim if classifier else None)
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
    if spec.frozen:
        student.requires_grad_(False)
        student.space = start.space
    return student


def _load_weights(student: Model, start: Model, path: str) -> None:
    own, other = student.state_dict(), start.state_dict()
    for name, tensor in own.items():
        if name not in other or other[name].shape != tensor.shape:
            found = tuple(other[name].shape) if name in other else "absent"
            raise UserError(f"student.start {path}: '{name}' is {found}, the student expects {tuple(tensor.shape)}")
    student.load_state_dict(other, strict=False)
