"""How the ways to distil compare as the number of people grows: people who are drawn, so that anyone can repeat it.

    python benchmarks/scale.py run --work DIR [--people 400 1600 6400 25600 400x32] [--seeds 0 1 2] [--tune 1600]
    python benchmarks/scale.py table

For each number of people there are 8 images of 48 x 48 pixels of each, a teacher that was trained on them (so that its
W is a trained one), and students a quarter as wide. 500 people whom nobody trained on, with 12 images each, are
measured, student against itself and against the teacher's gallery. Rates of learning are those that the comparison on
real faces chose, until `--tune` has tried a third and three times as much, too, for every method and with the first
seed. Then the best rate with TUNED_AT people counts everywhere, judged on 200 further people; trials with other numbers
of people only show whether it holds there. `400x32` are 400 people with 32 images each; as many images are seen in all.

The parts are written to the results one by one; finished ones are skipped, and a stopped one resumes. `table` writes
the tables and the chart of docs/scale.md.
"""

import argparse
import io
import json
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from command import run_verb
from docs_table import DOCS, put_table
from PIL import Image
from result_file import write_result
from scale_chart import Line, chart

from facedistill.data.dataset import open_source
from facedistill.files import atomic_write
from facedistill.recipe.read import make_recipe
from facedistill.recipe.schema import Recipe
from facedistill.results.reading import points
from facedistill.training.engine import train

RESULTS = Path(__file__).parent / "results" / "scale.json"
CHART = DOCS / "images" / "scale.svg"
PEOPLE, SEEDS, TUNED_AT = (400, 1600, 6400, 25600), (0, 1, 2), 1600
IMAGES, SIZE, DRAWING = 8, 48, 1
# name -> people, images of each, the first person's number
OTHERS = {"unseen": (500, 12, 1_000_000), "tuning": (200, 8, 2_000_000)}
FARS = ("1e-3", "1e-4", "1e-5")
TEACHER_WIDTH, STUDENT_WIDTH, DIM = 0.5, 0.125, 128
# Four times as many people are shown twice as many images: 40 epochs of 400 people, 20 of 1,600, 10 of 6,400.
SEEN = {400: 128_000, 1600: 256_000, 6400: 512_000, 25600: 1_024_000}
SCHEDULE: dict[str, Any] = {"batch": 128, "warmup_epochs": 1, "log_steps": 50}
SCALE, STEP = 32, 3.0  # of the margin softmax; between two rates that are tried


def _method(name: str, margin: float, start: str | None = None, terms: dict[str, Any] | None = None) -> dict[str, Any]:
    softmax = {"margin": "arcface", "margin_options": {"size": margin}, "scale": SCALE}
    classifier = {"classifier": {"start": start}} if start else {}
    return {"name": name, **classifier, "terms": {"margin_softmax": softmax} | (terms or {})}


# row -> (the method of its recipe, the rate of learning until it is tuned)
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "l2kd": ({"name": "l2kd"}, 1.0),
    "proxylesskd (W: trained)": (_method("proxylesskd", 0.5, "teacher"), 0.3),
    "instances + L2": ({"name": "proxylesskd_instances_l2"}, 0.3),
    "scratch": (_method("scratch", 0.2), 0.1),
    "proxylesskd (W: centres)": (_method("proxylesskd", 0.5, "centres"), 0.3),
    "adadistill": (_method("adadistill", 0.45, "centres"), 0.3),
    "margin_softmax_l2": (_method("margin_softmax_l2", 0.2, terms={"embedding_l2": {"weight": 64.0}}), 0.3),
    "csd": ({"name": "csd"}, 2.0),
    "raml": ({"name": "raml"}, 1.0),
    "rop": ({"name": "rop"}, 0.2),
    "d3still": ({"name": "d3still"}, 0.2),
}
TEACHER: dict[str, Any] = {
    "name": "scratch",
    "terms": {"margin_softmax": {"margin": "cosface", "margin_options": {"size": 0.35}, "scale": SCALE}},
}
PAIRS = ("student", "teacher")  # the gallery
Runs = dict[str, Any]  # name of the crowd -> row -> rate -> seed -> what was measured; the teacher is a row too


class Crowd(NamedTuple):
    """Drawn people, with so many images each."""

    people: int
    images: int = IMAGES

    @property
    def name(self) -> str:
        return str(self.people) if self.images == IMAGES else f"{self.people}x{self.images}"

    @classmethod
    def of(cls, name: str) -> "Crowd":
        """Return the crowd called PEOPLE or PEOPLExIMAGES."""
        people, _, images = name.partition("x")
        known = people.isdecimal() and int(people) in PEOPLE
        if not known or (images and not (images.isdecimal() and int(images) > 1)):
            raise argparse.ArgumentTypeError(f"{name!r}; expected one of {PEOPLE}, or with a number of images: 400x32")
        return cls(int(people), int(images or IMAGES))


def faces(work: Path, name: str, people: int, images: int, first: int, result: dict[str, Any]) -> Path:
    """Return a tar of PNG files of drawn people, and note how fast they were drawn if it was made now."""
    file = work / f"{name}.tar"
    if not file.exists():
        spec = f"synthetic:identities={people},images={images},size={SIZE},seed={DRAWING},first={first}"
        source, began = open_source(spec), time.process_time()
        with atomic_write(file) as temporary, tarfile.open(temporary, "w") as archive:
            for i, key in enumerate(source.keys):
                content = io.BytesIO()
                Image.fromarray(np.asarray(source.read(i))).save(content, "png")
                member = tarfile.TarInfo(f"{key}.png")
                member.size = content.tell()
                content.seek(0)
                archive.addfile(member, content)
        rate = round(len(source) / (time.process_time() - began))
        result.setdefault("drawn", {})[name] = {"images": len(source), "images_per_cpu_second": rate}
        write_result(RESULTS, result)
    return file


def recipe_of(row: str, crowd: Crowd, rate: float, seed: int, work: Path) -> Recipe:
    """Return the recipe of a student, or of the teacher, which is a row like any other."""
    epochs = max(1, SEEN[crowd.people] // (crowd.images * crowd.people))
    is_teacher = row == "teacher"
    raw: dict[str, Any] = {
        "data": str(work / f"{crowd.name}.tar"),
        "student": {
            "input_size": SIZE,
            "embedding_dim": DIM if is_teacher else None,
            "options": {"width": TEACHER_WIDTH if is_teacher else STUDENT_WIDTH},
        },
        "method": TEACHER if is_teacher else METHODS[row][0],
        "schedule": {**SCHEDULE, "epochs": epochs, "lr": rate},
        "evaluation": {"sets": [str(work / f"{name}.tar") for name in OTHERS]},
        "check": {"own_class": 0.0},
        "seed": seed,
    }
    return make_recipe(raw | ({} if is_teacher else {"teacher": str(work / run_name("teacher", crowd, RATE, 0))}))


RATE = 0.2  # the teacher's


def run_name(row: str, crowd: Crowd, rate: float, seed: int) -> str:
    plain = row.replace(" (W: ", "-").replace(")", "").replace(" + ", "-")
    return f"{crowd.name}-{plain}-{rate:g}-s{seed}"


def rates(row: str) -> list[float]:
    """Return the rates that are tried, the untuned one first."""
    first = METHODS[row][1]
    return [first, first / STEP, first * STEP]


def chosen(runs: Runs, row: str) -> float:
    """Return the best rate with TUNED_AT people, judged on the people for tuning; the first before all are tried."""
    tried = runs.get(str(TUNED_AT), {}).get(row, {})
    found = [tried.get(f"{rate:g}", {}).get(str(SEEDS[0])) for rate in rates(row)]
    if not all(found):
        return rates(row)[0]
    scores = [run["tuning"]["student"]["1e-3"][0] for run in found if run]
    return rates(row)[scores.index(max(scores))]


def jobs(
    runs: Runs, crowds: Sequence[Crowd], seeds: Sequence[int], tune: Sequence[Crowd]
) -> Iterator[tuple[str, Crowd, float, int]]:
    """Yield row, crowd, rate and seed: trials first, then all rows of a seed before the next seed."""
    for crowd in tune:
        yield "teacher", crowd, RATE, 0
        yield from ((row, crowd, rate, SEEDS[0]) for row in METHODS for rate in rates(row))
    for seed in seeds:
        for crowd in crowds:
            yield "teacher", crowd, RATE, 0
            yield from ((row, crowd, chosen(runs, row), seed) for row in METHODS)


def run(args: argparse.Namespace) -> None:
    result = stored()
    work = Path(args.work)
    for name, (people, images, first) in OTHERS.items():
        faces(work, name, people, images, first, result)
    for row, crowd, rate, seed in jobs(result["runs"], args.people, args.seeds, args.tune):
        done = result["runs"].get(crowd.name, {}).get(row, {}).get(f"{rate:g}", {})
        if str(seed) in done or row not in (args.only or [row]):
            continue
        faces(work, crowd.name, crowd.people, crowd.images, 0, result)
        if row != "teacher":  # it may have been measured elsewhere
            trained("teacher", crowd, RATE, 0, work)
        found = measured(trained(row, crowd, rate, seed, work))
        print(crowd.name, row, rate, seed, found, flush=True)
        of_row = result["runs"].setdefault(crowd.name, {}).setdefault(row, {}).setdefault(f"{rate:g}", {})
        of_row[str(seed)] = found
        write_result(RESULTS, result)


def trained(row: str, crowd: Crowd, rate: float, seed: int, work: Path) -> Path:
    """Return the run of a row, which is trained if it is not there."""
    return train(recipe_of(row, crowd, rate, seed, work), work / run_name(row, crowd, rate, seed))


def about() -> dict[str, Any]:
    settings = {"images": IMAGES, "size": SIZE, "seen": SEEN, "tuned_at": TUNED_AT, "others": OTHERS}
    widths = {"teacher_width": TEACHER_WIDTH, "student_width": STUDENT_WIDTH, "dimensions": DIM}
    return {"command": "python benchmarks/scale.py run --work DIR", "settings": settings | widths, "runs": {}}


def measured(run: Path) -> dict[str, Any]:
    """Return TAR with its interval, by set, gallery and FAR, and what the training cost."""
    evaluation = json.loads((run / "evaluation.json").read_text("utf-8"))
    found: dict[str, Any] = {name: {} for name in OTHERS}
    for result in evaluation["results"]:
        if (result["protocol"], result["probe"]) == ("all-pairs", "student"):
            found[Path(result["set"]).stem][result["gallery"]] = {
                far: [round(x, 4) for x in (at["value"], *at["ci95"])]
                for far, at in result["tar_at_far"].items()
                if far in FARS
            }
    cost = {key: evaluation["training"][key] for key in ("epochs", "images", "seconds", "images_per_second")}
    return found | cost | {"parameters": evaluation["models"]["student"]["parameters"]}


def seeds_of(runs: Runs, row: str, crowd: Crowd) -> list[dict[str, Any]]:
    """Return the runs of a row that count, one for each seed."""
    rate = RATE if row == "teacher" else chosen(runs, row)
    found: dict[str, Any] = runs.get(crowd.name, {}).get(row, {}).get(f"{rate:g}", {})
    return list(found.values())


def figure(found: Sequence[dict[str, Any]], gallery: str, far: str) -> tuple[float, float, float] | None:
    """Return mean TAR and the mean ends of its interval, in percent; None if nothing was measured."""
    known = [run["unseen"][gallery][far] for run in found if far in run["unseen"].get(gallery, {})]
    if not known:
        return None
    value, low, high = (100 * sum(column) / len(known) for column in zip(*known, strict=True))
    return value, low, high


def cell(found: tuple[float, float, float] | None) -> str:
    return "" if found is None else f"{found[0]:.1f} [{found[1]:.1f}, {found[2]:.1f}]"


def measured_crowds(runs: Runs) -> list[Crowd]:
    """Return the crowds of the usual number of images, by the number of people."""
    return [crowd for crowd in sorted(map(Crowd.of, runs)) if crowd.images == IMAGES]


def other_crowds(runs: Runs) -> list[Crowd]:
    """Return the crowds of the same people with other numbers of images, and those of the usual number beside them."""
    crowds = sorted(map(Crowd.of, runs))
    people = {crowd.people for crowd in crowds if crowd.images != IMAGES}
    return [crowd for crowd in crowds if crowd.people in people]


def results_table(runs: Runs, crowds: Sequence[Crowd], far: str) -> str:
    """Return TAR of every row and crowd; an empty cell was not measured."""
    heads = [f"{_words(crowd, crowds)}, {of}" for crowd in crowds for of in ("S/S", "S/T")]
    lines = [f"| method | seeds | {' | '.join(heads)} |", "| --- | ---: |" + " ---: |" * len(heads)]
    for row in ("teacher", *METHODS):
        galleries = ("student", "teacher") if row != "teacher" else ("student", "")
        found = {crowd: seeds_of(runs, row, crowd) for crowd in crowds}
        cells = [cell(figure(found[crowd], gallery, far)) for crowd in crowds for gallery in galleries]
        counts = {len(of) for of in found.values() if of}
        lines.append(f"| {row} | {' to '.join(map(str, sorted(counts)))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _words(crowd: Crowd, crowds: Sequence[Crowd]) -> str:
    """Return "400 people", or "400 people x 8" beside other numbers of images."""
    several = len({one.images for one in crowds}) > 1
    return f"{crowd.people:,} people" + (f" x {crowd.images}" if several else "")


def trials_table(runs: Runs) -> str:
    """Return what the rates reach that were tried, on the people for tuning."""
    lines = ["| method | people | rate | TAR at 1e-3, S/S | counts |", "| --- | ---: | ---: | ---: | --- |"]
    for row in METHODS:
        for crowd in measured_crowds(runs):
            tried = {rate: runs[crowd.name].get(row, {}).get(f"{rate:g}", {}).get(str(SEEDS[0])) for rate in rates(row)}
            for rate, run in sorted(tried.items()):
                if run:
                    value = 100 * run["tuning"]["student"]["1e-3"][0]
                    counts = "yes" if rate == chosen(runs, row) else ""
                    lines.append(f"| {row} | {crowd.people:,} | {rate:.3g} | {value:.1f} | {counts} |")
    return "\n".join(lines)


def difference_table(runs: Runs) -> str:
    """Return TAR at 1e-4 less that of l2kd with as many people, in points; several seeds: mean, and range."""
    crowds = measured_crowds(runs)
    heads = [f"{crowd.people:,} people, {of}" for crowd in crowds for of in ("S/S", "S/T")]
    lines = [f"| less l2kd | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for row in [row for row in METHODS if row != "l2kd"]:
        cells = [_difference(runs, row, crowd, gallery) for crowd in crowds for gallery in PAIRS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(runs: Runs, row: str, crowd: Crowd, gallery: str) -> str:
    pairs = zip(seeds_of(runs, row, crowd), seeds_of(runs, "l2kd", crowd), strict=False)
    found = [a["unseen"][gallery]["1e-4"][0] - b["unseen"][gallery]["1e-4"][0] for a, b in pairs]
    if not found:
        return ""
    ends = f" ({points(min(found))} to {points(max(found))})" if len(found) > 1 else ""
    return f"{points(sum(found) / len(found))}{ends}"


def drawing(runs: Runs) -> str:
    """Return the chart: TAR at FAR 1e-4 against the number of people, of each method."""
    panels = {}
    for title, gallery in (("student against itself", "student"), ("student against the teacher’s gallery", "teacher")):
        lines = []
        for row in METHODS:
            found = {one.people: figure(seeds_of(runs, row, one), gallery, "1e-4") for one in measured_crowds(runs)}
            lines.append(Line(row, {people: of for people, of in found.items() if of is not None}))
        panels[title] = lines
    title = "Genuine pairs accepted at a false-accept rate of 1e-4 (TAR in %), by the number of people in training"
    return chart(title, "drawn people in training, 8 images each", panels)


def stored() -> dict[str, Any]:
    """Return the results so far."""
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else about()
    return found


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return every table of the page by its name, and the chart's place."""
    runs = result["runs"]
    found = {f"scale {far}": results_table(runs, measured_crowds(runs), far) for far in FARS}
    found["scale images"] = "Only 8 images of each are measured so far."
    if others := other_crowds(runs):
        found["scale images"] = results_table(runs, others, FARS[1])
    found |= {"scale differences": difference_table(runs), "scale trials": trials_table(runs)}
    found["scale chart"] = f"![TAR at FAR 1e-4 of each method by the number of people](images/{CHART.name})"
    if not drawn(runs):
        found["scale chart"] = "The chart needs two numbers of people."
    return found if runs else dict.fromkeys(found, "Nothing is measured yet.")


def drawn(runs: Runs) -> bool:
    """True if there is a chart: it shows what changes with the number of people."""
    return len(measured_crowds(runs)) > 1


def put(_: argparse.Namespace) -> None:
    """Write the stored results as the page's tables and chart."""
    result = stored()
    for name, table in tables(result).items():
        put_table("scale.md", name, table)
        print(table)
    if drawn(result["runs"]):
        with atomic_write(CHART) as temporary:
            temporary.write_text(drawing(result["runs"]), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("--work", required=True)
    verb.add_argument("--people", type=Crowd.of, nargs="+", default=[*map(Crowd, PEOPLE[:3])], metavar="N[xIMAGES]")
    verb.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    verb.add_argument("--tune", type=Crowd.of, nargs="*", default=[], metavar="N")
    verb.add_argument("--only", nargs="+", choices=list(METHODS), metavar="ROW", help="some of the rows")
    verb.set_defaults(verb=run)
    verbs.add_parser("table").set_defaults(verb=put)
    run_verb(parser)


if __name__ == "__main__":
    main()
