"""Load the evaluations that runs and `evaluate --json` stored, and published figures beside them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from facedistill.errors import UserError
from facedistill.results.published import read_published
from facedistill.results.reading import measured
from facedistill.results.shape import require_shape
from facedistill.run import LOG, VERIFICATION, read_log

EXPECTED_RUNS = "expected a finished run, a folder of runs, or a file of `evaluate --json`"


def load_evaluations(places: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the evaluation JSON of each run or file by its name, in the order given; published figures come last.

    Raises UserError for a place without an evaluation, and for a file of another kind.
    """
    found = {}
    for name, file in _files(places):
        try:
            evaluation = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise UserError(f"{file}: cannot be read as JSON ({e}); {EXPECTED_RUNS}") from e
        if not isinstance(evaluation, dict) or not isinstance(evaluation.get("results"), list):
            raise UserError(f"{file}: no evaluation (no 'results'); {EXPECTED_RUNS}")
        if "published" not in evaluation:
            require_shape(evaluation, file, EXPECTED_RUNS)
        else:
            name, evaluation = read_published(evaluation, file)
        found[name] = evaluation
    return measured(found) | found


def without_resamples(evaluations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the evaluations without the long lists of the figures' values in every resample."""
    return {
        run: evaluation
        | {"results": [{key: value for key, value in r.items() if key != "resampled"} for r in evaluation["results"]]}
        for run, evaluation in evaluations.items()
    }


def load_logs(places: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of log.jsonl and verification.jsonl of each run by its name; bare files have none."""
    runs = {name: file.parent for name, file in _files(places) if file.name == "evaluation.json"}
    found = {}
    for name, run in runs.items():
        if lines := [row for name in (LOG, VERIFICATION) for row in read_log(run / name)]:
            found[name] = lines
    return found


def _files(places: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield (name, evaluation file); a name is the run's folder or the file's stem, with its parent if two agree."""
    files = [file for place in places for file in _in(place)]
    short = [file.parent.name if file.name == "evaluation.json" else file.stem for file in files]
    for file, name in zip(files, short, strict=True):
        yield (name if short.count(name) == 1 else str(file.parent / file.stem)), file


def _in(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if (place / "evaluation.json").is_file():
        return [place / "evaluation.json"]
    inside = sorted(place.glob("*/evaluation.json"))
    if not inside:
        raise UserError(f"{place}: no evaluation there; {EXPECTED_RUNS}")
    return inside
