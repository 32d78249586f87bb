"""The chart of docs/scale.md: TAR against the number of people, an SVG written by hand as comparison_chart's is."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from comparison_chart import line, mark, text

from facedistill.results.drawing import GRID, INK, MUTED, SERIES

WIDTH, PANEL, GAP, LEFT, TOP, HEIGHT = 980, 400, 90, 56, 96, 330  # px
TICKS = range(0, 101, 20)


class Line(NamedTuple):
    """A method: its TAR and the ends of its interval, in percent, by the number of people."""

    name: str
    figures: Mapping[int, tuple[float, float, float]]


def chart(title: str, about: str, panels: Mapping[str, Sequence[Line]]) -> str:
    """Return the chart, a panel beside the other. Lines of one name have one colour and one place in the legend."""
    names = [one.name for one in next(iter(panels.values()))]
    people = sorted({n for lines in panels.values() for one in lines for n in one.figures})
    legend_rows = -(-len(names) // 3)
    bottom = TOP + HEIGHT
    height = bottom + 70 + 24 * legend_rows
    parts = [text(24, 34, title, 'font-weight="600" font-size="17"')]
    for place, (head, lines) in enumerate(panels.items()):
        left = LEFT + place * (PANEL + GAP)
        parts += _axes(head, about, people, left)
        for index, one in enumerate(lines):
            parts += _line_of(one, people, left, index, len(names))
    for index, name in enumerate(names):
        x, y = LEFT + (index % 3) * 300, bottom + 78 + 24 * (index // 3)
        parts += [line(x, y, x + 26, y, _colour(index), 2.5, _dash(index)), text(x + 34, y + 5, name)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="{INK}" role="img">'
    )
    border = f'<rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="14" fill="#ffffff" stroke="{GRID}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", border, *parts, "</svg>"]) + "\n"


def _axes(head: str, about: str, people: Sequence[int], left: float) -> list[str]:
    bottom = TOP + HEIGHT
    found = [text(left, TOP - 22, head, 'font-weight="600"')]
    for tick in TICKS:
        found.append(line(left, _y(tick), left + PANEL, _y(tick), GRID, 1))
        found.append(text(left - 8, _y(tick) + 5, str(tick), f'text-anchor="end" fill="{MUTED}"'))
    for n in people:
        found.append(text(_x(n, people, left), bottom + 20, f"{n:,}", f'text-anchor="middle" fill="{MUTED}"'))
    return [*found, text(left + PANEL / 2, bottom + 42, about, f'text-anchor="middle" fill="{MUTED}"')]


def _line_of(one: Line, people: Sequence[int], left: float, index: int, count: int) -> list[str]:
    """Return a method's line, marks and intervals; it is moved sideways a little, so that intervals do not overlap."""
    aside = 5.0 * (index - (count - 1) / 2)
    at = [(_x(n, people, left) + aside, *figure) for n, figure in sorted(one.figures.items())]
    colour = _colour(index)
    found = []
    for (x1, y1, *_), (x2, y2, *_) in itertools.pairwise(at):
        found.append(line(x1, _y(y1), x2, _y(y2), colour, 1.5, _dash(index)))
    for x, value, low, high in at:
        found += [line(x, _y(low), x, _y(high), colour, 1.5), mark(x, _y(value), colour)]
    return found


def _colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _dash(index: int) -> str:
    return "" if index < len(SERIES) else ' stroke-dasharray="5 3"'


def _x(n: int, people: Sequence[int], left: float) -> float:
    """Return the place of a number of people on the logarithmic axis."""
    low, high = math.log(people[0]), math.log(people[-1])
    return left + PANEL * (0.12 + 0.76 * (math.log(n) - low) / ((high - low) or 1.0))


def _y(percent: float) -> float:
    return TOP + HEIGHT * (1 - percent / 100)
