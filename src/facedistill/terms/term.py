"""A Term: one named, weighted loss on (student outputs, one teacher's outputs, batch)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Batch, Embeddings, Output
from facedistill.errors import UserError
from facedistill.head import Classifier, ClassWeight


class Term(nn.Module):
    """Subclasses define `forward`. The signature of their __init__ is their schema in a recipe.

    Attributes:
        needs: the teacher's outputs that the term reads: any of "embedding", "logits", "features".
        optional: those of them that it does without if the teacher cannot give them; `needs` then loses them.
        parts: the networks of a composed student whose outputs it reads (`Output.parts`).
        knows_a_subset: True if the teacher whose logits or W it reads may know some of the student's classes or labels
            only.
        needs_weight: True if the term uses the student's W.
        whole_weight: True if the term reads all rows of W in each process.
        needs_labels: True if the term reads who is on an image, other than by rows of W.
        takes_one, takes_several: whether the rows of W that it uses may be classes, of which an image has one; and
            labels, of which an image may have several.
        paced: True if the term weighs its teacher by how far the student is behind it on the hold-out, see `pace`.
        needs_table: True if the term reads the teacher's embeddings of all training images before the first step.
        anchors: True if the term ties the student to the teacher's space (an L2 or angle to its embeddings).
    """

    needs: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    parts: tuple[str, ...] = ()
    knows_a_subset: bool = False
    needs_weight: bool = False
    whole_weight: bool = False
    needs_labels: bool = False
    takes_one: bool = True
    takes_several: bool = False
    paced: bool = False
    needs_table: bool = False
    anchors: bool = False

    def __init__(self) -> None:  # this signature declares that a term has no options
        super().__init__()

    def bind(self, weight: ClassWeight | None, teacher: Classifier | None) -> None:
        """Receive, once, the student's W and the teacher's classifier; raise UserError if a needed one is missing."""

    def bind_table(self, table: Embeddings, teacher: Classifier | None) -> None:
        """Receive, once and before `bind`, the teacher's embeddings of the training images and its own classifier.

        Row i of the table is training image i. Called only if `needs_table`.
        """

    def bind_features(self, student: Sequence[torch.Size], teacher: Sequence[torch.Size]) -> None:
        """Receive, once, the shapes (C, h, w) of both networks' stage maps. Called only if `needs` has "features"."""

    def pace(self, student: float, teacher: float) -> None:
        """Receive, before each epoch, how good both are on the hold-out, 0 to 1. Called only if `paced`."""

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a float32 scalar.

        With several processes, return the mean over this process's slice; DDP averages the gradients. Slices are equal
        unless images are unreadable, so the average is the mean over the whole batch.
        """
        raise NotImplementedError


class Relation(Term):
    """A term on the relations among the embeddings of a batch; subclasses define `loss`.

    Each network's embeddings are compared only with each other. So the two networks may differ in dimension, and the
    student is not tied to the teacher's space.
    """

    needs = frozenset({"embedding"})

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        with torch.autocast(student.embedding.device.type, enabled=False):
            whole = [parallel.gather(output.embedding.float()) for output in (student, teacher)]
            return self.loss(whole[0], whole[1], batch)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the embeddings (B, d_S) and (B, d_T), float32, of all processes; `batch` is a slice."""
        raise NotImplementedError


class CrossRelation(Relation):
    """A relation of the student's embeddings with the teacher's: queries against a gallery that the teacher enrolled.

    It ties the student to the teacher's space, so both networks have the same dimension.
    """

    anchors = True

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert teacher is not None
        require_same_dimension(type(self).__name__.lower(), student, teacher)
        return super().forward(student, teacher, batch)


def similarities(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines: of the teacher's embeddings with each other, and of the student's (rows) with the teacher's.

    Shapes: (B, d), (B, d) -> (B, B), (B, B).
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    return t @ t.T, s @ t.T


def require_same_dimension(term: str, student: Output, teacher: Output) -> None:
    """Raise UserError unless both embeddings have the same dimension, so that one can be compared with the other."""
    own, other = student.embedding.shape[1], teacher.embedding.shape[1]
    if own != other:
        raise UserError(
            f"{term}: the student's embeddings have {own} dimensions, the teacher's {other}; give the student the "
            "teacher's size (student.embedding_dim) or a projection"
        )
