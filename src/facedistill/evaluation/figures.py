"""The declarations of a protocol about its results. Tables, reports and file checks know protocols only by these.

Imports no torch, because results are also read on machines that measure nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Target:
    """The target of a figure that is taken at a threshold which meets a target error rate.

    Attributes:
        rate: the name of the rate, "FAR".
        obtained: the key of the rate that the threshold gives.
        decided_by: the key of the number of comparisons that the target lets pass. They decide the threshold; a value
            with fewer than 20 of them is marked, and no set is summarised by it.
    """

    rate: str
    obtained: str
    decided_by: str


@dataclass(frozen=True)
class Figure:
    """A number that a protocol measures, or a family of numbers: one for each rate, rank or count.

    A result holds {key: {"value": 0.9, "ci95": [0.88, 0.92]}}, or for a family {key: {"1": {"value": 0.9}, "5": ...}}.
    A number's path is "key", or "key.1" in a family.

    Attributes:
        key: its key in a result of the evaluation JSON.
        label: the head of its column. "{}" makes the figure a family and is replaced by the member: "rank {}".
        sentence: the predicate for the summary, "puts {} of the images into their class"; "{}" is the value, "{of}" the
            member of a family. Default: "reaches {} in" and the label.
        unit: "%" for a fraction from 0 to 1, which is shown in percent. A value in any other unit is shown as it is.
        digits: decimals in the tables.
        headline: True if the figure may summarise a set. The first such figure that all results of the set have is
            taken; in a family with a target its lowest rate, otherwise its first member.
        overview: when the overview of several recipes shows it: "leading" if its protocol leads the set (see
            `PROTOCOLS`), "always" even if another protocol leads, "never" only in the tables of the runs.
        grouped: True for a fraction, 1 at best, that shows how equally the sets of a group are recognised.
        target: for a family whose members are target rates, highest first; other families start at the lowest.
        calibrates: True if a gallery keeps its thresholds, and backward compatibility is judged by it.
        bare: True if the result holds the number itself in place of {"value": ...}.
        interval: for a bare figure, the key of its interval in the result.
    """

    key: str
    label: str
    sentence: str = ""
    unit: str = "%"
    digits: int = 2
    headline: bool = False
    overview: Literal["leading", "always", "never"] = "leading"
    grouped: bool = False
    target: Target | None = None
    calibrates: bool = False
    bare: bool = False
    interval: str = ""

    @property
    def family(self) -> bool:
        return "{}" in self.label

    def name(self, of: str = "") -> str:
        """Return the label with the member `of` of a family filled in."""
        return self.label.replace("{}", of)


@dataclass(frozen=True)
class Count:
    """An integer of a result: the number of items that its figures were counted over, e.g. ("pairs", "pairs")."""

    key: str
    words: str


@dataclass(frozen=True)
class Line:
    """A plot of one line per model, from `curves[key]` of a result: values at 1, 2, ..., or {"x": [...], "y": [...]}.

    Attributes:
        title, x, y: the title and the names of the axes.
        about: a description for readers who cannot see the plot.
        unit: of the values, as in a Figure.
    """

    key: str
    title: str
    x: str
    y: str
    about: str
    unit: str = "%"


@dataclass(frozen=True)
class Declaration:
    """All declarations of a protocol about its results.

    Attributes:
        figures: in the order of the columns.
        counts: in the order in which they are printed.
        plots: the plots of "curves": "roc", "det" and "scores" of a Verification, or lines of its own.
    """

    figures: tuple[Figure, ...] = ()
    counts: tuple[Count, ...] = ()
    plots: tuple[Line | str, ...] = ()

    @classmethod
    def read(cls, content: Any) -> "Declaration":
        """Read what `to_json` returned. Raises pydantic.ValidationError for anything else."""
        return TypeAdapter(cls).validate_python(content)

    @classmethod
    def joined(cls, each: Iterable["Declaration"]) -> "Declaration":
        """Join declarations. If several declare one key, the first is taken."""
        each = list(each)
        if len(each) == 1:
            return each[0]
        figures: dict[str, Figure] = {}
        counts: dict[str, Count] = {}
        plots: dict[str, Line | str] = {}
        for one in each:
            for figure in one.figures:
                figures.setdefault(figure.key, figure)
            for count in one.counts:
                counts.setdefault(count.key, count)
            for plot in one.plots:
                plots.setdefault(plot if isinstance(plot, str) else plot.key, plot)
        return cls(tuple(figures.values()), tuple(counts.values()), tuple(plots.values()))

    def to_json(self) -> dict[str, Any]:
        """Return every value that is not the default."""
        found = {f.name: [_without_defaults(one) for one in getattr(self, f.name)] for f in fields(self)}
        return {key: value for key, value in found.items() if value}

    def figure(self, path: str) -> Figure | None:
        key = path.partition(".")[0]
        return next((figure for figure in self.figures if figure.key == key), None)

    def label(self, path: str) -> str:
        """Return a path in words: "tar_at_far.1e-3" -> "TAR at FAR 1e-3"; an undeclared path unchanged."""
        figure = self.figure(path)
        return figure.name(path.partition(".")[2]) if figure else path

    def order(self, path: str) -> tuple[int, float]:
        """Return a figure's place among the columns, in a family by rate, rank or count. Undeclared ones are last."""
        figure, of = self.figure(path), path.partition(".")[2]
        if figure is None:
            return len(self.figures), 0
        return self.figures.index(figure), (-float(of) if figure.target else float(of)) if of else 0

    def paths(self, results: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the paths of all declared figures that any of the results has, in the order of the columns."""
        found: set[str] = set()
        for result in results:
            for figure in self.figures:
                if figure.key in result:
                    family = (f"{figure.key}.{of}" for of in result[figure.key]) if figure.family else [figure.key]
                    found.update(family)
        return sorted(found, key=self.order)

    @property
    def calibrating(self) -> Figure | None:
        """The figure whose thresholds a gallery keeps."""
        return next((figure for figure in self.figures if figure.calibrates), None)

    @property
    def grouped(self) -> Figure | None:
        """The figure that shows how equally the sets of a group are recognised."""
        return next((figure for figure in self.figures if figure.grouped), None)


def estimate(result: Mapping[str, Any], path: str, figure: Figure | None) -> dict[str, Any] | None:
    """Return the number at a path of a result, with "value" and, if known, "ci95"; None if the result lacks it."""
    found: Any = result
    for key in path.split(".", 1):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    if not isinstance(found, Mapping):
        interval = figure.interval if figure else ""
        found = {"value": found} | ({"ci95": result[interval]} if interval in result else {})
    return found if "value" in found else None


def _without_defaults(of: Figure | Count | Line | str) -> Any:
    if isinstance(of, str):
        return of
    return {f.name: value for f in fields(of) if (value := asdict(of)[f.name]) != f.default}
