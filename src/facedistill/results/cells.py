"""A table of the report, whatever it shows, and its cells."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

WHOSE = ("run", "recipe", "method")  # columns that name what is compared
IMAGES_COLUMN = "images"  # the column of the resolution


class Cell(NamedTuple):
    """A number with small lines beneath it and a mark beside it, or a text that is aligned left."""

    value: str = ""
    below: str = ""
    verdict: str = ""
    text: bool = False
    mark: str = ""


@dataclass
class Table:
    """A table without its empty columns.

    Attributes:
        about: a line on how to read it.
        heads: the number of columns, from the left, that name the row.
    """

    caption: str
    about: str
    columns: list[str]
    rows: list[list[Cell]]
    heads: int = 1
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        used = [i for i in range(len(self.columns)) if any(row[i].value for row in self.rows)]
        self.heads = sum(i < self.heads for i in used)
        self.columns = [self.columns[i] for i in used]
        self.rows = [[row[i] for i in used] for row in self.rows]

    def begins(self, row: int) -> bool:
        """Return whether a new group begins at this row: other images, or with several runs another pair."""
        names = self.columns[: self.heads]
        several = names[:1] in (["run"], ["recipe"])
        kept = [i for i, name in enumerate(names) if (name not in WHOSE if several else name == IMAGES_COLUMN)]
        return row > 0 and any(self.rows[row][i] != self.rows[row - 1][i] for i in kept)

    def is_text(self, column: int) -> bool:
        return all(row[column].text or not row[column].value for row in self.rows)


def text(value: Any) -> Cell:
    return Cell("" if value is None else str(value), text=True)


def whole(value: int | None) -> Cell:
    return Cell("" if value is None else f"{value:,}")
