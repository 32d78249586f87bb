"""The class matrix W, and W inside a training run with what moves it. starts.py makes the first W."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UserError, some
from facedistill.files import composed
from facedistill.head.rows import Rows, as_rows, hold_rows
from facedistill.recipe import MovedBy, Stored


@dataclass
class Classifier:
    """W with unit rows, float32 (C, d), and the name of each row.

    Raw rows may have any norm. They are normalised here, because a teacher's rows differ in norm, and copying them raw
    silently changes the loss.

    Attributes:
        origin: "teacher" (trained with its network), "centres", "fitted", "instances" or "random"; in every result.
        counts: int64 (C,), the number of embeddings averaged in each centre, or of training images of each class of a
            trained W; None if unknown.
        unit: True if the rows already have unit length, as those of a model folder do. A memory-mapped file of
            gigabytes is then neither read nor copied here.
        of_teacher: True if the rows lie in a teacher's space; None means True unless `origin` is "random".
        scale: s of the margin softmax that trained W; softmax(s cos) gives probabilities. None if unknown.
        bias: float32 (C,), of a W for images with several labels: sigmoid(s cos + b) gives probabilities. None for a
            softmax.

    Raises:
        UserError: names and rows differ in number, a name repeats, or a row is zero or not finite.
    """

    weight: Tensor
    class_names: Sequence[str]
    origin: str = "teacher"
    counts: Tensor | None = None
    unit: bool = False
    of_teacher: bool | None = None
    scale: float | None = None
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        self.class_names = [composed(name) for name in self.class_names]
        if self.of_teacher is None:
            self.of_teacher = self.origin != "random"
        if self.weight.ndim != 2 or len(self.weight) != len(self.class_names):
            raise UserError(
                f"classifier: {tuple(self.weight.shape)} rows do not fit {len(self.class_names)} class names; "
                "expected one row of W per name, in the same order"
            )
        if self.bias is not None and (self.bias.shape != (len(self.weight),) or not self.bias.isfinite().all()):
            raise UserError(f"classifier: {tuple(self.bias.shape)} biases; expected a finite one for each row of W")
        if len(set(self.class_names)) != len(self.class_names):
            raise UserError("classifier: a class name is listed twice; names must be unique")
        if self.unit and self.weight.dtype == torch.float32:
            return
        weight = self.weight.detach().float()
        norms = weight.norm(dim=1)
        bad = torch.nonzero(~torch.isfinite(norms) | (norms < 1e-12)).flatten()
        if len(bad):
            name = self.class_names[int(bad[0])]
            raise UserError(f"classifier: row {int(bad[0])} ('{name}') is zero or not finite; the file is damaged")
        self.weight, self.unit = F.normalize(weight, dim=1), True

    def __len__(self) -> int:
        return len(self.class_names)

    @property
    def dim(self) -> int:
        return self.weight.shape[1]

    def select(self, names: Sequence[str]) -> "Classifier":
        """Return the rows of `names`, in that order. Raises UserError that names the classes that W lacks."""
        if list(names) == self.class_names:
            return self
        row = {name: i for i, name in enumerate(self.class_names)}
        missing = [n for n in names if n not in row]
        if missing:
            raise UserError(
                f"classifier: {len(missing)} of {len(names)} classes of the data have no row in W ({some(missing)}); W "
                f"has {len(self)} rows, e.g. '{self.class_names[0]}'; give the data the teacher was trained on, or "
                "start W from centres"
            )
        rows = torch.tensor([row[n] for n in names], dtype=torch.long)
        counts, bias = (None if values is None else values[rows] for values in (self.counts, self.bias))
        return replace(self, weight=self.weight[rows], class_names=list(names), counts=counts, bias=bias, unit=True)


class ClassWeight(nn.Module):
    """W inside a training run.

    If moved by "gradient", it is a parameter; by "teacher", a float32 buffer that `move` changes; by "nothing", a plain
    tensor, neither parameter nor buffer, so that no optimiser, checkpoint or DDP broadcast touches it. A plain tensor
    may be stored in fewer bits, and each of several processes may hold a share.

    Args:
        stored, whole: see `hold_rows`. They apply to moved_by "nothing"; otherwise every process holds all of W in
            float32.
        student_dim: the size of the student's embeddings, if W lies in another space. `place` then maps them there by a
            linear projection, which is trained too but is not part of the student.
        counts: int64 (C,), the number of training images of each row; None if a row is no class.
        images: the number of all training images.
        targets: the names of the data's classes, if W has rows for some of them only.

    Attributes:
        bias: of a W for several labels, (C,), moved as W is; None for a softmax.
    """

    weight: Tensor
    bias: Tensor | None
    row_of: Tensor | None

    def __init__(
        self,
        classifier: Classifier,
        moved_by: MovedBy,
        student_dim: int | None = None,
        stored: Stored = "fp32",
        whole: bool = True,
        counts: Tensor | None = None,
        images: int = 0,
        targets: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.projection = None if student_dim is None else nn.Linear(student_dim, classifier.dim, bias=False)
        self.class_names, self.origin, self.moved_by = classifier.class_names, classifier.origin, moved_by
        self.of_teacher = bool(classifier.of_teacher)
        self.counts, self.images = counts, images
        row = {name: i for i, name in enumerate(self.class_names)}
        table = None if targets is None else torch.tensor([row.get(name, -1) for name in targets])
        self.register_buffer("row_of", table, persistent=False)
        bias = None if classifier.bias is None else classifier.bias.clone()
        if moved_by == "gradient" and bias is not None:
            self.bias = nn.Parameter(bias)
        else:
            self.register_buffer("bias", bias, persistent=False)
        if moved_by == "gradient":
            # A random W has unit rows too. Short ones (N(0, 0.01) is common) become very long in one step at a high
            # learning rate; they then hardly turn any more, which slows training from scratch.
            self.weight = nn.Parameter(classifier.weight.clone())
        elif moved_by == "teacher":
            self.register_buffer("weight", classifier.weight.clone())
        else:
            self.frozen_rows = hold_rows(classifier.weight, stored, whole)
            self.weight = self.frozen_rows.values

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ClassWeight":
        super()._apply(fn, recurse)
        if self.moved_by == "nothing":
            scales = None if self.frozen_rows.scales is None else fn(self.frozen_rows.scales)
            self.frozen_rows = replace(self.frozen_rows, values=fn(self.frozen_rows.values), scales=scales)
            self.weight = self.frozen_rows.values
        return self

    @property
    def rows(self) -> Rows:
        """The rows of this process, in the form that the frozen head takes. No gradient reaches W through them."""
        return self.frozen_rows if self.moved_by == "nothing" else as_rows(self.weight)

    @property
    def anchors(self) -> bool:
        """True if W ties the student to the teacher's space: no gradient moves it, and its rows lie in that space."""
        in_space = self.of_teacher or self.moved_by == "teacher"
        return self.frozen and in_space and self.projection is None

    @property
    def frozen(self) -> bool:
        """True if W gets no gradient, so that the streaming head can be used."""
        return not isinstance(self.weight, nn.Parameter)

    def rows_of(self, labels: Tensor) -> Tensor:
        """Return the row of each class of the data, int64; -1 if W has none."""
        return labels if self.row_of is None else self.row_of[labels]

    def place(self, embeddings: Tensor) -> Tensor:
        """Map the student's embeddings (B, d') into W's space (B, d), float32."""
        embeddings = embeddings.float()
        return embeddings if self.projection is None else self.projection(embeddings)

    @torch.no_grad()
    def move(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """Move the rows of the batch's classes towards the teacher's embeddings as AdaDistill does (arXiv 2407.01332).

        w_y <- a w_y + (1 - a) f_T(x), a = relu(cos(f_S(x), f_T(x))) relu(cos(w_y, f_T(x))), f_T of unit length. While
        the student knows little, a row is near single embeddings; later it is near the class centre. A reconstruction
        from the authors' code with two changes. Rows return to unit length. A class with several images in the batch of
        all processes takes the mean of their steps; that code keeps the last one written, in a W per process.

        Shapes: (b, d), (b, d), int64 (b,), of this process.
        """
        with torch.autocast(student.device.type, enabled=False):
            own, other = (parallel.gather(F.normalize(x, dim=1)) for x in (self.place(student), teacher.float()))
            classes, row = parallel.gather(labels).unique(return_inverse=True)
            weight = self.weight[classes][row]
            kept = ((own * other).sum(1).relu() * (weight * other).sum(1).relu())[:, None]
            moved = kept * weight + (1 - kept) * other
            # A matrix product: adding row by row has no fixed order on a GPU, but all processes need the same W.
            self.weight[classes] = F.normalize(F.one_hot(row).to(moved).T @ moved, dim=1)

    def trained(self, scale: float | None = None) -> Classifier:
        """Return the trained W as the model's own classifier. Its origin is "teacher", as for any trained model."""
        weight = self.weight.detach().cpu().clone()
        bias = None if self.bias is None else self.bias.detach().cpu().clone()
        return Classifier(weight, self.class_names, "teacher", self.counts, scale=scale, bias=bias)
