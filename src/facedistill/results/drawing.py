"""How a plot of the report is drawn: as SVG for the page, whose colours follow the page's, and to save as a file.

Text stays text, equal input gives equal bytes, and ids are the plot's own, so that many plots fit into one page. Series
differ in colour and in dashes or markers, for grey prints and for readers who cannot tell the colours apart.
"""

import csv
import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from facedistill.errors import no_formula, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The page replaces each colour by the variable of the same name, which it sets for light, dark and paper.
INK, MUTED, GRID = "#1b1f24", "#57606b", "#e3e6ea"
SERIES = ("#0b62a8", "#c2410c", "#0a7a55", "#8a3f98", "#8a6a00", "#5b6570")
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--series-{i}" for i, c in enumerate(SERIES)}
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))
MARKERS = "osD^vP"
WIDTH, BODY, PANEL, HEAD = 400, 236, 92, 18  # in px; a panel's head holds its title
LEFT, RIGHT, TOP, BOTTOM, LINE = 50, 12, 12, 48, 16

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)

ESCAPED = "backslashreplace"  # shows file names that are not UTF-8 as \udcff, which is also valid JSON
Places = Mapping[str, int]  # the number of a name's colour and dashes; the same in all plots of a page


@dataclass(frozen=True)
class Plot:
    """A plot in its forms.

    Attributes:
        alt: a description for readers who cannot see it.
        svg: for the page. file: the same as a stand-alone file. csv: the data that are drawn. figure: matplotlib's.
    """

    title: str
    alt: str
    svg: str
    file: str
    csv: str
    figure: Any = field(default=None, compare=False, repr=False)

    def png(self) -> bytes:
        """Return the plot as a PNG on white, twice as large."""
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            self.figure.savefig(out, format="png", dpi=144, facecolor="white")
        return out.getvalue()


def draw(
    title: str,
    alt: str,
    paint: Callable[..., None],
    legend: Places,
    table: str,
    key: str,
    panels: int = 0,
    markers: bool = False,
) -> Plot:
    """Draw one axes, or several titled `panels` above each other, and the legend beneath, one line per series."""
    from matplotlib import rc_context, style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    each, head = (PANEL, HEAD) if panels else (BODY, 0)
    height, across = TOP + each * max(panels, 1) + BOTTOM + LINE * len(legend), WIDTH - LEFT - RIGHT
    with style.context("default"), rc_context(STYLE | {"svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw the letters
        figure = Figure((WIDTH / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes = []
        for n in range(max(panels, 1)):
            bottom = height - TOP - each * (n + 1)
            axes.append(figure.add_axes((LEFT / WIDTH, bottom / height, across / WIDTH, (each - head) / height)))
        for ax in axes[:-1]:
            ax.tick_params(labelbottom=False)
        paint(*axes)
        _draw_legend(figure, legend, height, markers)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    tree = _own(ElementTree.fromstring(written.getvalue()), key)
    tree.attrib.update({"role": "img", "aria-label": printable(alt)})
    file = ElementTree.tostring(tree, "unicode")
    for element in tree.iter():
        if "style" in element.attrib:
            coloured = element.attrib["style"]
            element.attrib["style"] = re.sub("#[0-9a-f]{6}", lambda m: f"var({VARIABLES[m[0]]})", coloured)
    del tree.attrib["width"], tree.attrib["height"]
    return Plot(title, alt, ElementTree.tostring(tree, "unicode"), file, table, figure)


ROOT = "font-family: system-ui, sans-serif; stroke-linejoin: round; stroke-linecap: butt"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold dollars
    "text.color": INK,
    "font.size": 10.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.titlesize": 10.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}


def legend_of(names: Iterable[str], places: Places | None = None) -> dict[str, int]:
    """Return the number of each name's colour and dashes: its place on the page, or else in this plot."""
    return {name: places[name] if places else i for i, name in enumerate(names)}


def _draw_legend(figure: "Figure", legend: Places, height: int, markers: bool) -> None:
    """Draw the legend by hand, because matplotlib's own leaves out names that begin with an underscore."""
    from matplotlib.lines import Line2D

    for row, (name, i) in enumerate(legend.items()):
        y = LINE * (len(legend) - row - 0.5) / height
        style = {"color": colour(i), "marker": _marker(i), "markersize": 5} if markers else stroke(i)
        ends = [LEFT + 11] if markers else [LEFT, LEFT + 22]
        figure.add_artist(Line2D([x / WIDTH for x in ends], [y] * len(ends), **style))
        figure.text((LEFT + 30) / WIDTH, y, shortened(name), va="center_baseline")


def _own(tree: ElementTree.Element, key: str) -> ElementTree.Element:
    """Clean the SVG: no style sheet, metadata or line breaks, the reader's font, coordinates in hundredths of a pixel.

    Ids that something refers to get the prefix `key`; all others are removed.
    """
    for element in list(tree.iter()):
        for child in list(element):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style") or _empty(child):
                element.remove(child)
    used = {name for element in tree.iter() for value in element.attrib.values() for name in REFERENCE.findall(value)}
    for element in tree.iter():
        for name, value in element.attrib.items():
            short = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value)
            element.attrib[name] = REFERENCE.sub(lambda m: m[0].replace("#", f"#{key}-"), short)
        if element.attrib.get("id", "") not in used:
            element.attrib.pop("id", None)
        else:
            element.attrib["id"] = f"{key}-{element.attrib['id']}"
        if "style" in element.attrib:
            element.attrib["style"] = re.sub(r"font-family: [^;]*; ?", "", element.attrib["style"])
        for part in ("text", "tail"):
            if not (getattr(element, part) or "").strip():
                setattr(element, part, None)
    tree.attrib["style"] = ROOT
    for side in ("width", "height"):
        tree.attrib[side] = tree.attrib[side].removesuffix("pt")
    return tree


REFERENCE = re.compile(r"(?:url\(|^)#([\w-]+)")


def _empty(element: ElementTree.Element) -> bool:
    return not len(element) and not element.text and not element.attrib.keys() - {"id"}


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV, in which no name is a spreadsheet's formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in [header, *rows]])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return no_formula(printable(value))


def point(ax: "Axes", x: float, figure: Mapping[str, Any], i: int, size: float = 5, scale: int = 100) -> None:
    """Draw a figure with its interval, multiplied by `scale` (100 for percent)."""
    if "ci95" in figure:
        ax.plot([x, x], [scale * end for end in figure["ci95"]], color=colour(i))
    ax.plot([x], [scale * figure["value"]], color=colour(i), marker=_marker(i), markersize=size, linestyle="none")


def columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return all x, and all y."""
    return [x for x, _ in points], [y for _, y in points]


def stroke(i: int) -> dict[str, Any]:
    """Return the colour and dashes of a line, as matplotlib's arguments."""
    return {"color": colour(i), "linestyle": DASHES[i % len(DASHES)]}


def colour(i: int) -> str:
    return SERIES[i % len(SERIES)]


def _marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def shortened(text: str, length: int = 56) -> str:
    """Return a name without its middle if it is long."""
    text = printable(text)
    return text if len(text) <= length else f"{text[: length // 2 - 1]} … {text[2 - length // 2 :]}"
