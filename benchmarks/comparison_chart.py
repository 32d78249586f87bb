"""The chart of docs/comparison.md, an SVG written by hand so that equal figures give equal bytes everywhere."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from facedistill.results.drawing import GRID, INK, MUTED, SERIES

WIDTH, LEFT, RIGHT = 900, 372, 872  # in px; the axis runs from LEFT to RIGHT
TOP, ROW, HEADING = 84, 26, 34
SHIFT = 4  # of the two marks of a row, up and down
TICKS = range(0, 101, 20)
OWN, CROSS = SERIES[0], SERIES[1]


class Figure(NamedTuple):
    """A figure in percent, with the ends of its interval."""

    value: float
    low: float
    high: float


class Row(NamedTuple):
    """A row of the chart.

    Attributes:
        own: student against itself. cross: student against the teacher's gallery.
    """

    group: str
    method: str
    w: str
    own: Figure
    cross: Figure


def chart(title: str, about: str, rows: Sequence[Row], teacher: float) -> str:
    """Return the chart. Rows of one group are together under its name; `teacher`: against itself, in percent."""
    parts: list[str] = []
    y = TOP
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            y += HEADING
            parts.append(text(24, y - 10, group, 'font-weight="600"'))
        parts += _row(row, y + ROW / 2)
        y += ROW
    bottom = y + 8
    height = bottom + 62
    axis = [text(24, 34, title, 'font-weight="600" font-size="17"'), *_legend()]
    for tick in TICKS:
        axis.append(line(_x(tick), TOP + 8, _x(tick), bottom, GRID, 1))
        axis.append(text(_x(tick), bottom + 18, str(tick), f'text-anchor="middle" fill="{MUTED}"'))
    axis.append(line(_x(teacher), TOP + 8, _x(teacher), bottom, INK, 1.5, ' stroke-dasharray="5 3"'))
    label = f"teacher against itself: {teacher:.1f}"
    axis.append(text(_x(teacher) - 6, TOP + 22, label, 'text-anchor="end"'))
    axis.append(text((LEFT + RIGHT) / 2, bottom + 42, about, f'text-anchor="middle" fill="{MUTED}"'))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_n(height)}" width="{WIDTH}" '
        f'height="{_n(height)}" font-family="system-ui, sans-serif" font-size="14" fill="{INK}" role="img">'
    )
    border = f'<rect x="1" y="1" width="{WIDTH - 2}" height="{_n(height - 2)}" rx="14" fill="#ffffff" stroke="{GRID}"/>'
    said = "; ".join(f"{row.method}, {row.w}: {row.own.value:.1f} and {row.cross.value:.1f}" for row in rows)
    alt = f"<title>{escape(f'{title}. Student against itself, and against the teacher: {said}.')}</title>"
    return "\n".join([head, alt, border, *axis, *parts, "</svg>"]) + "\n"


def _row(row: Row, y: float) -> list[str]:
    label = f'{escape(row.method)} <tspan fill="{MUTED}" font-size="13">{escape(row.w)}</tspan>'
    found = [f'<text x="36" y="{_n(y + 5)}">{label}</text>', line(LEFT, y, RIGHT, y, GRID, 1)]
    for figure, colour, at in ((row.own, OWN, y - SHIFT), (row.cross, CROSS, y + SHIFT)):
        found.append(line(_x(figure.low), at, _x(figure.high), at, colour, 2.5))
        found.append(mark(_x(figure.value), at, colour))
    return found


def _legend() -> list[str]:
    found = []
    for x, colour, words in (
        (24, OWN, "student against itself"),
        (230, CROSS, "student against the teacher’s gallery"),
    ):
        found += [line(x, 60, x + 26, 60, colour, 2.5), mark(x + 13, 60, colour), text(x + 34, 65, words)]
    return [*found, text(540, 65, "bars: 95% intervals", f'fill="{MUTED}"')]


def mark(x: float, y: float, colour: str) -> str:
    """Return a circle, or a square for the second series."""
    if colour == OWN:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4" fill="{colour}"/>'
    return f'<rect x="{_n(x - 3.5)}" y="{_n(y - 3.5)}" width="7" height="7" fill="{colour}"/>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, more: str = "") -> str:
    return f'<path d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}" stroke="{colour}" stroke-width="{width:g}"{more}/>'


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}"{" " * bool(more)}{more}>{escape(words)}</text>'


def _x(percent: float) -> float:
    return LEFT + (RIGHT - LEFT) * percent / 100


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
