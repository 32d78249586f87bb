"""All kinds of findings in a data set, from embeddings, labels and pixels, in an order in which each helps the next.

Copies come first, because an image must not vouch for its copy. Then images that show nobody, because they are far from
everybody. Then two people under one name, because the fewer images of one would look like errors. Then one person under
two names, because these images look like another person's. Then images that show somebody else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facedistill.cleaning.copies import Copies, find_copies, first_of_groups
from facedistill.cleaning.evidence import Verdict
from facedistill.cleaning.findings import KINDS, Finding
from facedistill.cleaning.people import People, Swapped, find_swapped
from facedistill.cleaning.persons import find_merged, find_overlap, find_split
from facedistill.cleaning.pictures import Pictures
from facedistill.cleaning.unclear import Known, find_unclear
from facedistill.data import Embeddings, fuse

LOOK = 0.25  # probability from which a finding that is not sure is listed, to look at
BESIDE = 4  # images of another person to look at


@dataclass
class Faces:
    """What is known of a data set's readable images.

    Attributes:
        rows: int64 (N,), their places in the data set. keys: of each. labels: int64 (N,). class_names: all.
        units: unit embeddings, float32 (N, d). lengths: of the raw ones, float64 (N,). pictures: of each.
        copies: how far copies are from their originals, see `pictures.altered`. unclear: spoiled images.
    """

    rows: np.ndarray
    keys: list[str]
    labels: np.ndarray
    class_names: list[str]
    units: np.ndarray
    lengths: np.ndarray
    pictures: Pictures
    copies: np.ndarray
    unclear: Known


def examine(
    faces: Faces, precision: float, against: Mapping[str, Embeddings] | None = None, seed: int = 0
) -> list[Finding]:
    """Return what is to be found in `faces` and in common with the sets `against`; the surest of each kind first."""
    rng = np.random.default_rng(seed)
    examiner = Examiner(faces, precision, rng)
    found = list(examiner.findings())
    for number, (name, table) in enumerate((against or {}).items()):
        found += examiner.overlap(name, table, number)
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(found, key=lambda f: (order[f.kind], not f.sure, -f.probability))


class Examiner:
    """The judgement of one data set."""

    def __init__(self, faces: Faces, precision: float, rng: np.random.Generator) -> None:
        self.faces, self.precision, self.rng = faces, precision, rng
        self.copies = find_copies(faces.units, faces.pictures, faces.copies, precision)
        count, labels = len(faces.class_names), faces.labels
        self.group = first_of_groups(self.copies.pairs[self.copies.flagged], len(labels))
        self.single = np.zeros(len(labels), bool)  # the first of each group's images under each name
        self.single[np.unique(self.group * count + labels, return_index=True)[1]] = True
        people, lengths = self._people(self.single, labels), faces.lengths[self.single]
        self.unclear = find_unclear(people, lengths, faces.unclear, precision).spread(self.single)
        self.single &= ~self.unclear.flagged
        self.merged = find_merged(self._people(self.single, labels), precision, rng)
        self.split = find_split(self._people(self.single, labels), precision, rng)
        self.joined = first_of_groups(self.split.pairs[self.split.verdict.flagged], count)[labels]
        for at in np.flatnonzero(self.merged.verdict.flagged).tolist():
            self.joined[self._part(at)] = count
            count += 1
        people = self._people(self.single, self.joined)
        self.swapped = _everywhere(find_swapped(people, precision, rng), self.single)
        self.sound = self.single & ~self.swapped.verdict.flagged
        self.people = self._people(self.sound, labels)
        self.core = np.zeros(len(labels), bool)
        self.core[np.flatnonzero(self.sound)[self.people.core]] = True

    def _people(self, which: np.ndarray, labels: np.ndarray) -> People:
        return People.of(self.faces.units[which], labels[which], max(len(self.faces.class_names), labels.max() + 1))

    def _part(self, at: int) -> np.ndarray:
        """Return the images that get a new name, of a person that may be two."""
        return np.flatnonzero(self.single)[self.merged.parts[at]]

    def _name(self, label: int) -> str:
        """Return the name of one of the joined labels; a new one is that of the person it was parted from."""
        return self.faces.class_names[self.faces.labels[np.flatnonzero(self.joined == label)[0]]]

    def findings(self) -> Iterator[Finding]:
        """Yield all but those in common with other sets."""
        kept = self._kept_of_groups()
        yield from self._duplicates(kept)
        yield from self._splits()
        dropped = kept[self.group] != np.arange(len(kept))
        yield from self._swaps(~dropped)
        yield from self._unclear(~dropped)
        yield from self._merges()

    def _kept_of_groups(self) -> np.ndarray:
        """Return for each group of copies the image to keep, at the place of its first: int64 (N,).

        The first one under the name that it fits best.
        """
        kept = np.arange(len(self.group))
        chance = np.where(self.single, self.swapped.verdict.probability, 2.0)
        order = np.lexsort((-np.arange(len(kept)), -chance))  # the best one is written last
        kept[self.group[order]] = order
        return kept

    def _duplicates(self, kept: np.ndarray) -> Iterator[Finding]:
        copies = self.copies
        best = _surest(copies, len(kept))
        for i in np.flatnonzero(kept[self.group] != np.arange(len(kept))).tolist():
            of = int(kept[self.group[i]])
            score, probability = best.get((i, of)) or best.get((of, i)) or (np.nan, 1.0)
            yield self._of_image("duplicate", i, self.faces.keys[of], score, probability, True, [of])
        for pair in np.flatnonzero(~copies.flagged & (copies.probability >= LOOK)).tolist():
            first, later = copies.pairs[pair].tolist()
            score, probability = _distance(copies.scores[pair]), float(copies.probability[pair])
            yield self._of_image("duplicate", later, self.faces.keys[first], score, probability, False, [first])

    def _splits(self) -> Iterator[Finding]:
        names = self.faces.class_names
        for at, probability, sure in _listed(self.split.verdict):
            a, b = self.split.pairs[at].tolist()
            rows = np.flatnonzero(self.faces.labels == a)
            yield Finding(
                *("split", "", names[a], names[b], float(self.split.scores[at]), probability, sure),
                *(self.faces.rows[rows], self._some_of(b)),
            )

    def _swaps(self, left: np.ndarray) -> Iterator[Finding]:
        for i, probability, sure in _listed(self.swapped.verdict):
            if left[i]:
                other = int(self.swapped.other[i])
                name = self._name(other) if other >= 0 else ""
                beside = [*self._core_of(int(self.joined[i])), *(self._core_of(other) if other >= 0 else [])]
                yield self._of_image("swapped", i, name, float(self.swapped.scores[i]), probability, sure, beside)

    def _unclear(self, left: np.ndarray) -> Iterator[Finding]:
        for i, probability, sure in _listed(self.unclear):
            if left[i] and not self.swapped.verdict.flagged[i]:
                beside = self._core_of(int(self.joined[i]))
                yield self._of_image("unclear", i, "", float(self.faces.lengths[i]), probability, sure, beside)

    def _merges(self) -> Iterator[Finding]:
        merged, taken = self.merged, set(self.faces.class_names)
        for at, probability, sure in _listed(merged.verdict):
            label, part = int(merged.labels[at]), self._part(at)
            name = _new_name(self.faces.class_names[label], taken)
            rest = np.setdiff1d(np.flatnonzero(self.sound & (self.faces.labels == label)), part)[:BESIDE]
            yield Finding(
                *("merged", "", self.faces.class_names[label], name, float(merged.scores[at]), probability, sure),
                *(self.faces.rows[part], self.faces.rows[rest]),
            )

    def overlap(self, name: str, table: Embeddings, number: int) -> Iterator[Finding]:
        """Yield the persons that also stand in the evaluation set `name`, number `number` of all."""
        others = People.of(fuse(table.vectors, "sum"), table.labels, len(table.class_names))
        found = find_overlap(self.people, others, self.precision, self.rng)
        for at, probability, sure in _listed(found.verdict):
            label, other = found.pairs[at].tolist()
            yield Finding(
                *("overlap", "", self.faces.class_names[label], f"{name}: {table.class_names[other]}"),
                *(float(found.scores[at]), probability, sure, self.faces.rows[self.faces.labels == label]),
                *(np.flatnonzero(table.labels == other)[:BESIDE], number),
            )

    def _of_image(
        self, kind: str, i: int, other: str, score: float, probability: float, sure: bool, beside: Sequence[int]
    ) -> Finding:
        faces = self.faces
        person, rows = faces.class_names[faces.labels[i]], faces.rows[[i]]
        return Finding(kind, faces.keys[i], person, other, score, probability, sure, rows, faces.rows[list(beside)])

    def _core_of(self, label: int) -> list[int]:
        return np.flatnonzero(self.core & (self.joined == label))[:BESIDE].tolist()

    def _some_of(self, label: int) -> np.ndarray:
        return self.faces.rows[np.flatnonzero(self.sound & (self.faces.labels == label))[:BESIDE]]


def _everywhere(found: Swapped, judged: np.ndarray) -> Swapped:
    scores, other = np.full(len(judged), np.nan), np.full(len(judged), -1)
    scores[judged], other[judged] = found.scores, found.other
    return Swapped(found.verdict.spread(judged), scores, other)


def _listed(verdict: Verdict) -> Iterator[tuple[int, float, bool]]:
    """Yield place, probability, and whether it is sure, of all that are worth a look."""
    for i in np.flatnonzero(verdict.flagged | (verdict.probability >= LOOK)).tolist():
        yield i, float(verdict.probability[i]), bool(verdict.flagged[i])


def _surest(copies: Copies, count: int) -> dict[tuple[int, int], tuple[float, float]]:
    """Return distance and probability of each pair that is judged a copy."""
    flagged = copies.flagged
    values = zip(map(_distance, copies.scores[flagged]), copies.probability[flagged].tolist(), strict=True)
    return dict(zip(map(tuple, copies.pairs[flagged].tolist()), values, strict=True))


def _distance(score: float) -> float:
    """Return the distance of two small images from its logarithm, see `pictures.apart`."""
    return max(0.0, float(np.exp(score)) - 1e-3)


def _new_name(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    taken.add(f"{name} ({number})")
    return f"{name} ({number})"
