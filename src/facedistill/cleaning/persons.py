"""Which groups of images show one person, and which persons are two: by the cosine of the groups' centroids.

Known errors are made of the data: the halves of one person are a person under two names, and images of two people
together are two people under one name.
"""

from dataclasses import dataclass

import numpy as np

from facedistill.cleaning.evidence import Verdict, judge, parting
from facedistill.cleaning.neighbours import nearest
from facedistill.cleaning.people import People

LEAST = 4  # images of a person that may be two people: two on each side
DRAWN, RARE = 20_000, 0.99  # pairs of strangers, and the share of them that are less alike than any two of a person
PARTED = 6  # images of a person whose parts are compared
PART = (0.25, 0.5)  # of a person's images that may stand under another name
SHARE = 0.1  # of a person's images; a smaller group is not another person, but errors
MOST = 256  # images of a person that are linked; the others join the nearer side


@dataclass
class Pairs:
    """Pairs of groups that may be one person.

    Attributes:
        pairs: int64 (P, 2), labels. scores: (P,), cosines of the centroids. verdict: of each pair.
    """

    pairs: np.ndarray
    scores: np.ndarray
    verdict: Verdict


def find_split(people: People, precision: float, rng: np.random.Generator) -> Pairs:
    """Judge which persons are one under two names: each with the person that is nearest to it."""
    there = np.flatnonzero(people.counts)
    units = _units(people.means[there])
    products, places = nearest(units, units, 1, leave_out_self=True)
    pairs = np.sort(np.stack([there[: len(places)], there[places[:, 0]]], axis=1) if places.size else _NONE, axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    scores = products.ravel()[first]
    known = _parted(people, (people.counts * rng.uniform(*PART, len(people.counts))).astype(int), rng)
    return Pairs(pairs, scores, judge(scores, known, precision, low=False))


def find_overlap(people: People, others: People, precision: float, rng: np.random.Generator) -> Pairs:
    """Judge which persons also stand among `others`: each with the other person that is nearest to it."""
    there, there_too = np.flatnonzero(people.counts), np.flatnonzero(others.counts)
    products, places = nearest(_units(people.means[there]), _units(others.means[there_too]), 1)
    pairs = np.stack([there, there_too[places[:, 0]]], axis=1)
    scores = products[:, 0]
    known = _parted(people, rng.choice(others.counts[there_too], len(people.counts)), rng)
    return Pairs(pairs, scores, judge(scores, known, precision, low=False))


_NONE = np.zeros((0, 2), np.int64)


def _parted(people: People, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part each person at random and return the cosines of the parts' centroids: how near one person is to itself.

    Args:
        sizes: int64 (C,), images in the smaller part of each; at most a half are taken, at least one.
    """
    labels, counts = people.labels, people.counts
    order = np.lexsort((rng.random(len(labels)), labels))
    first = np.searchsorted(labels[order], np.arange(len(counts)))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - first[labels[order]]
    small = rank < np.clip(sizes, 1, counts // 2)[labels]
    a, b = (_units(People.of(people.units[part], labels[part], len(counts)).means) for part in (small, ~small))
    return np.einsum("cd,cd->c", a, b)[counts >= PARTED]


def _units(means: np.ndarray) -> np.ndarray:
    return (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)).astype(np.float32)


@dataclass
class Merged:
    """Persons that may be two.

    Attributes:
        labels: int64 (P,). parts: of each, the places of the images of the smaller side. scores: (P,), cosines of the
            sides' centroids. verdict: of each.
    """

    labels: np.ndarray
    parts: list[np.ndarray]
    scores: np.ndarray
    verdict: Verdict


def find_merged(people: People, precision: float, rng: np.random.Generator) -> Merged:
    """Judge which persons are two people: each is parted in two where its images are linked most loosely.

    Known errors are made: each person's images together with those of a random other one.
    """
    order = np.argsort(people.labels, kind="stable")
    images = np.split(order, np.cumsum(people.counts)[:-1])
    labels, parts, found, known = [], [], [], []
    strange = _likeness_of_strangers(people, rng)
    for label, rows in enumerate(images):
        if sides := _two_sides(people.units[rows], strange, rng):
            labels.append(label)
            parts.append(rows[sides[1]])
            found.append(sides[0])
        stranger = int(people.labels[rng.integers(len(people.labels))])
        if stranger != label and min(len(rows), len(images[stranger])) > 1:
            both = np.concatenate([rows, images[stranger]])
            if sides := _two_sides(people.units[both], strange, rng):
                known.append(sides[0])
    scores, errors = (np.array(cosines).reshape(-1, 2) for cosines in (found, known))
    weights = parting(errors, scores)
    verdict = judge(scores @ weights, errors @ weights, precision, low=True)
    return Merged(np.array(labels, np.int64), parts, scores[:, 0], verdict)


def _likeness_of_strangers(people: People, rng: np.random.Generator) -> float:
    """Return the cosine that hardly two images of different persons have."""
    a, b = rng.integers(0, len(people.labels), (2, DRAWN))
    cosines = np.einsum("nd,nd->n", people.units[a], people.units[b])[people.labels[a] != people.labels[b]]
    return float(np.quantile(cosines, RARE)) if len(cosines) else 1.0


def _two_sides(
    units: np.ndarray, strange: float, rng: np.random.Generator
) -> tuple[tuple[float, float], np.ndarray] | None:
    """Part images (n, d) in two; return how alike the sides are, and the places of the smaller side.

    Alike: the cosine of the sides' centroids, and the mean cosine between their images.

    Average linkage; of all joints of two groups that each are a person, the loosest: no single errors, and images more
    alike than strangers. None for fewer than LEAST images, and where no such joint is.
    """
    if len(units) < LEAST:
        return None
    chosen = np.sort(rng.permutation(len(units))[:MOST])
    found = _loosest(units[chosen], max(2, int(np.ceil(SHARE * len(chosen)))), strange)
    if found is None:
        return None
    means = np.stack([units[chosen[side]].mean(0) for side in found])
    a, b = _units(means)
    nearer_b = units @ b > units @ a
    for side, of_b in zip(found, (False, True), strict=True):
        nearer_b[chosen[side]] = of_b
    alike = (float(a @ b), float(means[0] @ means[1]))
    return alike, np.flatnonzero(nearer_b if nearer_b.sum() <= len(units) / 2 else ~nearer_b)


def _loosest(units: np.ndarray, least: int, strange: float) -> tuple[list[int], list[int]] | None:
    """Link images by average cosine; return the two groups that are joined most loosely.

    Each has at least `least` images, of a mean cosine above `strange`.
    """
    likeness = (units @ units.T).astype(np.float64)
    np.fill_diagonal(likeness, -np.inf)
    members = [[i] for i in range(len(units))]
    found, at = None, np.inf
    for _ in range(len(units) - 1):
        i, j = divmod(int(likeness.argmax()), len(units))
        n, m = len(members[i]), len(members[j])
        if min(n, m) >= least and likeness[i, j] < at and min(_inner(units[members[k]]) for k in (i, j)) > strange:
            found, at = (members[i], members[j]), float(likeness[i, j])
        joined = (n * likeness[i] + m * likeness[j]) / (n + m)
        likeness[i], likeness[:, i] = joined, joined  # -inf for what is joined already, and for itself
        likeness[j] = likeness[:, j] = -np.inf
        members[i] = members[i] + members[j]
    return found


def _inner(units: np.ndarray) -> float:
    """Return the mean cosine between images (n, d), n > 1."""
    total, count = units.sum(0), len(units)
    return (float(total @ total) - count) / (count * (count - 1))
