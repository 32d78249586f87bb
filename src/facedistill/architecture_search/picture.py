"""The cells of a genotype as a picture: boxes for states, arrows for operations (SVG, no package needed)."""

from html import escape

from facedistill.backbones import Genotype

INPUTS = ("cell before last", "last cell")
WIDTH, ROW, TOP = 760, 44, 60
BOX, HIGH = 130, 30
COLOURS = {"dw": "#1f6f8b", "max": "#b5651d", "avg": "#b5651d", "skip": "#777777"}


def draw(genotype: Genotype) -> dict[str, str]:
    """Return an SVG of each cell, by its kind: its edges as rows, sorted by node."""
    return {kind: _cell(kind, getattr(genotype, kind)) for kind in ("normal", "reduce")}


def _cell(kind: str, nodes: tuple) -> str:
    edges = [(name, state, node) for node, row in enumerate(nodes, len(INPUTS)) for name, state in row]
    height = TOP + ROW * len(edges)
    title = {"normal": "Normal cell", "reduce": "Reduction cell"}[kind]
    parts = [f'<text x="10" y="26" font-size="18">{title}</text>']
    for i, (name, state, node) in enumerate(edges):
        y = TOP + ROW * i
        colour = COLOURS[name.split("_")[0]]
        parts += [
            _box(10, y, state_name(state)),
            _box(WIDTH - BOX - 10, y, state_name(node)),
            f'<line x1="{10 + BOX}" y1="{y + HIGH / 2}" x2="{WIDTH - BOX - 18}" y2="{y + HIGH / 2}" stroke="{colour}" '
            f'stroke-width="2" marker-end="url(#tip)"/>',
            f'<text x="{WIDTH / 2}" y="{y + HIGH / 2 - 5}" text-anchor="middle" fill="{colour}">{escape(name)}</text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def state_name(state: int) -> str:
    """Return what a state of a cell is called: one of its inputs, or a node, counted from 1."""
    return INPUTS[state] if state < len(INPUTS) else f"node {state - len(INPUTS) + 1}"


def _box(x: int, y: int, text: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{HIGH}" rx="5" fill="#f3f3ef" stroke="#999"/>'
        f'<text x="{x + BOX / 2}" y="{y + HIGH / 2 + 4.5}" text-anchor="middle">{escape(text)}</text>'
    )
