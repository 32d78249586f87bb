"""The main table of a comparison: the results and costs of each recipe, as means over its seeds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from facedistill.evaluation import Figure, declaration
from facedistill.results.cells import Cell, Table, text, whole
from facedistill.results.reading import (
    Block,
    Entry,
    condition,
    estimate,
    few,
    head,
    leading,
    percent,
    power,
    rate,
    shown,
    shown_interval,
    who,
)
from facedistill.results.tables import COST_COLUMNS, FEW, FOREIGN, PUBLISHED, costs, not_comparable

ABOUT = "Mean over the seeds in %, its 95% interval where that is known, the range of the seeds; nothing is ranked."
SIZE = ["parameters", "MACs"]


class Column(NamedTuple):
    """A figure, and the protocol that measured it."""

    protocol: str
    path: str
    label: str
    figure: Figure | None


def overview(recipes: Mapping[str, dict[str, Any]]) -> list[Table]:
    """Return a table for each set, the first one with the recipes' costs; none for a single run.

    Args:
        recipes: see across_runs.over_seeds.
    """
    if len(recipes) < 2 and not any(len(e.get("training", {}).get("seeds", [])) > 1 for e in recipes.values()):
        return []
    found: dict[Block, list[Entry]] = {}  # not `blocks`, which lists a shared result once
    for name, evaluation in recipes.items():
        for result in evaluation["results"]:
            if not condition(result):
                found.setdefault((result["set"], result["protocol"]), []).append(Entry(name, result))
    return [
        _of_set(recipes, name, protocol, _shown(found, name, protocol), first=n == 0)
        for n, (name, protocol) in enumerate(leading(found).items())
    ]


def _shown(found: Mapping[Block, list[Entry]], name: str, leader: str) -> dict[str, list[Entry]]:
    """Return, by protocol, the results on a set that the overview shows: the leader's, and those always shown."""
    there = {protocol: entries for (of, protocol), entries in found.items() if of == name}
    return {
        protocol: entries
        for protocol, entries in there.items()
        if protocol == leader or _columns(protocol, entries, ("always",))
    }


def _columns(protocol: str, entries: list[Entry], which: tuple[str, ...]) -> list[Column]:
    results = [result for _, result in entries]
    says = declaration(*results)
    every = [Column(protocol, path, says.label(path), says.figure(path)) for path in says.paths(results)]
    return [column for column in every if column.figure and column.figure.overview in which]


def _of_set(
    recipes: Mapping[str, dict[str, Any]], name: str, leader: str, measured: Mapping[str, list[Entry]], first: bool
) -> Table:
    """Return the table of a set. `leader`: the protocol that summarises it; `measured`: all results, by protocol."""
    others = [protocol for protocol in measured if protocol != leader]
    columns = [column for protocol in others for column in _columns(protocol, measured[protocol], ("always",))]
    columns += _columns(leader, measured[leader], ("always", "leading"))
    order = [leader, *others]
    of = {one: {(recipe, who(result)): result for recipe, result in measured[one]} for one in order}
    keys = list(dict.fromkeys(key for one in order for key in of[one]))
    pairs = list(dict.fromkeys(pair for _, pair in keys))
    far = rate(measured[leader]) or ""
    rows: list[tuple[list[str], list[Cell]]] = []  # the recipes that share a row, and the rest of the row
    marks = set()
    for key in sorted(keys, key=lambda key: pairs.index(key[1])):
        result, recipe = of[leader].get(key, {}), recipes[key[0]]
        either = next(of[one][key] for one in order if key in of[one])
        trained = next(iter(recipe["models"]), None) in (either["probe"], either["gallery"])
        about = recipe if trained else {}
        figures = [_figure(of[column.protocol].get(key, {}), column) for column in columns]
        foreign = either.get("same_space") is False
        marks |= {FOREIGN} if foreign else set()
        marks |= {FEW} if any(cell.mark for cell in figures) else set()
        marks |= {PUBLISHED} if "published" in either else set()
        model = recipe["models"].get(either["probe"], {}) if either["probe"] == either["gallery"] else {}
        row = [
            text(key[1])._replace(mark="†" * foreign),
            text(about.get("method")),
            whole(len(about["training"]["seeds"]) if "training" in about else None),
            *figures,
            _at_threshold(result.get("at_gallery_threshold", {}).get(far)),
            *(_cost(model, about.get("training", {})) if model and first else [Cell()] * len(SIZE + COST_COLUMNS)),
        ]
        alike = next((names for names, other in rows if other == row), None)
        if alike is None or trained:
            rows.append(([key[0]], row))
        else:  # a row of the same teacher
            alike.append(key[0])
    header = ["recipe", "probe → gallery", "method", "seeds", *(head(one.figure, one.label) for one in columns)]
    header += [f"at the gallery’s threshold for FAR {far}", *SIZE, *COST_COLUMNS]
    table = [[text(_named(names, len(recipes))), *row] for names, row in rows]
    return Table(f"Overview, {name}", ABOUT, header, table, heads=3, notes=[*not_comparable(recipes), *sorted(marks)])


def _named(names: list[str], recipes: int) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return "every recipe" if 1 < len(names) == recipes else names[0] + more


def _figure(result: Mapping[str, Any], column: Column) -> Cell:
    value = estimate(result, column.path) if result else None
    if value is None:
        return Cell()
    seeds = value.get("seeds", [])
    low, high = (shown(pick(seeds), column.figure, 1) if len(seeds) > 1 else "" for pick in (min, max))
    spread = f"{low} to {high}" if low else ""
    below = "\n".join(part for part in (shown_interval(value.get("ci95"), column.figure, 1), spread) if part)
    return Cell(shown(value["value"], column.figure, 1), below, mark="*" * few(value, result))


def _at_threshold(at: Mapping[str, float] | None) -> Cell:
    return Cell(percent(at["tar"], 1), f"FAR {power(at['far'])}") if at else Cell()


def _cost(model: Mapping[str, Any], training: Mapping[str, Any]) -> list[Cell]:
    return [whole(model.get("parameters")), whole(model.get("macs")), *costs(training)]
