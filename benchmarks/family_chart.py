"""The chart of docs/model.md: what a student of each network finds, by what the network costs, with the Pareto fronts.

An SVG written by hand, as comparison_chart's is.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from comparison_chart import line, text

from facedistill.results.drawing import GRID, INK, MUTED, SERIES

PANEL, GAP, LEFT, TOP, HEIGHT, MARK = 280, 54, 56, 96, 300, 8  # px
TICK, LEAST = 10, 10  # percent between two lines; percent that the axis shows at least
COLUMNS, COLUMN = 4, 245


class Network(NamedTuple):
    """A network: what it costs, by the panel's head, and its rate with the ends of its interval, in percent."""

    name: str
    costs: Mapping[str, float]
    figure: tuple[float, float, float]


def front(networks: Sequence[Network], cost: str) -> list[Network]:
    """Return the networks that no other one beats at no higher a cost, the cheapest first."""
    found: list[Network] = []
    for one in sorted(networks, key=lambda n: (n.costs[cost], -n.figure[0])):
        if not found or one.figure[0] > found[-1].figure[0]:
            found.append(one)
    return found


def chart(title: str, about: str, heads: Sequence[str], networks: Sequence[Network]) -> str:
    """Return the chart: a panel for each kind of cost; a line joins the networks of its Pareto front."""
    width = LEFT + len(heads) * (PANEL + GAP)
    bottom, rows = TOP + HEIGHT, -(-len(networks) // COLUMNS)
    height = bottom + 80 + 24 * rows
    top = TICK * max(LEAST // TICK, math.ceil(max(one.figure[2] for one in networks) / TICK))
    parts = [text(24, 34, title, 'font-weight="600" font-size="17"'), text(24, 58, about, f'fill="{MUTED}"')]
    for place, head in enumerate(heads):
        parts += _panel(head, networks, LEFT + place * (PANEL + GAP), top)
    for number, one in enumerate(networks):
        x, y = LEFT + number % COLUMNS * COLUMN, bottom + 76 + 24 * (number // COLUMNS)
        parts += [*_mark(x, y, number), text(x + 16, y + 5, one.name)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="{INK}" role="img">'
    )
    said = "; ".join(f"{one.name}: {one.figure[0]:.1f}" for one in networks)
    border = f'<rect x="1" y="1" width="{width - 2}" height="{height - 2}" rx="14" fill="#ffffff" stroke="{GRID}"/>'
    return "\n".join([head, f"<title>{escape(f'{title}. {said}.')}</title>", border, *parts, "</svg>"]) + "\n"


def _panel(head: str, networks: Sequence[Network], left: float, top: int) -> list[str]:
    found = []
    for tick in range(0, top + 1, TICK):
        y = _y(tick, top)
        found += [line(left, y, left + PANEL, y, GRID, 1)]
        found += [text(left - 8, y + 5, str(tick), f'text-anchor="end" fill="{MUTED}"')]
    costs = [one.costs[head] for one in networks]
    ends = math.log(min(costs)), math.log(max(costs))

    def x(cost: float) -> float:
        return left + PANEL * (0.06 + 0.88 * (math.log(cost) - ends[0]) / ((ends[1] - ends[0]) or 1))

    for at in _round_numbers(min(costs), max(costs)):
        found.append(line(x(at), TOP + HEIGHT, x(at), TOP + HEIGHT + 5, MUTED, 1))
        found.append(text(x(at), TOP + HEIGHT + 20, f"{at:g}", f'text-anchor="middle" fill="{MUTED}"'))
    found.append(text(left + PANEL / 2, TOP + HEIGHT + 44, head, 'text-anchor="middle" font-weight="600"'))
    for a, b in itertools.pairwise(front(networks, head)):
        ends_of = [(x(one.costs[head]), _y(one.figure[0], top)) for one in (a, b)]
        found.append(line(*ends_of[0], *ends_of[1], SERIES[1], 2))
    for number, one in enumerate(networks):
        at, (value, low, high) = x(one.costs[head]), one.figure
        found.append(line(at, _y(low, top), at, _y(high, top), SERIES[0], 1.5))
        found += _mark(at, _y(value, top), number)
    return found


def _mark(x: float, y: float, number: int) -> list[str]:
    """Return a circle with the network's number in it."""
    words = text(x, y + 4, str(number + 1), 'text-anchor="middle" font-size="11" fill="#ffffff"')
    return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{MARK}" fill="{SERIES[0]}"/>', words]


def _round_numbers(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between the ends; 1 alone if these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [number for number in found if low <= number <= high]
    return inside if len(inside) < 7 else inside[::2]


def _y(percent: float, top: int) -> float:
    return TOP + HEIGHT * (1 - percent / top)
