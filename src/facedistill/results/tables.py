"""The evaluation JSON as tables, for the terminal and for pages.

Rates in percent; what is missing is an empty cell, and an empty column vanishes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from facedistill.evaluation import Declaration, Figure, declaration
from facedistill.results.cells import IMAGES_COLUMN, Cell, Table, text, whole
from facedistill.results.reading import (
    EVERY,
    FEW_IMPOSTORS,
    Block,
    Entry,
    condition,
    distinguishable,
    each,
    estimate,
    few,
    full_resolution,
    head as head_of,
    measured,
    percent,
    power,
    shown,
    shown_difference,
    shown_interval,
    who,
)
from facedistill.results.resolution_gate import lost_at_full_resolution

FEW = f"* fewer than {FEW_IMPOSTORS} impostor pairs (or searches without a mate) decide the threshold"
OWN_SPACE = (
    "A student in a space of its own matches the teacher’s gallery at chance: no term of its method ties it to the "
    "teacher’s space."
)
FOREIGN = "† the two models do not share a space: a control that should come out near chance"
PUBLISHED = "Published figures are the source’s, of other data and another recipe; they are compared with nothing."
SIGNIFICANT = 0.05
PLACE_COLUMNS = ("protocol", "set", "probe", "gallery", "same_space", "published")  # of a result; not counts
RELATION_COLUMNS = {
    "within_family": "within a family",
    "across_families": "across families",
    "across_sources": "across sources",
}

MOST_CLASSES = 200
CLASS_COLUMNS = {
    "top1": "top 1",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "average_precision": "average precision",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
}


def models(evaluations: Mapping[str, dict[str, Any]]) -> Table:
    """Return the table of the models; one that is the same in every run is listed once."""
    rows: dict[str, list[list[Cell]]] = {}
    runs = measured(evaluations)
    for run, evaluation in runs.items():
        for name, m in evaluation["models"].items():
            everywhere = len(runs) > 1 and all(e["models"].get(name) == m for e in runs.values())
            row = [
                text(EVERY if everywhere else run),
                text(name),
                text(m.get("path")),
                text(m.get("space")),
                whole(m.get("parameters")),
                whole(m.get("macs")),
                Cell(f"{m['latency_ms']:,.2f}" if "latency_ms" in m else ""),
            ]
            of = rows.setdefault(name, [])
            of += [row] if row not in of else []
    columns = ["run", "model", "path", "space", "parameters", "MACs", "latency, ms"]
    return Table("Models", "", columns, [row for of in rows.values() for row in of], heads=2)


def training(evaluations: Mapping[str, dict[str, Any]]) -> list[Table]:
    """Return the table of each run's training data and cost; no table if no run has them."""
    if not any("training" in e for e in evaluations.values()):
        return []
    rows = []
    for run, evaluation in measured(evaluations).items():
        of = evaluation.get("training", {})
        rows.append(
            [
                text(run),
                text(evaluation.get("method")),
                text({True: "the teacher’s", False: "its own"}.get(of.get("anchored"))),
                *(whole(of.get(key)) for key in ("epochs", "seed", "images")),
                *costs(of),
            ]
        )
    columns = ["run", "method", "space", "epochs", "seed", "images", *COST_COLUMNS]
    found = Table("Training", "Minutes of the steps alone.", columns, rows, heads=2)
    found.notes += not_comparable(evaluations)
    if any(e.get("training", {}).get("anchored") is False for e in evaluations.values()):
        found.notes.append(OWN_SPACE)
    return [found]


COST_COLUMNS = ["minutes", "images/s", "teacher forwards", "peak memory, MB"]


def costs(training: Mapping[str, Any]) -> list[Cell]:
    """Return the costs of training, a cell for each of COST_COLUMNS; means over seeds are rounded."""
    minutes = Cell(f"{training['seconds'] / 60:,.1f}" if "seconds" in training else "")
    rest = (training.get(key) for key in ("images_per_second", "teacher_forwards", "peak_memory_mb"))
    return [minutes, *(whole(None if value is None else round(value)) for value in rest)]


def not_comparable(evaluations: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return a note if runs differ in epochs or data; else none."""
    data = {(of["epochs"], of["data"]) for e in evaluations.values() if (of := e.get("training"))}
    return ["The runs differ in epochs or data: not comparable."] * (len(data) > 1)


def of_block(
    evaluations: Mapping[str, dict[str, Any]],
    block: Block,
    entries: Sequence[Entry],
    across: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Table], list[Table]]:
    """Return the tables of one set by one protocol: those to read, and those to look up.

    With several runs, the runs are compared, and the pairs of models within each run are to look up.

    Args:
        across: differences of recipes, see across_runs.differences_to.
    """
    full, low = full_resolution(entries), [entry for entry in entries if condition(entry.result)]
    different = each(evaluations, "differences", block)
    within = differences([(run, d) for run, d in different if not condition(d)])
    one = len(evaluations) == 1
    read = [
        results(entries),
        across_recipes([d for d in across if (d["set"], d["protocol"]) == block]),
        *[within] * one,
        compatibility(each(evaluations, "compatibility", block)),
        at_gallery_threshold(full),
        false_accepts(full),
    ]
    looked_up = [
        *[within] * (not one),
        operating_points(entries),
        of_classes(full),
        _low(differences([(run, d) for run, d in different if condition(d)])),
        _low(at_gallery_threshold(low)),
        _low(false_accepts(low)),
    ]
    return [table for table in read if table.rows], [table for table in looked_up if table.rows]


def _low(table: Table) -> Table:
    return replace(table, caption=f"{table.caption}, low resolution")


HEADS = ["run", "probe → gallery", IMAGES_COLUMN]


def head(entry: Entry) -> list[Cell]:
    return [text(entry.run), text(who(entry.result)), text(condition(entry.result))]


def results(entries: Sequence[Entry]) -> Table:
    """Return the table of every figure with its interval, one row per result."""
    every = [entry.result for entry in entries]
    says = declaration(*every)
    columns = says.paths(every)
    rows, starred, foreign = [], False, False
    low = any(map(condition, every))
    for entry in entries:
        run, pair, images = head(entry)
        images = text("full") if low and not images.value else images
        if entry.result.get("same_space") is False:
            pair, foreign = pair._replace(mark="†"), True
        figures = [_figure(entry.result, path, says.figure(path)) for path in columns]
        starred |= any(cell.mark for cell in figures)
        rows.append([run, pair, images, *figures, _cosine(entry.result)])
    notes = [FEW] * starred + [FOREIGN] * foreign + [PUBLISHED] * any("published" in result for result in every)
    notes += lost_at_full_resolution(entries)
    header = [*HEADS, *(_head(says, path) for path in columns), "mean cosine"]
    others = any(figure.unit != "%" for path in columns if (figure := says.figure(path)))
    about = f"In %{' where no other unit stands' if others else ''}, with 95% intervals."
    return Table("Results", about, header, rows, heads=3, notes=notes)


def _head(says: Declaration, path: str) -> str:
    return head_of(says.figure(path), says.label(path))


def _figure(result: Mapping[str, Any], path: str, figure: Figure | None) -> Cell:
    found = estimate(result, path)
    if found is None:
        return Cell()
    ends = shown_interval(found.get("ci95"), figure)
    return Cell(shown(found["value"], figure), ends, mark="*" * few(found, result))


def _cosine(result: Mapping[str, Any]) -> Cell:
    cosine = result.get("mean_cosine")
    if not cosine:
        return Cell()
    return Cell(f"{cosine['value']:.3f}", f"of {cosine['ceiling']:.3f}" if "ceiling" in cosine else "")


def operating_points(entries: Iterable[Entry]) -> Table:
    """Return the table of operating points: the threshold, the FAR obtained, and the pairs that decided it."""
    rows = []
    for entry in (entry for entry in entries if "published" not in entry.result):  # no thresholds there
        for figure in declaration(entry.result).figures:
            target = figure.target
            if target is None:
                continue
            for rate, at in sorted(entry.result.get(figure.key, {}).items(), key=lambda item: -float(item[0])):
                closest = at.get("closest", {})
                rows.append(
                    [
                        *head(entry),
                        text(f"{target.rate} {rate}"),
                        Cell(shown(at["value"], figure, 2), mark="*" * few(at, entry.result)),
                        Cell(_cosines(at.get("threshold")), _cosines(*at.get("threshold_ci95", []))),
                        Cell(power(at[target.obtained]) if target.obtained in at else ""),
                        whole(at.get(target.decided_by)),
                        Cell(percent(closest.get("tar")), f"FAR {power(closest['far'])}" if "far" in closest else ""),
                    ]
                )
    columns = [
        *HEADS,
        "target",
        "TAR, %",
        "threshold",
        "rate obtained",
        "impostors that decide",
        "TAR at closest FAR, %",
    ]
    return Table("Operating points", "Thresholds are cosines.", columns, rows, heads=4)


def _cosines(*values: float | None) -> str:
    known = [f"{value:.4f}" for value in values if value is not None]
    return f"[{', '.join(known)}]" if len(known) > 1 else "".join(known)


def at_gallery_threshold(entries: Iterable[Entry]) -> Table:
    crossed = [entry for entry in entries if entry.result.get("at_gallery_threshold")]
    fars = _falling(entry.result["at_gallery_threshold"] for entry in crossed)
    rows = []
    for entry in crossed:
        at = entry.result["at_gallery_threshold"]
        cells = [Cell(percent(at[far]["tar"]), f"FAR {power(at[far]['far'])}") if far in at else Cell() for far in fars]
        rows.append([*head(entry), *cells])
    about = "TAR in %, and the FAR obtained, at the threshold that gives the gallery’s own model the FAR of the column."
    return Table("At the gallery’s thresholds", about, [*HEADS, *fars], rows, heads=3)


def false_accepts(entries: Iterable[Entry]) -> Table:
    related = [entry for entry in entries if entry.result.get("false_accepts")]
    fars = _falling(kind for entry in related for kind in entry.result["false_accepts"].values())
    rows = []
    for entry in related:
        for kind, at in entry.result["false_accepts"].items():
            cells = [
                Cell(power(at[far]["far"]), f"{at[far]['impostors']:,} of {at[far]['pairs']:,}")
                if far in at
                else Cell()
                for far in fars
            ]
            rows.append([*head(entry), text(RELATION_COLUMNS.get(kind, kind)), *cells])
    about = "The FAR of each kind at the threshold that gives all impostors together the FAR of the column."
    return Table("False accepts by kind of impostor", about, [*HEADS, "impostor pairs", *fars], rows, heads=4)


def of_classes(entries: Iterable[Entry]) -> Table:
    """Return the table of every class or label: at most 200 of each result, the worst by top 1 or average precision."""
    entries = list(entries)
    shown = [key for key in CLASS_COLUMNS if any(key in of for e in entries for of in e.result.get("of_classes", []))]
    rows = []
    for entry in entries:
        found = sorted(entry.result.get("of_classes", []), key=_how_good)[:MOST_CLASSES]
        for row in found:
            cells = [percent(row.get(key)) for key in shown]
            counts = [whole(row.get(key)) for key in ("images", "training_images")]
            rows.append([*head(entry), text(row["class"]), *counts, *map(Cell, cells)])
    about = f"The worst first, by top 1 or average precision; at most {MOST_CLASSES} of each result."
    columns = [*HEADS, "class", "images of it", "training images", *(CLASS_COLUMNS[key] for key in shown)]
    return Table("Classes", about, columns, rows, heads=4)


def _how_good(of: Mapping[str, Any]) -> float:
    return float(of.get("top1", of.get("average_precision", 0.0)))


def _falling(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({far for table in tables for far in table}, key=float, reverse=True)


def differences(found: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Return the table of `found`, the differences of one set and protocol, each with its run."""
    says = declaration(*(d for _, d in found))
    columns = sorted({path for _, d in found for path in d["of"]}, key=says.order)
    rows = []
    for run, d in found:
        sides = [text(" → ".join(d[side])) for side in "ab"]
        cells = [_difference(d["of"].get(path), says.figure(path)) for path in columns]
        rows.append([text(run), *sides, text(condition(d)), *cells, _mcnemar(d.get("mcnemar"))])
    header = ["run", "a", "b", IMAGES_COLUMN, *(_head(says, path) for path in columns), "McNemar p"]
    return Table("Paired differences", "a − b in points, with 95% intervals.", header, rows, heads=4)


def across_recipes(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of `found`, the differences between recipes on one set and protocol."""
    says = declaration(*found)
    columns = sorted({path for d in found for path in d["of"]}, key=says.order)
    rows = [
        [text(d["a"]), text(d["b"]), whole(d["seeds"]), text(who(d)), text(condition(d))]
        + [_difference(d["of"].get(path), says.figure(path)) for path in columns]
        for d in found
    ]
    about = "a − b in points, mean over the seeds that both have, with 95% intervals; not distinguishable with one seed"
    about += ", where seeds disagree in sign, or where the interval holds 0."
    header = ["a", "b", "seeds", "probe → gallery", IMAGES_COLUMN, *(_head(says, path) for path in columns)]
    return Table("Differences between recipes", about, header, rows, heads=2)


def _difference(d: Mapping[str, Any] | None, figure: Figure | None) -> Cell:
    if d is None:
        return Cell()
    ends = f"[{', '.join(shown_difference(end, figure) for end in d['ci95'])}]" if "ci95" in d else ""
    return Cell(
        shown_difference(d["value"], figure), ends, "not distinguishable" if distinguishable(d) is False else ""
    )


def _mcnemar(test: Mapping[str, Any] | None) -> Cell:
    """Return p, and below it the numbers of pairs that only a, and only b, decides correctly."""
    if test is None:
        return Cell()
    verdict = "" if test["p"] < SIGNIFICANT else "not distinguishable"
    return Cell(f"{test['p']:.3g}", f"only a {test['a_only']:,}, only b {test['b_only']:,}", verdict)


def groups(found: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Table]:
    """Return one table per group of sets: the figure on each set, and the spread."""
    tables = []
    for name, protocol in dict.fromkeys((g["group"], g["protocol"]) for _, g in found):
        members = [(run, g) for run, g in found if (g["group"], g["protocol"]) == (name, protocol)]
        sets = list(dict.fromkeys(one for _, g in members for one in g["sets"]))
        rows = [
            [
                *(text(value) for value in (run, who(g), condition(g))),
                *(Cell(percent(g["sets"].get(one))) for one in sets),
                Cell(percent(g.get("mean"))),
                Cell(percent(g.get("std"))),
                Cell(f"{g['skewed_error_ratio']:.3f}" if "skewed_error_ratio" in g else ""),
            ]
            for run, g in members
        ]
        columns = [*HEADS, *(one.removeprefix(f"{name}/") for one in sets), "mean", "std", "skewed error ratio"]
        figure = declaration(*(g for _, g in members)).grouped
        name_of = figure.name() if figure else "figure"
        about = (
            f"{name_of[:1].upper()}{name_of[1:]} in %. The skewed error ratio is the largest error over the smallest."
        )
        tables.append(Table(f"{name}, {protocol}", about, columns, rows, heads=3))
    return tables


def compatibility(found: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Return the table of `found`, the compatibility on one set and protocol, each with its run."""
    says = declaration(*(c for _, c in found))
    columns = sorted({path for _, c in found for path in c["of"]}, key=says.order)
    rows = []
    for run, c in found:
        cells = []
        for path in columns:
            cell, verdict = _difference(c["of"].get(path), says.figure(path)), c["of"].get(path, {}).get("compatible")
            cells.append(
                cell if verdict is None else cell._replace(verdict="compatible" if verdict else "not compatible")
            )
        rows.append([text(run), text(who(c)), text(condition(c)), *cells])
    about = "How many points above the baseline against itself, with 95% intervals."
    return Table("Backward compatibility", about, [*HEADS, *(_head(says, path) for path in columns)], rows, heads=3)


def sizes(result: Mapping[str, Any]) -> str:
    """Return the counts of a result in words."""
    counts = {"images": "images"} | {count.key: count.words for count in declaration(result).counts}
    return ", ".join(f"{result[key]:,} {words}" for key, words in counts.items() if isinstance(result.get(key), int))


def settings(found: Mapping[Block, Sequence[Entry]]) -> list[Table]:
    """Return the settings and counts of each result, one row per result, one table per protocol."""
    tables = []
    for protocol in dict.fromkeys(protocol for _, protocol in found):
        rows = []
        for name, entry in ((name, e) for (name, of), entries in found.items() if of == protocol for e in entries):
            r = entry.result
            counts = {
                key: value for key, value in r.items() if isinstance(value, int | str) and key not in PLACE_COLUMNS
            }
            leaves = dict(_leaves(counts | r.get("settings", {})))
            rows.append(([text(entry.run), text(name), text(who(r))], leaves))
        columns = list(dict.fromkeys(key for _, of in rows for key in of))
        header = ["run", "set", "probe → gallery", *(re.sub(r"[_.]", " ", key) for key in columns)]
        cells = [[*heads, *(_plain(of.get(key)) for key in columns)] for heads, of in rows]
        tables.append(Table(f"Settings, {protocol}", "", header, cells, heads=3))
    return tables


def made(evaluations: Mapping[str, dict[str, Any]]) -> Table:
    """Return the table of versions, seeds and everything else that the JSON says about itself."""
    rows = []
    for run, evaluation in evaluations.items():
        about = {key: value for key, value in evaluation.items() if key == "made" or not isinstance(value, dict | list)}
        about = about.pop("made", {}) | about
        rows += [[text(run), text(key.replace("_", " ")), text(_plain(value).value)] for key, value in _leaves(about)]
    return Table("How it was made", "", ["run", "what", "value"], rows, heads=2)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their path; a list is one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> Cell:
    """Return a value as in the JSON, large counts with separators."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return text({True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value)
    if isinstance(value, list):
        return text(", ".join(_plain(one).value for one in value))
    if isinstance(value, dict):
        return text(json.dumps(value))
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.6g}")
