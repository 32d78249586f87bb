"""Samplers choose images, their order and whether each is mirrored, as pure functions of (seed, epoch).

A sampler has `steps` and `epoch(e) -> (indices int64 (steps, batch), flips bool (steps, batch))`. An incomplete last
batch is dropped.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import numpy as np

from facedistill.errors import UsageError, UserError
from facedistill.recipe import build, find


class Sampler(ABC):
    """The base class. `labels` int64 (N,), `batch` images a step over all ranks, `seed` >= 0; N // batch steps."""

    def __init__(self, labels: np.ndarray, batch: int, seed: int) -> None:
        if batch < 1:
            raise UsageError(f"batch {batch}: expected a positive number of images")
        if len(labels) < batch:
            raise UserError(f"{len(labels)} images are fewer than a batch of {batch}; choose a smaller batch")
        self.labels, self.batch, self.seed = np.asarray(labels, dtype=np.int64), batch, seed
        self.steps = len(labels) // batch

    def epoch(self, e: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (indices int64, flips bool), both (steps, batch), of epoch `e`."""
        rng = np.random.default_rng([self.seed, e])
        indices = self.draw(rng).reshape(self.steps, self.batch)
        return indices, rng.random((self.steps, self.batch)) < 0.5

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return steps * batch indices."""


class Uniform(Sampler):
    """Every image once an epoch, in random order."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self.labels))[: self.steps * self.batch]


class ClassBalanced(Sampler):
    """Every class equally often (to within one); a class's images take turns, so a small class repeats its own."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        classes = np.unique(self.labels)
        count = self.steps * self.batch
        rounds = -(-count // len(classes))
        turns = np.concatenate([rng.permutation(classes) for _ in range(rounds)])[:count]
        return _take_turns(self.labels, turns, 1, rng)


class PK(Sampler):
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

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        p = self.batch // self.k
        whole = len(self.classes) // p  # batches from one shuffle of the classes, so that none has a class twice
        rounds = -(-self.steps // whole)
        turns = np.concatenate([rng.permutation(self.classes)[: whole * p] for _ in range(rounds)])[: self.steps * p]
        return _take_turns(self.labels, turns, self.k, rng)


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


def make_sampler(kind: str, labels: np.ndarray, batch: int, seed: int, /, **options: Any) -> Sampler:
    """Return the sampler named `kind`; `options` are its own (pk: k). UsageError for an unknown name or option."""
    return build(partial(find(SAMPLERS, kind, "sampler", Sampler), labels, batch, seed), options, f"sampler '{kind}'")
