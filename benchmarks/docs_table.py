"""Tables in docs/ are generated from committed JSON: put one between its markers, or check that it is up to date."""

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put_table(page: str, name: str, table: str) -> None:
    """Replace the text between `<!-- table: NAME -->` and `<!-- end of table -->` in docs/PAGE."""
    before, _, after = _split(page, name)
    (DOCS / page).write_text(f"{before}\n{table.strip()}\n{after}", encoding="utf-8")


def stored_table(page: str, name: str) -> str:
    """Return the text between the markers."""
    return _split(page, name)[1].strip()


def _split(page: str, name: str) -> tuple[str, str, str]:
    start, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    before, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(start)
    inside, _, after = rest.partition(end)
    return before + start, inside, end + after
