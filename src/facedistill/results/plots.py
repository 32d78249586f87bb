"""The plots of the report as SVG: one for the page, whose colours follow the page's, and one to save as a file.

Text stays text, equal input gives equal bytes, and ids are the plot's own, so that many plots fit into one page. Series
differ in colour and in dashes or markers, for grey prints and for readers who cannot tell the colours apart.
"""

import csv
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from facedistill.errors import no_formula, printable
from facedistill.evaluation import Line, declaration

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
Results = Mapping[str, Mapping[str, Any]]  # of the evaluation JSON, by the name of the series
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


def roc(results: Results, places: Places, about: str, key: str) -> Plot:
    """Plot TAR over FAR on a logarithmic axis, with the operating points and their intervals.

    Args:
        results: with "curves".
        about: for every plot: its subject, for readers who cannot see it.
        key: for every plot: a prefix of its ids that no other plot of the page has.
    """

    def paint(ax: "Axes") -> None:
        for name, result in results.items():
            curve = [(far, 100 * tar) for far, tar in _curve(result) if far > 0]
            ax.plot(*_columns(curve), **_line(places[name]))
            for at in _operating_points(result).values():
                if at["far"] > 0:
                    _point(ax, at["far"], at, places[name], size=3.5)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda far, _: _rate(far))
        ax.set_xlabel("false-accept rate (FAR)")
        ax.set_ylabel("true-accept rate (TAR), %")
        ax.set_ylim(top=100 + 0.02 * (100 - ax.get_ylim()[0]))

    alt = f"{about}: TAR in percent over FAR, logarithmic; bars are 95% intervals. {_all(results)}."
    return _plot("ROC", alt, paint, _legend(results, places), _curve_csv(results), key)


def det(results: Results, places: Places, about: str, key: str) -> Plot:
    """Plot miss rate over FAR, both on the scale of normal deviates, on which normal scores make straight lines."""
    deviate = NormalDist().inv_cdf
    ticks = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
    inside = {
        name: [(far, 1 - tar) for far, tar in _curve(result) if 0 < far < 1 and 0 < tar < 1]
        for name, result in results.items()
    }

    def paint(ax: "Axes") -> None:
        for name, curve in inside.items():
            ax.plot(*_columns([(deviate(far), deviate(miss)) for far, miss in curve]), **_line(places[name]))
        far, miss = _columns([at for curve in inside.values() for at in curve])
        at = [deviate(t) for t in ticks]
        ax.set_xticks(at, [_rate(t) for t in ticks])
        ax.set_yticks(at, [f"{100 * t:g}" for t in ticks])
        if far:
            ax.set_xlim(deviate(min(far)), deviate(max(min(0.5, max(far)), 2 * min(far))))
            ax.set_ylim(deviate(min(miss)) - 0.1, deviate(max(miss)) + 0.1)
        ax.set_xlabel("false-accept rate (FAR)")
        ax.set_ylabel("miss rate (1 − TAR), %")

    alt = f"{about}: miss rate in percent over false-accept rate, both in normal deviates. {_all(results)}."
    return _plot("DET", alt, paint, _legend(results, places), _curve_csv(results), key)


def _rate(rate: float) -> str:
    """Return a rate as text: 0.00001 -> "1e-5", 0.05 -> "0.05"."""
    return f"{rate:.0e}".replace("e-0", "e-") if rate < 0.02 else f"{rate:g}"


def _operating_points(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return, by target FAR, the values with the thresholds that a gallery keeps."""
    figure = declaration(result).calibrating
    return result.get(figure.key, {}) if figure else {}


def _curve(result: Mapping[str, Any]) -> list[tuple[float, float]]:
    curve = result["curves"]["roc"]
    return list(zip(curve["far"], curve["tar"], strict=True))


def _curve_csv(results: Results) -> str:
    return _csv(["series", "far", "tar"], ((name, *at) for name, result in results.items() for at in _curve(result)))


SCORE_KINDS = ("genuine", "impostor")
Bin = tuple[float, float, int, int]  # low edge, high edge, genuine pairs, impostor pairs


def scores(results: Results, far: str | None, about: str, key: str) -> Plot:
    """Plot histograms of the genuine and the impostor scores of each result, with the threshold of a FAR."""
    bins = {name: _bins(result["curves"]["scores"]) for name, result in results.items()}
    used = [edge for rows in bins.values() for low, high, *counts in rows if any(counts) for edge in (low, high)]
    ends = min(used, default=-1), max(used, default=1)
    middle = sum(ends) / 2

    def paint(*axes: "Axes") -> None:
        for ax, (name, result) in zip(axes, results.items(), strict=True):
            low, high, *kinds = zip(*_merged(bins[name]), strict=True)
            widths = [right - left for left, right in zip(low, high)]
            for i, counts in enumerate(kinds):
                density = [count / (sum(counts) or 1) / width for count, width in zip(counts, widths)]
                ax.stairs(density, [*low, high[-1]], fill=True, color=_colour(i), alpha=0.22, linewidth=0)
                ax.stairs(density, [*low, high[-1]], **_line(i))
            if at := _operating_points(result).get(far or ""):
                ax.axvline(at["threshold"], color=INK, linewidth=1)
                left = at["threshold"] > middle
                ax.annotate(
                    f"FAR {far}",
                    (at["threshold"], 0.95),
                    (-4 if left else 4, 0),
                    ("data", "axes fraction"),
                    "offset points",
                    va="top",
                    ha="right" if left else "left",
                )
            ax.set_title(_short(name), loc="left", pad=3)
            ax.set_yticks([])
            ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
            ax.set_xlim(*ends)
        axes[-1].set_xlabel("score (cosine)")

    alt = f"{about}: how the scores of genuine and of impostor pairs are distributed. {_all(results)}."
    table = _csv(["series", "low", "high", *SCORE_KINDS], ((name, *row) for name, rows in bins.items() for row in rows))
    return _plot("Scores", alt, paint, _legend(SCORE_KINDS), table, key, panels=len(results))


def _bins(histogram: Mapping[str, Any]) -> list[Bin]:
    low, high, number = histogram["low"], histogram["high"], len(histogram["genuine"])
    edges = [low + (high - low) * n / number for n in range(number + 1)]
    return list(zip(edges, edges[1:], *(histogram[kind] for kind in SCORE_KINDS)))


def _merged(bins: Sequence[Bin]) -> list[Bin]:
    """Merge bins until the n genuine pairs fill them smoothly: about 2 sqrt(n) bins. This is for the eye alone."""
    pairs = sum(genuine for _, _, genuine, _ in bins)
    size = math.ceil(len(bins) / max(25, round(2 * math.sqrt(pairs))))
    groups = [bins[n : n + size] for n in range(0, len(bins), size)]
    return [(of[0][0], of[-1][1], sum(b[2] for b in of), sum(b[3] for b in of)) for of in groups]


def line(declared: Line, results: Results, places: Places, about: str, key: str) -> Plot:
    """Plot one line per result, as its protocol declares it."""
    scale = 100 if declared.unit == "%" else 1
    lines = {name: _points(result["curves"][declared.key]) for name, result in results.items()}

    def paint(ax: "Axes") -> None:
        for name, points in lines.items():
            ax.plot(*_columns([(x, scale * y) for x, y in points]), **_line(places[name]))
        ax.set_xlabel(declared.x)
        ax.set_ylabel(f"{declared.y}, {declared.unit}".removesuffix(", "))

    rows = [(name, x, y) for name, points in lines.items() for x, y in points]
    alt = f"{about}: {declared.about}. {_all(results)}."
    table = _csv(["series", declared.x, "rate" if declared.unit == "%" else "value"], rows)
    return _plot(declared.title, alt, paint, _legend(results, places), table, key)


def _points(curve: Any) -> list[tuple[float, float]]:
    """Return x and y of a line's points; a list of values is at x = 1, 2, ..."""
    if isinstance(curve, Mapping):
        return list(zip(curve["x"], curve["y"], strict=True))
    return list(enumerate(curve, 1))


class Axis(NamedTuple):
    """The figure on the vertical axis."""

    path: str
    label: str
    scale: int
    title: str

    @classmethod
    def of(cls, path: str, results: Sequence[Mapping[str, Any]]) -> "Axis":
        says = declaration(*results)
        figure = says.figure(path)
        unit = figure.unit if figure else "%"
        return cls(path, says.label(path), 100 if unit == "%" else 1, f"{says.label(path)}, {unit}".removesuffix(", "))

    @property
    def words(self) -> str:
        return f"{self.label} in percent" if self.scale == 100 else self.title


COST_AXES = {"parameters": "parameters", "macs": "MACs", "latency_ms": "latency of one image, ms"}


def against_cost(
    figures: Mapping[str, tuple[float, Mapping[str, Any]]],
    cost: str,
    of: Axis,
    places: Places,
    about: str,
    key: str,
) -> Plot:
    """Plot a figure of each result over the cost of its probe's model; `cost` is one of COST_AXES."""
    label, short = COST_AXES[cost], COST_AXES[cost].split(" ")[0]

    def paint(ax: "Axes") -> None:
        from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

        for name, (x, figure) in figures.items():
            _point(ax, x, figure, places[name], scale=of.scale)
        prices = [x for x, _ in figures.values()]
        wide = min(prices) > 0 and max(prices) >= 5 * min(prices)
        if wide:
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.1)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
        ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
        ax.set_xlabel(label)
        ax.set_ylabel(of.title)

    rows = [(name, x, figure["value"], *figure.get("ci95", ["", ""])) for name, (x, figure) in figures.items()]
    alt = f"{about}: {of.words} over {short} of the probe’s model. {_all(figures)}."
    table = _csv(["series", cost, of.path, "low", "high"], rows)
    return _plot(f"{_upper(of.label)} against {short}", alt, paint, _legend(figures, places), table, key, markers=True)


def against_resolution(
    lines: Mapping[str, Mapping[str, Mapping[str, Any]]], of: Axis, places: Places, about: str, key: str
) -> Plot:
    """Plot a figure over image resolution: {series: {"14 px": figure, ..., "full": figure}}, in that order."""
    where = list(dict.fromkeys(place for line in lines.values() for place in line))

    def paint(ax: "Axes") -> None:
        for n, (name, line) in enumerate(lines.items()):
            aside = 0.3 * ((n + 0.5) / len(lines) - 0.5)  # keeps intervals from hiding each other
            at = [where.index(place) + aside for place in line]
            ax.plot(at, [of.scale * figure["value"] for figure in line.values()], **_line(places[name]))
            for x, figure in zip(at, line.values(), strict=True):
                _point(ax, x, figure, places[name], scale=of.scale)
        ax.set_xticks(range(len(where)), where)
        ax.set_xlim(-0.5, len(where) - 0.5)
        ax.set_xlabel("images")
        ax.set_ylabel(of.title)

    rows = [(n, p, f["value"], *f.get("ci95", ["", ""])) for n, line in lines.items() for p, f in line.items()]
    alt = f"{about}: {of.words} at each resolution; bars are 95% intervals. {_all(lines)}."
    table = _csv(["series", "images", of.path, "low", "high"], rows)
    title = f"{_upper(of.label)} against resolution"
    return _plot(title, alt, paint, _legend(lines, places), table, key, markers=True)


def training(logs: Mapping[str, Sequence[Mapping[str, Any]]], name: str, key: str) -> Plot:
    """Plot the logged values of `name` over the steps of training, one line per run."""
    curves = {run: [(row["step"], row[name]) for row in log if name in row] for run, log in logs.items()}
    words = _words(name)

    def paint(ax: "Axes") -> None:
        for i, curve in enumerate(curves.values()):
            ax.plot(*_columns(curve), **_line(i))
        ax.set_xlabel("step")
        ax.set_ylabel(_short(words, 40))

    rows = [(run, *at) for run, curve in curves.items() for at in curve]
    alt = f"{words} over the steps of training. {_all(curves)}."
    return _plot(_upper(words), alt, paint, _legend(logs), _csv(["series", "step", name], rows), key)


def _words(name: str) -> str:
    """Return a key of a log in words: "lfw.bin/all-pairs/tar_at_far/1e-3" -> "lfw.bin, all-pairs, TAR at FAR 1e-3"."""
    parts = name.split("/")
    says = declaration()
    known = [i for i, part in enumerate(parts) if says.figure(part)]
    if known:
        parts[known[-1] :] = [says.label(".".join(parts[known[-1] :]))]
    return {"lr": "learning rate"}.get(name, ", ".join(parts).replace("_", " "))


def _plot(
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


def _legend(names: Iterable[str], places: Places | None = None) -> dict[str, int]:
    return {name: places[name] if places else i for i, name in enumerate(names)}


def _draw_legend(figure: "Figure", legend: Places, height: int, markers: bool) -> None:
    """Draw the legend by hand, because matplotlib's own leaves out names that begin with an underscore."""
    from matplotlib.lines import Line2D

    for row, (name, i) in enumerate(legend.items()):
        y = LINE * (len(legend) - row - 0.5) / height
        style = {"color": _colour(i), "marker": _marker(i), "markersize": 5} if markers else _line(i)
        ends = [LEFT + 11] if markers else [LEFT, LEFT + 22]
        figure.add_artist(Line2D([x / WIDTH for x in ends], [y] * len(ends), **style))
        figure.text((LEFT + 30) / WIDTH, y, _short(name), va="center_baseline")


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


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in [header, *rows]])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return no_formula(printable(value))


def _point(ax: "Axes", x: float, figure: Mapping[str, Any], i: int, size: float = 5, scale: int = 100) -> None:
    """Draw a figure with its interval, multiplied by `scale` (100 for percent)."""
    if "ci95" in figure:
        ax.plot([x, x], [scale * end for end in figure["ci95"]], color=_colour(i))
    ax.plot([x], [scale * figure["value"]], color=_colour(i), marker=_marker(i), markersize=size, linestyle="none")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _line(i: int) -> dict[str, Any]:
    return {"color": _colour(i), "linestyle": DASHES[i % len(DASHES)]}


def _colour(i: int) -> str:
    return SERIES[i % len(SERIES)]


def _marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def _short(text: str, length: int = 56) -> str:
    text = printable(text)
    return text if len(text) <= length else f"{text[: length // 2 - 1]} … {text[2 - length // 2 :]}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _all(names: Iterable[str]) -> str:
    return "; ".join(names)
