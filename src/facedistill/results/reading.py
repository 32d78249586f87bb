"""Read the evaluation JSON in the terms of tables and pages: models, conditions, figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from facedistill.evaluation import PROTOCOLS, Figure, declaration, estimate as estimate_of

FEW_IMPOSTORS = 20  # fewer do not decide a threshold


class Entry(NamedTuple):
    """A result and its run, which is "" if there is only one."""

    run: str
    result: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of a series: the run, or the pair of models if there is one run or all runs share the result."""
        return who(self.result) if self.run in ("", EVERY) else self.run


Block = tuple[str, str]  # set, protocol
EVERY = "every run"  # the run of a result that all runs share


def measured(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the evaluations without published figures, which are shown but never compared."""
    return {run: evaluation for run, evaluation in evaluations.items() if "published" not in evaluation}


def blocks(evaluations: Mapping[str, dict[str, Any]]) -> dict[Block, list[Entry]]:
    """Return all results by set and protocol, those of one pair of models and one resolution side by side.

    A result that is the same in every run (the teacher's own) is listed once.
    """
    found: dict[Block, dict[tuple[str, str], list[Entry]]] = {}
    runs = measured(evaluations).values()
    for run, evaluation in evaluations.items():
        for result in evaluation["results"]:
            alike = found.setdefault((result["set"], result["protocol"]), {})
            entries = alike.setdefault((condition(result), who(result)), [])
            if not any(result == other for _, other in entries):
                everywhere = len(runs) > 1 and all(result in e["results"] for e in runs)
                entries.append(Entry(EVERY if everywhere else run, result))
    return {block: [entry for entries in alike.values() for entry in entries] for block, alike in found.items()}


def each(
    evaluations: Mapping[str, dict[str, Any]], key: str, block: Block | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Return the entries of a list of the JSON, each with its run; only those of `block` (set, protocol) if given."""
    return [
        (run, one)
        for run, evaluation in evaluations.items()
        for one in evaluation.get(key, [])
        if block is None or (one["set"], one["protocol"]) == block
    ]


def who(result: Mapping[str, Any]) -> str:
    return f"{result['probe']} → {result['gallery']}"


def condition(of: Mapping[str, Any]) -> str:
    """Return the low resolution of a result or a difference in words, "" for unchanged images."""
    at = of.get("settings", of).get("resolution")
    if not at:
        return ""
    probe, gallery = at.get("probe"), at.get("gallery")
    sides = (
        f"both {probe} px" if probe == gallery else ", ".join(f"{side} {at[side]} px" for side in SIDES if side in at)
    )
    return ", ".join([sides, *(f"{key} {value}" for key, value in at.items() if key not in SIDES)])


SIDES = ("probe", "gallery")


def full_resolution(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if not condition(entry.result)]


def estimate(result: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """Return the number at a path such as "tar_at_far.1e-3" with its "value" and, if known, "ci95"."""
    return estimate_of(result, path, declaration(result).figure(path))


def few(value: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Return whether too few pairs or probes decide the threshold, so that the value cannot be trusted.

    If both directions are pooled, each pair of images counts twice.
    """
    enough = FEW_IMPOSTORS * (2 if "directions" in result.get("settings", {}) else 1)
    counts = [figure.target.decided_by for figure in declaration(result).figures if figure.target]
    return any(value.get(count, enough) < enough for count in counts)


def rate(entries: Sequence[Entry]) -> str | None:
    """Return the lowest target rate, "1e-4", that all results have and that enough impostor pairs decide in each."""
    figure = declaration(*(result for _, result in entries)).calibrating
    return None if figure is None else min(_members(figure, _trusted(entries)), key=float, default=None)


def headline(entries: Sequence[Entry]) -> str | None:
    """Return the path of the figure that summarises a set, one that all its results have and that can be trusted.

    It is the first figure that its protocol declares as a headline, else the first of all.
    """
    found = _trusted(entries)
    for figure in declaration(*(result for _, result in entries)).figures:
        if figure.headline and (own := [path for path in found if path.partition(".")[0] == figure.key]):
            return own[-1] if figure.target else own[0]
    return next(iter(found), None)


def _members(figure: Figure, paths: Iterable[str]) -> list[str]:
    return [of for key, _, of in (path.partition(".") for path in paths) if key == figure.key]


def _trusted(entries: Sequence[Entry]) -> list[str]:
    results = [result for _, result in entries]
    return [
        path
        for path in declaration(*results).paths(results)
        if all((of := estimate(result, path)) is not None and not few(of, result) for result in results)
    ]


def distinguishable(difference: Mapping[str, Any]) -> bool | None:
    """Return whether the interval of a difference excludes 0; None without an interval."""
    if "distinguishable" in difference:
        return bool(difference["distinguishable"])
    ends = difference.get("ci95")
    return None if ends is None else ends[0] > 0 or ends[1] < 0


def leading(found: Mapping[Block, Sequence[Entry]]) -> dict[str, str]:
    """Return, for each set, the protocol that summarises it: the one that comes first in `PROTOCOLS`."""
    places = {protocol: place for place, protocol in enumerate(PROTOCOLS)}
    chosen: dict[str, str] = {}
    for name, protocol in sorted(found, key=lambda block: places.get(block[1], len(places))):
        chosen.setdefault(name, protocol)
    return {name: chosen[name] for name, _ in found}


def head(figure: Figure | None, words: str) -> str:
    """Return the head of a column: its words, with the unit unless that is percent."""
    return words if figure is None or figure.unit == "%" else f"{words}, {figure.unit}".removesuffix(", ")


def shown(value: float | None, figure: Figure | None, digits: int | None = None) -> str:
    """Return a value as text: percent with `digits` decimals, or the number itself if it has another unit."""
    if value is None or figure is None or figure.unit == "%":
        return percent(value, digits if digits is not None else figure.digits if figure else 2)
    return f"{value:.{figure.digits}f}"


def shown_interval(ci95: Sequence[float] | None, figure: Figure | None, digits: int | None = None) -> str:
    return "" if ci95 is None else f"[{shown(ci95[0], figure, digits)}, {shown(ci95[1], figure, digits)}]"


def shown_difference(value: float, figure: Figure | None) -> str:
    """Return a difference with its sign, in points or in the figure's own unit."""
    if figure is None or figure.unit == "%":
        return points(value)
    return f"{value:+.{figure.digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """Return a difference of two fractions in points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def power(rate: float) -> str:
    """Return a small rate with three digits: 8.603e-07 -> "8.60e-7"."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}" if rate else "0"
