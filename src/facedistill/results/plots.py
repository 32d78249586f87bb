"""The plots of the report: what each one shows. `drawing` draws them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from facedistill.evaluation import Line, declaration
from facedistill.results.drawing import (
    INK,
    Places,
    Plot,
    as_csv,
    colour,
    columns,
    draw,
    legend_of,
    point,
    shortened,
    stroke,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Mapping[str, Mapping[str, Any]]  # of the evaluation JSON, by the name of the series


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
            ax.plot(*columns(curve), **stroke(places[name]))
            for at in _operating_points(result).values():
                if at["far"] > 0:
                    point(ax, at["far"], at, places[name], size=3.5)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda far, _: _rate(far))
        ax.set_xlabel("false-accept rate (FAR)")
        ax.set_ylabel("true-accept rate (TAR), %")
        ax.set_ylim(top=100 + 0.02 * (100 - ax.get_ylim()[0]))

    alt = f"{about}: TAR in percent over FAR, logarithmic; bars are 95% intervals. {_listed(results)}."
    return draw("ROC", alt, paint, legend_of(results, places), _curve_csv(results), key)


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
            ax.plot(*columns([(deviate(far), deviate(miss)) for far, miss in curve]), **stroke(places[name]))
        far, miss = columns([at for curve in inside.values() for at in curve])
        at = [deviate(t) for t in ticks]
        ax.set_xticks(at, [_rate(t) for t in ticks])
        ax.set_yticks(at, [f"{100 * t:g}" for t in ticks])
        if far:
            ax.set_xlim(deviate(min(far)), deviate(max(min(0.5, max(far)), 2 * min(far))))
            ax.set_ylim(deviate(min(miss)) - 0.1, deviate(max(miss)) + 0.1)
        ax.set_xlabel("false-accept rate (FAR)")
        ax.set_ylabel("miss rate (1 − TAR), %")

    alt = f"{about}: miss rate in percent over false-accept rate, both in normal deviates. {_listed(results)}."
    return draw("DET", alt, paint, legend_of(results, places), _curve_csv(results), key)


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
    return as_csv(["series", "far", "tar"], ((name, *at) for name, result in results.items() for at in _curve(result)))


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
                ax.stairs(density, [*low, high[-1]], fill=True, color=colour(i), alpha=0.22, linewidth=0)
                ax.stairs(density, [*low, high[-1]], **stroke(i))
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
            ax.set_title(shortened(name), loc="left", pad=3)
            ax.set_yticks([])
            ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
            ax.set_xlim(*ends)
        axes[-1].set_xlabel("score (cosine)")

    alt = f"{about}: how the scores of genuine and of impostor pairs are distributed. {_listed(results)}."
    table = as_csv(
        ["series", "low", "high", *SCORE_KINDS], ((name, *row) for name, rows in bins.items() for row in rows)
    )
    return draw("Scores", alt, paint, legend_of(SCORE_KINDS), table, key, panels=len(results))


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
            ax.plot(*columns([(x, scale * y) for x, y in points]), **stroke(places[name]))
        ax.set_xlabel(declared.x)
        ax.set_ylabel(f"{declared.y}, {declared.unit}".removesuffix(", "))

    rows = [(name, x, y) for name, points in lines.items() for x, y in points]
    alt = f"{about}: {declared.about}. {_listed(results)}."
    table = as_csv(["series", declared.x, "rate" if declared.unit == "%" else "value"], rows)
    return draw(declared.title, alt, paint, legend_of(results, places), table, key)


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
            point(ax, x, figure, places[name], scale=of.scale)
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
    alt = f"{about}: {of.words} over {short} of the probe’s model. {_listed(figures)}."
    table = as_csv(["series", cost, of.path, "low", "high"], rows)
    return draw(f"{_upper(of.label)} against {short}", alt, paint, legend_of(figures, places), table, key, markers=True)


def against_resolution(
    lines: Mapping[str, Mapping[str, Mapping[str, Any]]], of: Axis, places: Places, about: str, key: str
) -> Plot:
    """Plot a figure over image resolution: {series: {"14 px": figure, ..., "full": figure}}, in that order."""
    where = list(dict.fromkeys(place for line in lines.values() for place in line))

    def paint(ax: "Axes") -> None:
        for n, (name, line) in enumerate(lines.items()):
            aside = 0.3 * ((n + 0.5) / len(lines) - 0.5)  # keeps intervals from hiding each other
            at = [where.index(place) + aside for place in line]
            ax.plot(at, [of.scale * figure["value"] for figure in line.values()], **stroke(places[name]))
            for x, figure in zip(at, line.values(), strict=True):
                point(ax, x, figure, places[name], scale=of.scale)
        ax.set_xticks(range(len(where)), where)
        ax.set_xlim(-0.5, len(where) - 0.5)
        ax.set_xlabel("images")
        ax.set_ylabel(of.title)

    rows = [(n, p, f["value"], *f.get("ci95", ["", ""])) for n, line in lines.items() for p, f in line.items()]
    alt = f"{about}: {of.words} at each resolution; bars are 95% intervals. {_listed(lines)}."
    table = as_csv(["series", "images", of.path, "low", "high"], rows)
    title = f"{_upper(of.label)} against resolution"
    return draw(title, alt, paint, legend_of(lines, places), table, key, markers=True)


def training(logs: Mapping[str, Sequence[Mapping[str, Any]]], name: str, key: str) -> Plot:
    """Plot the logged values of `name` over the steps of training, one line per run."""
    curves = {run: [(row["step"], row[name]) for row in log if name in row] for run, log in logs.items()}
    words = _words(name)

    def paint(ax: "Axes") -> None:
        for i, curve in enumerate(curves.values()):
            ax.plot(*columns(curve), **stroke(i))
        ax.set_xlabel("step")
        ax.set_ylabel(shortened(words, 40))

    rows = [(run, *at) for run, curve in curves.items() for at in curve]
    alt = f"{words} over the steps of training. {_listed(curves)}."
    return draw(_upper(words), alt, paint, legend_of(logs), as_csv(["series", "step", name], rows), key)


def _words(name: str) -> str:
    """Return a key of a log in words: "lfw.bin/all-pairs/tar_at_far/1e-3" -> "lfw.bin, all-pairs, TAR at FAR 1e-3"."""
    parts = name.split("/")
    says = declaration()
    known = [i for i, part in enumerate(parts) if says.figure(part)]
    if known:
        parts[known[-1] :] = [says.label(".".join(parts[known[-1] :]))]
    return {"lr": "learning rate"}.get(name, ", ".join(parts).replace("_", " "))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(names: Iterable[str]) -> str:
    return "; ".join(names)
