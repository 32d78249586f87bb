"""A summary in a few sentences, from the numbers alone. No difference is claimed if its interval contains 0."""

from collections.abc import Mapping, Sequence
from typing import Any

from facedistill.evaluation import Figure, declaration
from facedistill.results.reading import (
    EVERY,
    Block,
    Entry,
    condition,
    distinguishable,
    estimate,
    full_resolution,
    headline,
    leading,
    percent,
    shown,
    shown_difference,
    shown_interval,
)

ROLES = ("student", "teacher", "baseline", "model")
SETS = 4  # the most sets in a summary
LISTED = 5  # the most runs in a sentence


def summary(evaluations: Mapping[str, dict[str, Any]], found: Mapping[Block, Sequence[Entry]]) -> list[str]:
    """Return paragraphs on the first sets and on each group of sets; for several runs, one per pair of models."""
    grouped = {name for e in evaluations.values() for g in e.get("groups", []) for name in g["sets"]}
    sets = [block for block in leading(found).items() if block[0] not in grouped]
    paragraphs = [paragraph for block in sets[:SETS] for paragraph in _set(block, found[block], evaluations)]
    if len(evaluations) == 1:
        paragraphs += _groups(*evaluations.values())
    elif paragraphs:
        paragraphs.append("“compare --to NAME” tests in pairs whether recipes differ.")
    if len(sets) > SETS:
        paragraphs.append(f"{len(sets) - SETS} more in the tables.")
    return paragraphs


def _set(block: Block, entries: Sequence[Entry], evaluations: Mapping[str, dict[str, Any]]) -> list[str]:
    full = full_resolution(entries)
    path = headline(full)
    if path is None:
        return []
    says = declaration(*(result for _, result in full))
    target = figure.target if (figure := says.figure(path)) else None
    at = f", {target.rate} {path.partition('.')[2]}" if target else ""
    where = f"On {block[0]} ({block[1]}{at})"
    if len(evaluations) > 1:
        runs = _runs([e for e in full if e.result.get("same_space") is not False], path)
        return [f"On {block[0]} ({block[1]}), {says.label(path)} of {one}" for one in runs]
    (evaluation,) = evaluations.values()
    there = [d for d in evaluation.get("differences", []) if (d["set"], d["protocol"]) == block]
    foreign = [[r["probe"], r["gallery"]] for _, r in full if r.get("same_space") is False]
    kin = [d for d in there if list(d["a"]) not in foreign]
    return [" ".join([f"{where}, {_models(full, path)}.", *_differences(kin, path, full[-1].result["probe"])])]


def _models(entries: Sequence[Entry], path: str) -> str:
    """Return the value of each probe against its own gallery, and against the others', as a clause."""
    probes: dict[str, list[str]] = {}
    for _, result in entries:
        clauses = probes.setdefault(result["probe"], [])
        said = f"{_the(result['probe'])} " if not clauses else ""
        said += _said(path, result) if len(probes) == 1 and not clauses else _value(path, result)
        against = "its own gallery" if result["probe"] == result["gallery"] else f"{_the(result['gallery'])}’s"
        clauses.append(f"{said} against {against}{' (another space)' if result.get('same_space') is False else ''}")
    return "; ".join(_listed(clauses) for clauses in probes.values())


def _runs(entries: Sequence[Entry], path: str) -> list[str]:
    """Return, for each pair of models, its runs in the order given, and those whose intervals overlap the highest's."""
    sentences = []
    for pair in dict.fromkeys((r["probe"], r["gallery"]) for run, r in entries if run != EVERY):
        there = [
            (e, of)
            for e in entries
            if (e.result["probe"], e.result["gallery"]) == pair and (of := estimate(e.result, path))
        ]
        if len({repr((e.result.get("data"), e.result.get("settings"))) for e, _ in there}) > 1:
            sentences.append(f"{_pair(pair)}: not compared, because the runs differ in data or settings.")
            continue
        low, high = (pick(there, key=lambda one: one[1]["value"]) for pick in (min, max))
        shown = [f"{_value(path, e.result)} in {e.run}" for e, _ in (there if len(there) <= LISTED else (low, high))]
        listed = _listed(shown) if len(there) <= LISTED else f"from {shown[0]} to {shown[1]}"
        least = high[1].get("ci95", [None])[0]
        others = [one for one in there if one is not high and least is not None and "ci95" in one[1]]
        level = [e.run for e, of in others if of["ci95"][1] >= least]
        more = f" {high[0].run} is the highest; its interval overlaps with that of {_listed(level)}." if level else ""
        sentences.append(f"{_pair(pair)}: {listed}.{more}")
    return sentences


def _differences(found: Sequence[Mapping[str, Any]], path: str, last: str) -> list[str]:
    """Return which of a probe's two galleries, and of two models against themselves, is higher or not distinguishable.

    The last model, the teacher, is expected to be above the others, so only the contrary is mentioned.
    """
    higher, level = [], []
    for d in found:
        own = [side[0] == side[1] for side in (d["a"], d["b"])]
        of, figure = d["of"].get(path), declaration(d).figure(path)
        if condition(d) or of is None or not (all(own) or (own[1] and d["a"][0] == d["b"][0])):
            continue
        a, b = _pair(d["a"]), _pair(d["b"])
        if distinguishable(of) is False:
            level.append(f"{a} from {b}")
        elif distinguishable(of) and not (all(own) and last in d["b"] and of["value"] < 0):
            high, low = (a, b) if of["value"] > 0 else (b, a)
            ends = shown_interval(sorted(abs(end) for end in of["ci95"]), figure, 2) if "ci95" in of else ""
            by = f"{shown_difference(abs(of['value']), figure).lstrip('+')}{_unit(figure, ' points')}"
            higher.append(f"{high} than {low}, by {by} {ends}".rstrip())
    sentences = [f"Higher: {'; '.join(higher)}."] if higher else []
    return sentences + ([f"Not distinguishable: {'; '.join(level)}."] if level else [])


def _groups(evaluation: Mapping[str, Any]) -> list[str]:
    """Return one sentence per group: how unequally each model recognises its sets."""
    found: dict[str, list[str]] = {}
    for g in evaluation.get("groups", []):
        figure = declaration(g).grouped
        if g["probe"] == g["gallery"] and not condition(g) and figure:
            low, high = (percent(pick(g["sets"].values()), 1) for pick in (min, max))
            ratio = f" (skewed error ratio {g['skewed_error_ratio']:.2f})" if "skewed_error_ratio" in g else ""
            models = found.setdefault(f"{g['group']} ({g['protocol']}), {figure.name()}", [])
            models.append(f"{_the(g['probe'])} {low} to {high}%{ratio}")
    return [f"Over the sets of {name}: {_listed(models)}." for name, models in found.items()]


def _said(path: str, result: Mapping[str, Any]) -> str:
    says = declaration(result)
    figure = says.figure(path)
    words = figure.sentence if figure and figure.sentence else f"reaches {{}} in {says.label(path)}"
    return words.replace("{of}", path.partition(".")[2]).replace("{}", _value(path, result))


def _value(path: str, result: Mapping[str, Any]) -> str:
    figure, found = declaration(result).figure(path), estimate(result, path) or {"value": float("nan")}
    digits = 1 if 0.01 <= found["value"] <= 0.99 else 2
    value = f"{shown(found['value'], figure, digits)}{_unit(figure, '%')}"
    return f"{value} {shown_interval(found.get('ci95'), figure, digits)}".rstrip()


def _unit(figure: Figure | None, percent: str) -> str:
    """Return the text after a number: `percent` if it is shown in percent, else its unit."""
    return percent if figure is None or figure.unit == "%" else f" {figure.unit}".rstrip()


def _pair(pair: Sequence[str]) -> str:
    return f"{_the(pair[0])} against {'itself' if pair[0] == pair[1] else _the(pair[1])}"


def _the(name: str) -> str:
    return f"the {name}" if name in ROLES else name


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
