"""Several data sets as one: their images one after the other, under class names that do not collide."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from facedistill.data.sources.reading import read_table
from facedistill.data.sources.source import Source
from facedistill.errors import UsageError, UserError, closest, some
from facedistill.files import composed, fingerprint

EXPECTED = "expected the class of a set and its new name on each line: faces/ann,Ann Smith"
PREFIX, SAME = "prefix", "same"  # the ways to name classes, beside a table


class UnionSource(Source):
    """Images of several data sets. The key of an image is the name of its set, a slash, and its key there.

    Args:
        parts: the data sets by name.
        classes: how they are named. "prefix": NAME/class, so that nobody is in two sets; "same": as they are, so that
            equal names are one person; or a CSV of old name, class, in which the old names are those of "prefix", and
            classes that it does not list keep them.
        weights: how often each image of a set comes in an epoch, by the set's name; 1 if it is left out.

    Raises:
        UsageError: weights for a set that is not there.
        UserError: the CSV is none, or lists a class that no set has, or one class twice.
    """

    def __init__(
        self, parts: Mapping[str, Source], classes: str = PREFIX, weights: Mapping[str, float] | None = None
    ) -> None:
        self.parts, names = list(parts.values()), list(parts)
        self.path = ", ".join(part.path for part in self.parts)
        counts = [len(part) for part in self.parts]
        self.starts = np.cumsum([0, *counts])
        self.keys = [f"{name}/{key}" for name, part in parts.items() for key in part.keys]
        of_parts = _names_of_classes(parts, classes)
        self.class_names = list(dict.fromkeys(name for names in of_parts for name in names))
        number = {name: i for i, name in enumerate(self.class_names)}
        self.labels = np.concatenate(
            [
                np.array([number[name] for name in names], dtype=np.int64)[part.labels]
                for names, part in zip(of_parts, self.parts, strict=True)
            ]
        )
        fingerprints = [part.fingerprint for part in self.parts]
        self.fingerprint = fingerprint("union", *names, *fingerprints, self.labels, "\0".join(self.class_names))
        self.stamp = fingerprint(*(part.stamp for part in self.parts)) if any(p.stamp for p in self.parts) else ""
        unlabelled = [np.zeros(n, bool) if p.unlabelled is None else p.unlabelled for n, p in zip(counts, self.parts)]
        self.unlabelled = np.concatenate(unlabelled)
        first = next((i for i, images in enumerate(unlabelled) if not images.all()), 0)
        which = np.repeat(np.arange(len(counts)), counts)
        self.extra = self.unlabelled | (which != first)
        self.weights = _weights(names, weights)[which] if weights else None
        self._join_labels()
        if len(kinds := {part.features for part in self.parts}) > 1:
            found = ", ".join("images" if kind is None else f"vectors of {kind} features" for kind in kinds)
            raise UserError(f"data: {self.path}: samples of several kinds ({found}); train on one kind at a time")
        self.features = self.parts[0].features

    def _join_labels(self) -> None:
        """Join the labels of sets whose images may have several. Raises UserError unless all sets have the same."""
        first = self.parts[0]
        for part in self.parts:
            if list(part.label_names) != list(first.label_names):
                odd = sorted(set(part.label_names) ^ set(first.label_names))
                raise UserError(
                    f"data: {first.path} and {part.path} differ in labels ({some(odd) or 'in their order'}); expected "
                    "the same label columns in each set"
                )
        tables = [part.multi_hot for part in self.parts if part.multi_hot is not None]
        self.multi_hot = np.concatenate(tables) if tables else None
        self.label_names, self.label_groups = first.label_names, first.label_groups

    def read(self, i: int) -> bytes | np.ndarray:
        part = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.parts[part].read(int(i - self.starts[part]))


def names_of_sets(specs: Sequence[str | Path]) -> list[str]:
    """Return a name for each set: the last part of its path, or the text before its options; numbered if equal."""
    found: list[str] = []
    for spec in map(str, specs):
        text = spec.removeprefix("unlabelled:")
        kind, _, options = text.partition(":")
        name = kind if options and not os.path.exists(text) else os.path.basename(os.path.abspath(text))
        same = sum(other.rpartition("-")[0] == name or other == name for other in found)
        found.append(f"{name}-{same + 1}" if same else name)
    return found


def _names_of_classes(parts: Mapping[str, Source], classes: str) -> list[list[str]]:
    """Return the class names of each set as the union has them."""
    if classes == SAME:
        return [part.class_names for part in parts.values()]
    prefixed = [[composed(f"{name}/{of}") for of in part.class_names] for name, part in parts.items()]
    if classes == PREFIX:
        return prefixed
    table, known = _read(Path(classes)), {name for names in prefixed for name in names}
    for old, (line, _) in table.items():
        if old not in known:
            there = "" if "/" in old else f"; a name begins with that of its set: {some([f'{n}/' for n in parts])}"
            raise UserError(f"{classes}, line {line}: no set has the class {old!r}{there}")
    return [[table[name][1] if name in table else name for name in names] for names in prefixed]


def _read(path: Path) -> dict[str, tuple[int, str]]:
    """Return line number and class by old name."""
    table: dict[str, tuple[int, str]] = {}
    for line, cells in read_table(path, EXPECTED):
        if len(cells) != 2 or not all(cells):
            raise UserError(f"{path}, line {line}: {len(cells)} cells, or an empty one; {EXPECTED}")
        old, new = map(composed, cells)
        if old in table:
            raise UserError(
                f"{path}, line {line}: {old!r} is listed before, on line {table[old][0]}; remove one of them"
            )
        table[old] = line, new
    if not table:
        raise UserError(f"{path}: no line; {EXPECTED}")
    return table


def _weights(names: list[str], weights: Mapping[str, float]) -> np.ndarray:
    for name in weights:
        if name not in names:
            raise UsageError(
                f"data.weights: no set is called '{name}'{closest(name, names)}; there are {', '.join(names)}"
            )
    return np.array([weights.get(name, 1.0) for name in names])
