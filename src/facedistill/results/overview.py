"""The one table of a comparison: what each recipe reaches and what it costs, the mean over its seeds."""

from collections.abc import Mapping
from typing import Any

from facedistill.results.reading import (
    Block,
    Entry,
    condition,
    estimate,
    few,
    interval,
    leading,
    metric,
    order,
    paths,
    percent,
    power,
    rate,
    who,
)
from facedistill.results.tables import COSTS, FEW, FOREIGN, PUBLISHED, Cell, Table, costs, not_comparable, text, whole

ABOUT = "Mean over the seeds in %, its 95% interval where that is known, the range of the seeds; nothing is ranked."
LEFT_OUT = ("std", "eer", "auc")  # they stand in the tables of the runs
SIZE = ["parameters", "MACs"]


def overview(recipes: Mapping[str, dict[str, Any]]) -> list[Table]:
    """A table for each set, what the recipes cost in the first; none for a single run.

    Args:
        recipes: see across_runs.over_seeds.
    """
    if len(recipes) < 2 and not any(len(e.get("training", {}).get("seeds", [])) > 1 for e in recipes.values()):
        return []
    found: dict[Block, list[Entry]] = {}  # not `blocks`, which leaves out what another recipe has alike
    for name, evaluation in recipes.items():
        for result in evaluation["results"]:
            if not condition(result):
                found.setdefault((result["set"], result["protocol"]), []).append(Entry(name, result))
    return [
        _of_set(recipes, name, found[name, protocol], found.get((name, "pairs"), []), first=n == 0)
        for n, (name, protocol) in enumerate(leading(found).items())
    ]


def _of_set(
    recipes: Mapping[str, dict[str, Any]], name: str, most: list[Entry], listed: list[Entry], first: bool
) -> Table:
    """`most`: by the protocol that says most of the set; `listed`: by its list of pairs, which gives the accuracy."""
    results = {(recipe, who(result)): result for recipe, result in most}
    accuracies = {(recipe, who(result)): result for recipe, result in listed}
    known = {path for path in paths(results.values()) if path not in LEFT_OUT}
    columns = sorted(known | {"accuracy" for result in accuracies.values() if "accuracy" in result}, key=order)
    pairs = list(dict.fromkeys(pair for _, pair in [*results, *accuracies]))
    far = rate(most) or ""
    rows: list[tuple[list[str], list[Cell]]] = []  # the recipes that have it alike, and the rest of the row
    marks = set()
    for key in sorted(results | accuracies, key=lambda key: pairs.index(key[1])):
        result, accuracy, recipe = results.get(key, {}), accuracies.get(key, {}), recipes[key[0]]
        either = result or accuracy
        trained = next(iter(recipe["models"]), None) in (either["probe"], either["gallery"])
        about = recipe if trained else {}
        figures = [_figure(accuracy if path == "accuracy" else result, path) for path in columns]
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
            *(_cost(model, about.get("training", {})) if model and first else [Cell()] * len(SIZE + COSTS)),
        ]
        alike = next((names for names, other in rows if other == row), None)
        if alike is None or trained:
            rows.append(([key[0]], row))
        else:  # the same teacher's
            alike.append(key[0])
    header = ["recipe", "probe → gallery", "method", "seeds", *map(metric, columns)]
    header += [f"at the gallery’s threshold for FAR {far}", *SIZE, *COSTS]
    table = [[text(_named(names, len(recipes))), *row] for names, row in rows]
    return Table(f"Overview, {name}", ABOUT, header, table, heads=3, notes=[*not_comparable(recipes), *sorted(marks)])


def _named(names: list[str], recipes: int) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return "every recipe" if 1 < len(names) == recipes else names[0] + more


def _figure(result: Mapping[str, Any], path: str) -> Cell:
    figure = estimate(result, path)
    if figure is None:
        return Cell()
    seeds = figure.get("seeds", [])
    spread = f"{percent(min(seeds), 1)} to {percent(max(seeds), 1)}" if len(seeds) > 1 else ""
    below = "\n".join(part for part in (interval(figure.get("ci95"), 1), spread) if part)
    return Cell(percent(figure["value"], 1), below, mark="*" * few(figure, result))


def _at_threshold(at: Mapping[str, float] | None) -> Cell:
    return Cell(percent(at["tar"], 1), f"FAR {power(at['far'])}") if at else Cell()


def _cost(model: Mapping[str, Any], training: Mapping[str, Any]) -> list[Cell]:
    return [whole(model.get("parameters")), whole(model.get("macs")), *costs(training)]
