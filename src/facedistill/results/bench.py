"""What `bench` measured, as a table and as a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facedistill.evaluation import declaration
from facedistill.results import plots
from facedistill.results.cells import Cell, Table, text, whole
from facedistill.results.drawing import Plot
from facedistill.results.html import Section, require, write_page
from facedistill.results.reading import Entry, blocks, estimate, full_resolution, headline, leading, percent
from facedistill.results.rendering import render

ABOUT = "one image at a time, milliseconds, median and 95th percentile; MACs are multiply-adds"
NAMES = {"onnx": "ONNX Runtime", "litert": "LiteRT", "executorch": "ExecuTorch"}


def accuracy_of(evaluation: Mapping[str, Any], model: str) -> dict[str, Any] | None:
    """Return the headline figure of the first set for a model against itself: {"what", "path", "set", "value"}."""
    own = [r for r in evaluation["results"] if (r["probe"], r["gallery"]) == (model, model)]
    found = blocks({"": {**evaluation, "results": own}})
    for block in leading(found).items():
        entries: list[Entry] = full_resolution(found[block])
        path = headline(entries)
        if path is not None and (figure := estimate(entries[0].result, path)):
            says = declaration(entries[0].result)
            return {"what": f"{', '.join(block)}, {says.label(path)}", "path": path, "result": block[1], **figure}
    return None


def render_bench(result: Mapping[str, Any]) -> str:
    """Return the table, and what was left out."""
    lines = [f"left out: {left['name']} in {left['runtime']}: {left['why']}\n" for left in result["left_out"]]
    return "\n".join([render(_costs(result)), *lines])


def write_bench(result: Mapping[str, Any], path: str | Path) -> None:
    """Write what `bench` returned as one HTML file, with accuracy against latency where the accuracy is known.

    Raises:
        UserError: matplotlib or jinja2 is missing; the file cannot be written.
    """
    require()
    made = result["made"]
    notes = [f"{left['name']} in {left['runtime']}: {left['why']}" for left in result["left_out"]]
    section = Section("Cost", tables=[_costs(result)], plots=_plots(result))
    about = Table("Measured", "", ["what", "value"], [[text(key), text(value)] for key, value in made.items()])
    summary = [_fastest(result), *(f"Left out: {note}." for note in notes)]
    where = f"{made['processor']}, {made['cores']} cores; each contestant in a process of its own, in turns"
    write_page(path, "Latency, size and memory", where, summary, [section], [about], dict(result))


def _costs(result: Mapping[str, Any]) -> Table:
    threads = [str(n) for n in result["threads"]]
    figures = {c["accuracy"]["what"] for c in result["contestants"] if "accuracy" in c}
    columns = ["model or file", "runtime", "precision", "parameters", "MACs, M", "file, MB"]
    columns += [f"{n} thread{'s' * (n != '1')}, ms" for n in threads]
    columns += [f"images/s at {batch}" for batch in (1, 8, 64)] + ["memory, MB", *sorted(figures)]
    rows = []
    for c in result["contestants"]:
        latency = [c["latency_ms"][n] for n in threads]
        rows.append(
            [
                text(c["name"]),
                text(NAMES.get(c["runtime"], c["runtime"])),
                text(c["precision"]),
                whole(c["parameters"]),
                Cell(f"{c['macs'] / 1e6:,.1f}"),
                Cell(f"{c['bytes'] / 1e6:,.2f}"),
                *(Cell(f"{of['median']:,.2f}", below=f"p95 {of['p95']:,.2f}") for of in latency),
                *(Cell(f"{c['throughput'][str(batch)]:,.0f}") for batch in (1, 8, 64)),
                Cell(f"{c['memory']['network'] / 1e6:,.0f}"),
                *(Cell(_figure(c) if c.get("accuracy", {}).get("what") == what else "") for what in sorted(figures)),
            ]
        )
    notes = [f"images/s with {threads[-1]} threads. Memory: beyond PyTorch and this program, at its peak."]
    return Table("Cost", ABOUT, columns, rows, heads=2, notes=notes)


def _figure(contestant: Mapping[str, Any]) -> str:
    return percent(contestant["accuracy"]["value"])


def _plots(result: Mapping[str, Any]) -> list[Plot]:
    """Accuracy over the latency of one thread; nothing where fewer than two contestants have a figure."""
    first = str(result["threads"][0])
    by_figure: dict[str, dict[str, tuple[float, dict[str, Any]]]] = {}
    for c in result["contestants"]:
        if found := c.get("accuracy"):
            name = f"{c['name']}, {NAMES.get(c['runtime'], c['runtime'])}"
            by_figure.setdefault(found["what"], {})[name] = (c["latency_ms"][first]["median"], found)
    drawn = []
    for n, (what, figures) in enumerate(by_figure.items()):
        (path, protocol), *_ = {(found["path"], found["result"]) for _, found in figures.values()}
        of = plots.Axis.of(path, [{"protocol": protocol}])
        places = {name: i for i, name in enumerate(figures)}
        drawn.append(plots.against_cost(figures, "latency_ms", of, places, what, f"bench-{n}"))
    return drawn


def _fastest(result: Mapping[str, Any]) -> str:
    first = str(result["threads"][0])
    best = min(result["contestants"], key=lambda c: c["latency_ms"][first]["median"])
    ms = best["latency_ms"][first]["median"]
    runtime = NAMES.get(best["runtime"], best["runtime"])
    return f"Fastest with {first} thread(s): {best['name']} in {runtime}, {ms:.2f} ms an image."
