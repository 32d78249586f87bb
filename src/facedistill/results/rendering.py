"""The evaluation JSON as plain Markdown tables, for the terminal and for documents."""

from collections.abc import Mapping, Sequence
from typing import Any

from facedistill.errors import printable
from facedistill.results import tables
from facedistill.results.cells import Cell, Table
from facedistill.results.overview import overview
from facedistill.results.reading import blocks, each


def render_table(evaluation: dict[str, Any]) -> str:
    """Return the models, groups of sets, and for each set and protocol its results and their differences.

    Rates are in percent, with 95% intervals. A figure whose threshold fewer than 20 impostors decide carries a star.
    Missing values are empty cells.
    """
    return render_comparison({"": evaluation})


def render_comparison(
    evaluations: Mapping[str, dict[str, Any]],
    across: Sequence[Mapping[str, Any]] = (),
    recipes: Mapping[str, dict[str, Any]] | None = None,
) -> str:
    """Return the tables of `render_table` for several evaluations, by the names of their runs, side by side.

    Args:
        across: the differences between their recipes, see across_runs.differences_to.
        recipes: the means over their seeds, see across_runs.over_seeds; they come first.
    """
    first = [
        *overview(recipes or {}),
        tables.models(evaluations),
        *tables.training(evaluations),
        *tables.groups(each(evaluations, "groups")),
    ]
    parts = [render(table) for table in first]
    for block, entries in blocks(evaluations).items():
        read, _ = tables.of_block(evaluations, block, entries, across)
        one = entries[0].result
        flip = f"flip {one['settings']['flip']}" if "flip" in one["settings"] else ""
        about = "; ".join(part for part in (tables.sizes(one), flip) if part)
        parts.append(f"{', '.join(block)}{f' ({about})' if about else ''}\n")
        parts += [render(table) for table in read]
    return "\n".join(parts)


def render(table: Table) -> str:
    """Return the caption, the table and its notes."""
    title = f"{table.caption}. {table.about}".rstrip(" .") + ":"
    body = markdown(table.columns, [[_plain(cell) for cell in row] for row in table.rows])
    return "\n".join([title, "", body, *(f"{note}\n" for note in table.notes)])


def _plain(cell: Cell) -> str:
    parts = (cell.value + cell.mark, *cell.below.splitlines(), cell.verdict)
    return " ".join(part for part in parts if part)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns. Empty columns are dropped; without rows, return ""."""
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[_one_cell(row[i]) for i in used] for row in [header, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(used))]
    lines.insert(1, ["-" * width for width in widths])
    text = "".join(f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths))} |\n" for line in lines)
    return text if rows else ""


def _one_cell(text: str) -> str:
    """Return text that may hold a name so that it stays in its cell."""
    return printable(text).replace("|", "\\|")
