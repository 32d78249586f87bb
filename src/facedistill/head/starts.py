"""The starts of the class matrix W: random, the teacher's own, class centres, fitted, or a row for every image."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from facedistill.data import Embeddings
from facedistill.data.sources import classes_with_images
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier
from facedistill.head.fitting import fit
from facedistill.head.margins import Margin
from facedistill.recipe import Count, Positive, build, find


def random_classifier(class_names: Sequence[str], dim: int, seed: int) -> Classifier:
    """Return rows drawn uniformly from the unit sphere in R^dim, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return Classifier(torch.randn(len(class_names), dim, generator=generator), class_names, "random")


def centres(embeddings: Embeddings) -> Classifier:
    """Return class centres: the normalised mean of a class's unit embeddings (image and mirror image summed).

    Classes without an image have no row. `counts` holds the images per class, so that a sample's own share can be
    removed (leave-one-out).
    """
    vectors = torch.from_numpy(embeddings.fused("sum"))
    labels, class_names = classes_with_images(embeddings.labels, embeddings.class_names)
    rows = torch.from_numpy(labels)
    counts = torch.bincount(rows)
    sums = torch.zeros(len(counts), vectors.shape[1]).index_add_(0, rows, vectors)
    return Classifier(sums, class_names, "centres", counts)


def instances(embeddings: Embeddings) -> Classifier:
    """Return a W with a row for every image: the teacher's embedding (both flips summed). Needs no labels."""
    return Classifier(torch.from_numpy(embeddings.fused("sum")), embeddings.keys, "instances")


def completed(classifier: Classifier | None, embeddings: Embeddings) -> Classifier:
    """Return a row for each class of `embeddings`: the classifier's own, or the class centre where it has none.

    Args:
        embeddings: of the network that the classifier belongs to. Every class needs an image.

    Raises:
        UserError: classifier and embeddings differ in dimension.
    """
    found = centres(embeddings).select(embeddings.class_names)
    if classifier is None:
        return found
    if classifier.dim != found.dim:
        raise UserError(
            f"classifier: its rows have {classifier.dim} dimensions, the embeddings {found.dim}; they do not belong "
            "together"
        )
    row = {name: i for i, name in enumerate(classifier.class_names)}
    known = [i for i, name in enumerate(found.class_names) if name in row]
    weight = found.weight.clone()
    weight[known] = classifier.weight[[row[found.class_names[i]] for i in known]]
    return Classifier(weight, found.class_names, "teacher" if known else "centres", unit=True)


def fit_classifier(
    embeddings: Embeddings, margin: Margin, scale: float, epochs: int = 20, batch: int = 512, lr: float = 2e-3
) -> Classifier:
    """Train W alone on the teacher's frozen embeddings, starting from the class centres: see `fit`."""
    start = centres(embeddings)
    rows_of_start, _ = classes_with_images(embeddings.labels, embeddings.class_names)
    vectors, labels = torch.from_numpy(embeddings.vectors), torch.from_numpy(rows_of_start)
    weight, _ = fit(vectors, labels, start.weight, margin, scale, epochs, batch, lr)
    return Classifier(weight, start.class_names, "fitted", None)


@dataclass
class Given:
    """The inputs from which a start may make W.

    Attributes:
        class_names: the classes of the training data, in the order of its labels.
        dim: the dimension of the student's space.
        seed: for random numbers, the same whenever the same run starts.
        classifier: the teacher's own, or None if the start does not need it.
        embeddings: the teacher's embeddings of the training images and their mirror images, or None if not needed.
        margin, scale: those that the student will be trained with, or None if not needed.
    """

    class_names: Sequence[str]
    dim: int
    seed: int = 0
    classifier: Classifier | None = None
    embeddings: Embeddings | None = None
    margin: Margin | None = None
    scale: float | None = None


class Start(ABC):
    """A way to make the first W. The signature of its __init__ is the schema of its options in a recipe.

    Attributes:
        needs: any of the teacher's "classifier" and "embeddings", and the "margin" of the student's margin softmax. A
            start that needs something of the teacher puts W, and with it the student, into the teacher's space.
        a_row_an_image: True if W has a row for every image, not for every class. Labels are then not used.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    a_row_an_image: ClassVar[bool] = False

    @property
    def of_teacher(self) -> bool:
        """True if W is made of the teacher's classifier or embeddings."""
        return bool(self.needs & {"classifier", "embeddings"})

    @abstractmethod
    def make(self, given: Given) -> Classifier:
        """Return W with a row for each class in `given.class_names`, in that order, or for each embedding."""


class Random(Start):
    """Random rows, see `random_classifier`."""

    def make(self, given: Given) -> Classifier:
        return random_classifier(given.class_names, given.dim, given.seed)


class TeachersOwn(Start):
    """The rows that the teacher was trained with: ProxylessKD's inherited classifier (arXiv 2011.00265)."""

    needs = frozenset({"classifier"})

    def make(self, given: Given) -> Classifier:
        assert given.classifier is not None
        return given.classifier.select(given.class_names)


class Centres(Start):
    """Class centres, see `centres`."""

    needs = frozenset({"embeddings"})

    def make(self, given: Given) -> Classifier:
        assert given.embeddings is not None
        return centres(given.embeddings)


class Fitted(Start):
    """A margin softmax trained on the teacher's frozen embeddings, see `fit_classifier`."""

    needs = frozenset({"embeddings", "margin"})

    def __init__(self, epochs: Count = 20, batch: Count = 512, lr: Positive = 2e-3) -> None:
        self.epochs, self.batch, self.lr = epochs, batch, lr

    def make(self, given: Given) -> Classifier:
        assert given.embeddings is not None and given.margin is not None and given.scale is not None
        return fit_classifier(given.embeddings, given.margin, given.scale, self.epochs, self.batch, self.lr)


class Instances(Start):
    """A row for every image, see `instances`."""

    needs = frozenset({"embeddings"})
    a_row_an_image = True

    def make(self, given: Given) -> Classifier:
        assert given.embeddings is not None
        return instances(given.embeddings)


class NoClassifier(Start):
    """The start of a method without W. `make` raises UsageError: a term needs a W, but the method has none."""

    def __init__(self, method: str) -> None:
        self.method = method

    def make(self, given: Given) -> Classifier:
        raise UsageError(
            f"method {self.method} has no W, and one of its terms needs one; set method.classifier.start "
            f"({', '.join(STARTS)}) and method.classifier.moved_by"
        )


STARTS: dict[str, type[Start]] = {
    "random": Random,
    "teacher": TeachersOwn,
    "centres": Centres,
    "fitted": Fitted,
    "instances": Instances,
}


def make_start(name: str, /, **options: object) -> Start:
    """Return the start of that name. Raises UsageError for an unknown name or an option that does not fit."""
    return build(find(STARTS, name, "start of W", Start), options, f"start '{name}'")
