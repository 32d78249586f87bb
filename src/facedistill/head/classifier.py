"""The class matrix W, and W inside a training run: what moves it. Where it starts: starts.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UserError, some
from facedistill.head.rows import Rows, as_rows, hold_rows
from facedistill.recipe import MovedBy, Stored


@dataclass
class Classifier:
    """W with unit rows, float32 (C, d), and the name of each row.

    Raw rows may have any norm: they are normalised here, because a teacher's rows do not all have the same
    norm and copying them raw silently changes the loss.

    Attributes:
        origin: "teacher" (trained with its network), "centres", "fitted", "instances" or "random"; in every result.
        counts: int64 (C,), the number of embeddings each centre is the mean of; only for centres.
        unit: True for rows that a model folder holds: they have unit length, so nothing of what may be a memory-mapped
            file of gigabytes is read or copied here.
        of_teacher: True where the rows lie in a teacher's space; None: unless they are "random".

    Raises:
        UserError: names and rows differ in number, a name repeats, or a row is zero or not finite.
    """

    weight: Tensor
    class_names: Sequence[str]
    origin: str = "teacher"
    counts: Tensor | None = None
    unit: bool = False
    of_teacher: bool | None = None

    def __post_init__(self) -> None:
        self.class_names = list(self.class_names)
        if self.of_teacher is None:
            self.of_teacher = self.origin != "random"
        if self.weight.ndim != 2 or len(self.weight) != len(self.class_names):
            raise UserError(
                f"classifier: {tuple(self.weight.shape)} rows do not fit {len(self.class_names)} class names; "
                "expected one row of W per name, in the same order"
            )
        if len(set(self.class_names)) != len(self.class_names):
            raise UserError("classifier: a class name stands twice; names must be unique")
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
        """Return the rows of `names`, in that order. Raises UserError naming the classes W lacks."""
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
        counts = None if self.counts is None else self.counts[rows]
        return Classifier(self.weight[rows], list(names), self.origin, counts, unit=True, of_teacher=self.of_teacher)


class ClassWeight(nn.Module):
    """W inside a training run.

    Moved by "gradient" it is a parameter; by "teacher" a buffer, float32, which `move` changes; by "nothing" a plain
    tensor, neither parameter nor buffer, so that no optimiser, checkpoint or DDP broadcast touches it. Then it may be
    stored shorter, and in several processes each may hold a share.

    Args:
        stored, whole: see `hold_rows`; of a W that something moves every process holds all, in float32.
        student_dim: of the embeddings, where W lies in another space than theirs: `place` then takes them there by a
            linear projection, trained with the rest and no part of the student.
    """

    weight: Tensor

    def __init__(
        self,
        classifier: Classifier,
        moved_by: MovedBy,
        student_dim: int | None = None,
        stored: Stored = "fp32",
        whole: bool = True,
    ) -> None:
        super().__init__()
        self.projection = None if student_dim is None else nn.Linear(student_dim, classifier.dim, bias=False)
        self.class_names, self.origin, self.moved_by = classifier.class_names, classifier.origin, moved_by
        self.of_teacher = bool(classifier.of_teacher)
        if moved_by == "gradient":
            # Unit rows also where W is random: from short ones (N(0, 0.01) is common) a step of a high rate throws the
            # rows far out, where they hardly turn any more, and training from scratch is held back.
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
        """The rows as they are held here, as the frozen head takes them; no gradient reaches W through them."""
        return self.frozen_rows if self.moved_by == "nothing" else as_rows(self.weight)

    @property
    def anchors(self) -> bool:
        """True where W ties the student to the teacher's space: no gradient moves it, and its rows lie there."""
        in_space = self.of_teacher or self.moved_by == "teacher"
        return self.frozen and in_space and self.projection is None

    @property
    def frozen(self) -> bool:
        """True where W gets no gradient: the streaming head may be used."""
        return not isinstance(self.weight, nn.Parameter)

    def place(self, embeddings: Tensor) -> Tensor:
        """Return the student's embeddings (B, d') in W's space (B, d), float32."""
        embeddings = embeddings.float()
        return embeddings if self.projection is None else self.projection(embeddings)

    @torch.no_grad()
    def move(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """AdaDistill's step of the rows of the batch's classes towards the teacher's embeddings (arXiv 2407.01332).

        w_y <- a w_y + (1 - a) f_T(x), a = relu(cos(f_S(x), f_T(x))) relu(cos(w_y, f_T(x))), f_T of unit length: near to
        single embeddings while the student knows little, then to the class's centre. A reconstruction from the authors'
        code, but: rows return to unit length; a class with several images in the batch of all processes takes the mean
        of their steps, where the code keeps whichever is written last, and each process has a W of its own.

        Shapes: (b, d), (b, d), int64 (b,), of this process.
        """
        with torch.autocast(student.device.type, enabled=False):
            own, other = (parallel.gather(F.normalize(x, dim=1)) for x in (self.place(student), teacher.float()))
            classes, row = parallel.gather(labels).unique(return_inverse=True)
            weight = self.weight[classes][row]
            kept = ((own * other).sum(1).relu() * (weight * other).sum(1).relu())[:, None]
            moved = kept * weight + (1 - kept) * other
            # A matrix product, because adding row by row has no fixed order on a GPU, and all processes need one W.
            self.weight[classes] = F.normalize(F.one_hot(row).to(moved).T @ moved, dim=1)

    def trained(self) -> Classifier:
        """Return the W that training made, as the model's own: whoever inherits it inherits a "teacher" W."""
        return Classifier(self.weight.detach().cpu().clone(), self.class_names, "teacher")
