"""Which images show somebody else: each image's likeness to its own person and to the best other one.

A person is the mean of its core, the images nearest to the person's mean, so that errors hardly change it. An image is
left out of its own person.
"""

from dataclasses import dataclass

import numpy as np
import torch

from facedistill.cleaning.evidence import Verdict, judge, parting
from facedistill.cleaning.neighbours import nearest

CORE = 0.75  # of a person's images
LEAST = 3  # images of a person, so that one can be said to differ from the others
PLANTED = 0.05  # of the images get a wrong label at a time, to see what errors look like
KNOWN, ROUNDS = 3000, 20  # errors that are enough, and the most times
BLOCK = 1 << 24  # products at a time


@dataclass
class People:
    """Images with persons, and the persons' cores.

    Attributes:
        units: unit embeddings, float32 (N, d). labels: int64 (N,). core: bool (N,).
        means: float32 (C, d), the mean of each core, not normalised; zero for a person without images.
        sizes: int64 (C,), images in each core. counts: all images of each.
    """

    units: np.ndarray
    labels: np.ndarray
    core: np.ndarray
    means: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, units: np.ndarray, labels: np.ndarray, count: int) -> "People":
        counts = np.bincount(labels, minlength=count)
        sums = _sums(units, labels, count)
        alone = (np.einsum("nd,nd->n", units, sums[labels]) - 1) / np.maximum(counts[labels] - 1, 1)
        order = np.lexsort((-alone, labels))
        first = np.searchsorted(labels[order], np.arange(count))
        rank = np.empty(len(labels), np.int64)
        rank[order] = np.arange(len(labels)) - first[labels[order]]
        core = rank < np.maximum(2, np.ceil(CORE * counts))[labels]
        sizes = np.bincount(labels[core], minlength=count)
        means = _sums(units[core], labels[core], count) / np.maximum(sizes, 1)[:, None]
        return cls(units, labels, core, means.astype(np.float32), sizes, counts)

    def own(self) -> np.ndarray:
        """Return the mean cosine of each image to the core of its own person, without itself: float64 (N,)."""
        size = self.sizes[self.labels]
        product = np.einsum("nd,nd->n", self.units, self.means[self.labels]).astype(np.float64)
        return np.where(self.core, (product * size - 1) / np.maximum(size - 1, 1), product)


def _sums(units: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the sum of the rows of each label, float64 (C, d)."""
    sums = torch.zeros(count, units.shape[1], dtype=torch.float64)
    return sums.index_add_(0, torch.from_numpy(labels), torch.from_numpy(units).double()).numpy()


@dataclass
class Swapped:
    """
    Attributes:
        verdict: of each image. scores: (N,). other: int64 (N,), the person that it is most like, -1 for none.
    """

    verdict: Verdict
    scores: np.ndarray
    other: np.ndarray


def find_swapped(people: People, precision: float, rng: np.random.Generator) -> Swapped:
    """Judge which images show another person than their label says.

    Known errors are made: some images at a time get the label of another random image, and are looked at in these data.
    The score is the weighted sum of an image's likenesses that tells them best from all images.
    """
    labels = people.labels
    judged = people.counts[labels] >= LEAST
    rows = np.flatnonzero(judged)
    known = _planted(people, rows, rng)
    likenesses, other = _likenesses(people, rows)
    weights = parting(known, likenesses)
    verdict = judge(likenesses @ weights, known @ weights, precision, low=True)
    scores, others = np.full(len(labels), np.nan), np.full(len(labels), -1)
    scores[rows], others[rows] = likenesses @ weights, other
    return Swapped(verdict.spread(judged), scores, others)


def _planted(people: People, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the likenesses (M, 4) of images of `rows` to wrong persons, whose images they are for that time."""
    known = [np.zeros((0, 4))]
    for _ in range(ROUNDS):
        moved = rng.permutation(rows)[: max(1, int(PLANTED * len(rows)))] if len(rows) else rows
        labels = people.labels.copy()
        labels[moved] = people.labels[rng.integers(0, len(labels), len(moved))]
        changed = People.of(people.units, labels, len(people.counts))
        wrong = moved[(labels != people.labels)[moved] & (changed.counts[labels] >= LEAST)[moved]]
        known.append(_likenesses(changed, wrong)[0])
        if sum(map(len, known)) >= KNOWN:
            break
    return np.concatenate(known)


def _likenesses(people: People, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how images are like persons, float64 (M, 4), and the other person that each is most like, -1 for none.

    The mean cosine to the core of its own person, the best cosine to an image of it, the cosine to the mean of the best
    other person's core, and the logarithm of the images of its own person.
    """
    labels, there = people.labels[rows], np.flatnonzero(people.sizes)
    products, places = nearest(people.units[rows], people.means[there], 2)
    places = there[places]
    column = np.argmax(places != labels[:, None], axis=1) if places.shape[1] else np.zeros(len(rows), int)
    at = np.arange(len(rows))
    some = places.shape[1] > 1
    best, other = (products[at, column], places[at, column]) if some else (np.zeros(len(rows)), np.full(len(rows), -1))
    own = people.own()[rows], _nearest_own(people, rows)
    return np.stack([*own, best, np.log(people.counts[labels])], axis=1).astype(np.float64), other


def _nearest_own(people: People, rows: np.ndarray) -> np.ndarray:
    """Return the best cosine of the images at `rows` to another image of their person: float64 (M,)."""
    order = np.argsort(people.labels, kind="stable")
    ends = np.cumsum(people.counts)
    best = np.empty(len(rows))
    by_person = np.argsort(people.labels[rows], kind="stable")
    parts = np.split(by_person, np.flatnonzero(np.diff(people.labels[rows][by_person])) + 1)
    for part in parts if len(rows) else []:
        label = people.labels[rows[part[0]]]
        units = people.units[order[ends[label] - people.counts[label] : ends[label]]]
        step = max(1, BLOCK // len(units))
        for some in (part[start : start + step] for start in range(0, len(part), step)):
            products = people.units[rows[some]] @ units.T
            best[some] = np.partition(products, -2, axis=1)[:, -2]  # the largest is its own
    return best
