"""Tables in docs/ are generated from committed JSON: put one between its markers, or check that it is up to date."""

from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put_table(page: str, name: str, table: str) -> None:
    """Replace the text between `<!-- table: NAME -->` and `<!-- end of table -->` in docs/PAGE."""
    before, _, after = _split(page, name)
    (DOCS / page).write_text(f"{before}\n{table.strip()}\n{after}", encoding="utf-8")


def put_tables(page: str, tables: Mapping[str, str]) -> None:
    """Put every table of a page between its markers, and print it."""
    for name, table in tables.items():
        put_table(page, name, table)
        print(name, table, sep="\n", end="\n\n")


def stored_table(page: str, name: str) -> str:
    """Return the text between the markers."""
    return _split(page, name)[1].strip()


def _split(page: str, name: str) -> tuple[str, str, str]:
    start, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    before, found, rest = (DOCS / page).read_text(encoding="utf-8").partition(start)
    if not found:
        raise ValueError(f"docs/{page}: no place for the table; put {start} and {end} where it belongs")
    inside, _, after = rest.partition(end)
    return before + start, inside, end + after
