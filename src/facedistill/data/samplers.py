"""Samplers choose images, their order and whether each is mirrored, as pure functions of (seed, epoch).

A sampler has `steps` and `epoch(e) -> (indices int64 (steps, batch), flips bool (steps, batch))`. An incomplete last
batch is dropped.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import numpy as np

from facedistill.errors import UsageError, UserError
from facedistill.recipe import build, find


class Sampler(ABC):
    """The base class. `labels` int64 (N,), `batch` images a step over all ranks, `seed` >= 0; N // batch steps.

    takes_weights: True if `draw` heeds `self.weights`, see `weigh`. needs_classes: True if it draws by class. mirror:
    False if no image is to be mirrored.
    """

    takes_weights: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    weights: np.ndarray | None = None
    mirror: bool = True

    def __init__(self, labels: np.ndarray, batch: int, seed: int) -> None:
        if batch < 1:
            raise UsageError(f"batch {batch}: expected a positive number of images")
        if len(labels) < batch:
            raise UserError(f"{len(labels)} images are fewer than a batch of {batch}; choose a smaller batch")
        self.labels, self.batch, self.seed = np.asarray(labels, dtype=np.int64), batch, seed
        self.steps = len(labels) // batch

    def weigh(self, weights: np.ndarray) -> None:
        """Draw images more and less often: `weights` float (N,) > 0, how often each comes in an epoch on average."""
        if not self.takes_weights:
            raise UsageError(f"data.weights: the sampler {type(self).__name__} takes none; use {' or '.join(SAMPLERS)}")
        count = sum(_times(weight, images) for weight, images in zip(*np.unique(weights, return_counts=True)))
        self.weights, self.steps = weights, count // self.batch
        if not self.steps:
            raise UserError(f"data.weights: {count} images an epoch are fewer than a batch of {self.batch}")

    def epoch(self, e: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (indices int64, flips bool), both (steps, batch), of epoch `e`."""
        rng = np.random.default_rng([self.seed, e])
        indices = self.draw(rng).reshape(self.steps, self.batch)
        return indices, (rng.random(indices.shape) < 0.5) & self.mirror

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return steps * batch indices."""


class Uniform(Sampler):
    """Every image once an epoch, or as often as its weight says, in random order."""

    takes_weights = True

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        if self.weights is not None:
            return _as_often(self.weights, rng)[: self.steps * self.batch]
        return rng.permutation(len(self.labels))[: self.steps * self.batch]


class ClassBalanced(Sampler):
    """Every class equally often (to within one); a class's images take turns, so a small class repeats its own.

    With weights, a class comes in proportion to the mean weight of its images.
    """

    takes_weights = True
    needs_classes = True
    share: np.ndarray | None = None  # of the rounds of all classes, in which each class comes

    def weigh(self, weights: np.ndarray) -> None:
        super().weigh(weights)
        mean = np.bincount(self.labels, weights) / np.maximum(np.bincount(self.labels), 1)
        self.share = mean[np.unique(self.labels)] / mean.max()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return _take_turns(self.labels, self.classes_in_turn(self.steps * self.batch, 1, rng), 1, rng)

    def classes_in_turn(self, count: int, p: int, rng: np.random.Generator) -> np.ndarray:
        """Return `count` classes, of which each `p` in a row are different."""
        classes, turns = np.unique(self.labels), list[np.ndarray]()
        while sum(len(turn) for turn in turns) < count:
            drawn = classes if self.share is None else classes[rng.random(len(classes)) < self.share]
            turns.append(rng.permutation(drawn)[: len(drawn) // p * p])  # of one shuffle: no batch has a class twice
        return np.concatenate(turns)[:count]


class PK(ClassBalanced):
    """P classes x `k` images a batch (P = batch / k), for losses that need several images of a class.

    A class with fewer than `k` images is drawn with repetition; any other gives `k` different images.
    """

    def __init__(self, labels: np.ndarray, batch: int, seed: int, k: int = 4) -> None:
        super().__init__(labels, batch, seed)
        self.k, self.classes = k, np.unique(self.labels)
        if k < 1 or batch % k:
            raise UsageError(f"pk sampler: batch {batch} is not a multiple of k = {k}")
        if len(self.classes) < batch // k:
            raise UserError(f"pk sampler: {batch // k} classes a batch, but the data has {len(self.classes)}; raise k")

    def weigh(self, weights: np.ndarray) -> None:
        super().weigh(weights)
        assert self.share is not None
        p, there = self.batch // self.k, self.share.sum()
        if there < p:
            raise UserError(
                f"data.weights: pk sampler: {p} classes a batch, but by their weights about {there:.0f} classes come "
                "in a round; use weights that are nearer to each other"
            )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        p = self.batch // self.k
        return _take_turns(self.labels, self.classes_in_turn(self.steps * p, p, rng), self.k, rng)


def _as_often(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return every index as often as its weight says, in random order: 2.5 is twice, and for a random half once more.

    The number of indices is always the same.
    """
    found = []
    for weight in np.unique(weights):
        places = np.flatnonzero(weights == weight)
        rest = _times(weight, len(places)) - int(weight) * len(places)
        found += [np.repeat(places, int(weight)), rng.permutation(places)[:rest]]
    return rng.permutation(np.concatenate(found))


def _times(weight: float, images: int) -> int:
    """Return how many images an epoch has of a number of images of one weight."""
    return round(float(weight) * int(images))


def _take_turns(labels: np.ndarray, turns: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the next `k` images of every class in `turns`, from the class's own shuffle: int64 (len(turns) * k,)."""
    shuffled = rng.permutation(len(labels))
    shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    by_class = np.argsort(turns, kind="stable")
    occurrence = np.empty(len(turns), dtype=np.int64)
    times = np.bincount(turns, minlength=len(counts))
    occurrence[by_class] = np.arange(len(turns)) - np.repeat(np.cumsum(times) - times, times)
    position = (occurrence[:, None] * k + np.arange(k)) % counts[turns][:, None]
    return shuffled[starts[turns][:, None] + position].reshape(-1)


SAMPLERS: dict[str, type[Sampler]] = {"uniform": Uniform, "class_balanced": ClassBalanced, "pk": PK}


def make_sampler(
    kind: str,
    labels: np.ndarray,
    batch: int,
    seed: int,
    weights: np.ndarray | None = None,
    mirror: bool = True,
    /,
    **options: Any,
) -> Sampler:
    """Return the sampler named `kind`; `options` are its own (pk: k). UsageError for an unknown name or option.

    Args:
        weights: float (N,), how often each image comes in an epoch; None: all alike.
        mirror: False if no image is to be mirrored.
    """
    kind_of = find(SAMPLERS, kind, "sampler", Sampler)
    sampler = build(partial(kind_of, labels, batch, seed), options, f"sampler '{kind}'")
    if weights is not None:
        sampler.weigh(weights)
    sampler.mirror = mirror
    return sampler
