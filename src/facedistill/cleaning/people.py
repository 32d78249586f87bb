"""Which images are far from their person: each image's likeness to its own person and to the best other one.

A person is the mean of its core, the images nearest to the person's mean, so that errors hardly change it. An image is
left out of its own person.
"""

from dataclasses import dataclass

import numpy as np

from facedistill.cleaning.evidence import Verdict, judge
from facedistill.cleaning.neighbours import nearest

CORE = 0.75  # of a person's images
LEAST = 3  # images of a person, so that one can be said to differ from the others
OTHERS = (0.25, 0.5, 0.75, 1.0)  # weights of the likeness to the best other person; the one that finds most is taken


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
    sums = np.zeros((count, units.shape[1]))
    np.add.at(sums, labels, units)
    return sums


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

    Known errors: each image with the person of another random image as its label.
    """
    own, labels = people.own(), people.labels
    wrong = _another(labels, rng)
    there = np.flatnonzero(people.sizes)
    products, places = nearest(people.units, people.means[there], 3)
    places = there[places]
    away = np.einsum("nd,nd->n", people.units, people.means[wrong]).astype(np.float64)
    best, other = _best(products, places, labels, labels)
    best_away, _ = _best(products, places, labels, wrong)
    best_away = np.maximum(best_away, np.where(wrong == labels, -1.0, own))  # its true person is among the others
    judged = people.counts[labels] >= LEAST
    usable = judged & (wrong != labels)
    found: Swapped | None = None
    for weight in OTHERS:
        scores = own - weight * best
        verdict = judge(scores[judged], (away - weight * best_away)[usable], precision, low=True)
        if found is None or verdict.power > found.verdict.power:
            found = Swapped(verdict, scores, other)
    assert found is not None
    found.verdict = found.verdict.spread(judged)
    return found


def _another(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the label of another random image for each; its own where there is no other person."""
    drawn = labels[rng.integers(0, len(labels), len(labels))]
    for _ in range(20):
        same = drawn == labels
        drawn[same] = labels[rng.integers(0, len(labels), int(same.sum()))]
    return drawn


def _best(
    products: np.ndarray, places: np.ndarray, own: np.ndarray, apart: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest product with a person that is neither `own` nor `apart`, and the person: 0 and -1 for none."""
    allowed = (places != own[:, None]) & (places != apart[:, None])
    column = allowed.argmax(1)
    rows = np.arange(len(places))
    some = allowed[rows, column] if allowed.shape[1] else np.zeros(len(places), bool)
    best = np.where(some, products[rows, column], 0.0).astype(np.float64)
    return best, np.where(some, places[rows, column], -1)
