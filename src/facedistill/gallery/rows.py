"""Many vectors as arrays to search in."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from facedistill.gallery.mapped import Mapped


class Rows:
    """N vectors, as they are stored, in the order in which they were added.

    Attributes:
        parts: arrays (n, d) of float32 or int8, N rows together. people: int64 (N,), the id of each row's person.
        generation, last: which rows these are: a count of the gallery's changes, and the id of the last vector.
    """

    def __init__(
        self, parts: list[np.ndarray], people: np.ndarray, generation: int, last: int, file: Mapped | None = None
    ) -> None:
        self.parts, self.people, self.generation, self.last, self.file = parts, people, generation, last, file
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self.people)

    def blocks(self, size: int, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the place of a row, and up to `size` rows from it, from `first` on. The first blocks are smaller.

        Raises Damaged if a mapped row is not as it was written.
        """
        place, now = 0, min(size, 64)
        for part in self.parts:
            at = max(0, first - place)
            while at < len(part):
                if self.file and not place:
                    self.file.check(at, min(at + now, len(part)))
                yield place + at, part[at : at + now]
                at, now = at + now, min(2 * now, size)
            place += len(part)

    def check(self) -> None:
        """Raise Damaged if a mapped row is not as it was written."""
        if self.file:
            self.file.check(0, len(self.parts[0]))

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at `places` as they are stored, (n, d)."""
        if len(self.parts) == 1:
            return self.parts[0][places]
        found = np.empty((len(places), self.parts[0].shape[1]), self.parts[0].dtype)
        part = np.searchsorted(self._ends, places, side="right")
        for number, rows in enumerate(self.parts):
            inside = part == number
            found[inside] = rows[places[inside] - (self._ends[number] - len(rows))]
        return found

    @cached_property
    def by_person(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The places of all rows, person by person; the persons' ids, ascending; and where each begins (and an end)."""
        order = np.argsort(self.people, kind="stable")
        ids, starts = np.unique(self.people[order], return_index=True)
        return order, ids, np.append(starts, len(order))
