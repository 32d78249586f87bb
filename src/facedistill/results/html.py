"""The evaluation JSON as one HTML file: a summary in words, tables, plots, and the JSON itself.

A pure function of its arguments: equal input, equal bytes. The page fetches nothing and runs no script (its own policy
forbids both), and names no image unless photographs are given.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from facedistill.errors import UserError, printable_lines
from facedistill.evaluation import Line, declaration
from facedistill.files import atomic_write
from facedistill.results import plots, tables
from facedistill.results.cells import Table
from facedistill.results.drawing import ESCAPED, Plot
from facedistill.results.overview import overview
from facedistill.results.reading import (
    EVERY,
    SIDES,
    Block,
    Entry,
    blocks,
    condition,
    each,
    estimate,
    full_resolution,
    headline,
    leading,
    measured,
    rate,
    who,
)
from facedistill.results.summary import summary

Faces = Mapping[tuple[str, str], bytes]
Logs = Mapping[str, Sequence[Mapping[str, Any]]]
APART = 1.05  # costs that differ by less than this factor count as equal
LOW = ("probe low", "both low")  # the sides with images of low resolution
CURVES = {"roc": plots.roc, "det": plots.det}


@dataclass
class Section:
    """A heading and its content; `details` are tables that the reader can open, `errors` pairs of photographs."""

    title: str
    note: str = ""
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    details: list[Table] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


def require() -> None:
    """Raise UserError if a library that the report needs is missing. Ask before a long evaluation."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as e:
        raise UserError("the report needs matplotlib and jinja2; pip install 'facedistill[report]'") from e


def write_report(
    evaluation: dict[str, Any], path: str | Path, *, title: str = "Evaluation", faces: Faces | None = None
) -> None:
    """Write the evaluation that `facedistill.evaluate` returned as one HTML file.

    Args:
        faces: JPEG, PNG or WebP bytes by (set, key). With them the worst errors are shown as pairs of photographs;
            without them, the page does not even hold the names of the images.

    Raises:
        UserError: matplotlib or jinja2 is missing; the file cannot be written.
    """
    require()
    if faces is None:
        evaluation = {key: value for key, value in evaluation.items() if key != "errors"}
    sections = _Sections({"": evaluation})
    _write(path, title, sections, [*sections.all(), *_errors(evaluation, faces or {})], evaluation)


def pictures(evaluation: dict[str, Any], log: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the plots of an evaluation and of its run's log as PNG, by "section, plot".

    Raises:
        UserError: matplotlib or jinja2 is missing.
    """
    require()
    sections = [*_Sections({"": evaluation}).all(), *_training({"": log} if log else {})]
    return {f"{section.title}, {plot.title}": plot.png() for section in sections for plot in section.plots}


def write_comparison(
    evaluations: Mapping[str, dict[str, Any]],
    path: str | Path,
    *,
    title: str = "Comparison",
    logs: Logs | None = None,
    across: Sequence[Mapping[str, Any]] = (),
    recipes: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write several evaluations, by the names of their runs, as one HTML file.

    Args:
        logs: lines of the runs' log.jsonl (and verification.jsonl) by the same names: every number in them
            except "epoch" is drawn over "step".
        across: the differences between the recipes, see across_runs.differences_to.
        recipes: the means over their seeds, see across_runs.over_seeds; they come first.

    Raises:
        UserError: matplotlib or jinja2 is missing; the file cannot be written.
    """
    require()
    runs = {run: {key: value for key, value in e.items() if key != "errors"} for run, e in evaluations.items()}
    sections = _Sections(runs, across, recipes)
    _write(path, title, sections, [*sections.all(), *_training(logs or {})], runs)


def _write(
    path: str | Path, title: str, about: "_Sections", sections: Sequence[Section], content: dict[str, Any]
) -> None:
    provenance = [tables.made(about.evaluations), *tables.settings(about.found)]
    write_page(path, title, about.subtitle(), about.summary(), sections, provenance, content)


def write_page(
    path: str | Path,
    title: str,
    subtitle: str,
    summary: Sequence[str],
    sections: Sequence[Section],
    provenance: Sequence[Table],
    content: dict[str, Any],
) -> None:
    """Write one HTML file: the summary's paragraphs, the sections, how it was made, and the JSON itself."""
    import jinja2

    raw = json.dumps(content, ensure_ascii=False)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )
    environment.filters["data_uri"] = data_uri
    template = files("facedistill.results").joinpath("template.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=title,
        subtitle=subtitle,
        summary=summary,
        sections=sections,
        provenance=provenance,
        raw=raw,
        raw_in_script=raw.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"}),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors=ESCAPED)


def _shown(value: Any) -> Any:
    """Return what the page shows of a value. Markup is our own; any other text may hold names."""
    return printable_lines(value) if type(value) is str else value


def data_uri(content: str | bytes, kind: str) -> str:
    """Return the content as a data: URI, which needs no file."""
    raw = content.encode(errors=ESCAPED) if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


class _Sections:
    """The sections of a page about one run, named "", or several."""

    def __init__(
        self,
        evaluations: Mapping[str, dict[str, Any]],
        across: Sequence[Mapping[str, Any]] = (),
        recipes: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self.evaluations, self.found, self.across = evaluations, blocks(evaluations), across
        self.recipes = recipes or {}
        # Plots and summary leave out published figures.
        self.runs = measured(evaluations)
        self.compared = blocks(self.runs)
        names = dict.fromkeys(entry.name for entries in self.compared.values() for entry in entries)
        self.places = {name: i for i, name in enumerate(names)}

    def all(self) -> Iterator[Section]:
        if tables_of_recipes := overview(self.recipes):
            yield Section("Overview", tables=tables_of_recipes)
        yield Section("Models", tables=[tables.models(self.evaluations)], plots=list(self._costs()))
        if trained := tables.training(self.evaluations):
            yield Section("Training", tables=trained)
        if groups := each(self.evaluations, "groups"):
            yield Section("Groups of sets", tables=tables.groups(groups))
        for n, (block, entries) in enumerate(self.found.items()):
            yield self._block(block, entries, f"p{n}")

    def summary(self) -> list[str]:
        """Return the summary: of the means over seeds if there are several recipes, else of the runs."""
        recipes = measured(self.recipes)
        return summary(recipes, blocks(recipes)) if len(recipes) > 1 else summary(self.runs, self.compared)

    def subtitle(self) -> str:
        """Return the runs, models and sets in one line."""
        models = dict.fromkeys(name for e in self.evaluations.values() for name in e["models"])
        count = f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}"
        runs = "" if "" in self.evaluations else f"{count}: {', '.join(self.runs)}; "
        return f"{runs}{', '.join(models)} on {', '.join(dict.fromkeys(name for name, _ in self.found))}"

    def _block(self, block: Block, entries: Sequence[Entry], key: str) -> Section:
        """Return the section of one set by one protocol."""
        shown, hidden = tables.of_block(self.evaluations, block, entries, self.across)
        return Section(
            ", ".join(block),
            note=tables.sizes(entries[0].result),
            tables=shown,
            plots=[
                replace(plot, title=f"{plot.title}, {pair}" if pair else plot.title)
                for n, (pair, some) in enumerate(self._panels(self.compared.get(block, [])))
                for plot in self._curves(some, ", ".join([*block, pair]).removesuffix(", "), f"{key}-{n}")
            ],
            details=hidden,
        )

    def _panels(self, entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
        """Return the results that are drawn together: for one run, all. For several, each pair of models of one space,
        one line per run, plus the models against themselves that all runs share."""
        if "" in self.evaluations:
            return [("", list(entries))]
        alike = [e for e in entries if e.run == EVERY and e.result["probe"] == e.result["gallery"]]
        pairs: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.run != EVERY and entry.result.get("same_space") is not False:
                pairs.setdefault(who(entry.result), []).append(entry)
        return [(pair, [*of, *alike]) for pair, of in pairs.items()]

    def _curves(self, entries: Sequence[Entry], about: str, key: str) -> Iterator[Plot]:
        """Yield the protocol's plots for unchanged images, and the headline figure over low resolutions."""
        full = full_resolution(entries)

        def having(curve: str) -> dict[str, dict[str, Any]]:
            return {entry.name: entry.result for entry in full if curve in entry.result.get("curves", {})}

        for drawn in declaration(*(entry.result for entry in full)).plots:
            if isinstance(drawn, Line):
                if lines := having(drawn.key):
                    yield plots.line(drawn, lines, self.places, about, f"{key}-{drawn.key}")
            elif drawn == "scores":
                if histograms := having("scores"):
                    yield plots.scores(histograms, rate(full), about, f"{key}-scores")
            elif (paint := CURVES.get(drawn)) and (curves := having("roc")):
                yield paint(curves, self.places, about, f"{key}-{drawn}")
        path = headline(full) or ""
        for low in LOW:
            if found := _by_resolution(entries, path, low):
                of = plots.Axis.of(path, [entry.result for entry in entries])
                plot = plots.against_resolution(found, of, self.places, f"{about}, {low}", f"{key}-{low[:5]}")
                yield replace(plot, title=f"{plot.title}, {low}")

    def _costs(self) -> Iterator[Plot]:
        """Yield plots of the first set's headline figure over the costs of the probes' models."""
        for block in list(leading(self.compared).items())[:1]:
            for n, (pair, entries) in enumerate(self._panels(full_resolution(self.compared[block]))):
                path = headline(entries) or ""
                figures = {entry.name: (entry, figure) for entry in entries if (figure := estimate(entry.result, path))}
                for cost in plots.COST_AXES:
                    priced = {
                        name: (price, figure)
                        for name, (entry, figure) in figures.items()
                        if (price := self._model(entry).get(cost)) is not None
                    }
                    prices = [price for price, _ in priced.values()]
                    if prices and max(prices) > APART * min(prices):
                        about = ", ".join([*block, pair]).removesuffix(", ")
                        of = plots.Axis.of(path, [entry.result for entry in entries])
                        plot = plots.against_cost(priced, cost, of, self.places, about, f"cost-{n}-{cost}")
                        yield replace(plot, title=f"{plot.title}, {pair}" if pair else plot.title)

    def _model(self, entry: Entry) -> dict[str, Any]:
        """Return the entry of the probe's model."""
        evaluation = self.runs.get(entry.run, next(iter(self.runs.values())))
        return evaluation["models"].get(entry.result["probe"], {})


def _by_resolution(entries: Sequence[Entry], path: str, low: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return each series' figure at each resolution of the sides that `low` names: {"14 px": ..., "full": ...}."""
    lines: dict[str, dict[str, dict[str, Any]]] = {}
    found = [(e.result["settings"]["resolution"], e) for e in entries if condition(e.result)]
    for at, entry in sorted(found, key=lambda one: one[0]["probe"]):
        figure = estimate(entry.result, path)
        if figure and low == LOW["gallery" in at]:
            more = [f"{key} {value}" for key, value in at.items() if key not in SIDES]
            lines.setdefault(entry.name, {})[", ".join([f"{at['probe']} px", *more])] = figure
    for entry in full_resolution(entries):
        if entry.name in lines and (figure := estimate(entry.result, path)):
            lines[entry.name]["full"] = figure
    return lines


def _training(logs: Logs) -> list[Section]:
    """Return a section with a curve for each number that the logs hold."""
    names = dict.fromkeys(name for log in logs.values() for row in log for name in row if name not in ("step", "epoch"))
    curves = [plots.training(logs, name, f"log-{n}") for n, name in enumerate(names)]
    return [Section("Training curves", plots=curves)] if curves else []


def _errors(evaluation: Mapping[str, Any], faces: Faces) -> list[Section]:
    """Return a section with the worst errors as pairs of photographs."""
    found = []
    for e in evaluation.get("errors", []):
        for kind in ("false_accepts", "false_rejects"):
            shown = [
                pair | {"images": [_image(faces.get((e["set"], pair[side]), b"")) for side in "ab"]}
                for pair in e.get(kind, [])
            ]
            if shown:
                found.append({"title": f"{e['set']}, {who(e)}: {kind.replace('_', ' ')}", "pairs": shown})
    note = "Two people with the highest scores, and one person with the lowest. This page shows photographs of people."
    return [Section("Worst errors", note, errors=found)] if found else []


def _image(content: bytes) -> str:
    """Return a photograph as a data: URI, "" if there is none."""
    kind = next((kind for magic, kind in IMAGE_TYPES.items() if content.startswith(magic)), "image/webp")
    return data_uri(content, kind) if content else ""


IMAGE_TYPES = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png"}
