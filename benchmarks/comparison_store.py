"""The store of the comparison's results: two committed files, and a folder of runs that are not in them yet.

`runs.jsonl.gz` has one line for each run: settings, seed, commit, cost and figures. `resamples.npz` has the TAR in each
bootstrap resample, for the runs that a table of paired differences needs. A process that trains writes its own files
into the folder, so several processes never write to the same file. `collect` adds them to the two files.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.files import atomic_write, claimed

COMMITTED = Path(__file__).parent / "results" / "comparison"
RUNS = "runs.jsonl.gz"
GALLERIES, FARS = ("student", "teacher"), ("1e-3", "1e-4", "1e-5")
DIGITS = 5  # of a TAR in a resample, which is stored as an integer multiple of 1e-5
Run = dict[str, Any]
Resamples = dict[str, dict[str, list[float]]]  # "student-GALLERY" -> FAR -> the TAR in each resample


def read_runs(file: Path) -> list[Run]:
    """Return the runs of a file of RUNS; none if it does not exist."""
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()] if file.exists() else []


class Results:
    """The results by the name of their run. A stored result never changes.

    Args:
        waiting: the folder of results that are not committed yet; it need not exist.
    """

    def __init__(self, waiting: Path | None = None, committed: Path = COMMITTED) -> None:
        self.waiting, self.committed = waiting, committed
        self._runs: dict[str, Run] = {run["run"]: run for run in read_runs(committed / RUNS)}

    def __contains__(self, name: str) -> bool:
        return name in self._runs or self._file(name) is not None

    def __getitem__(self, name: str) -> Run:
        if name not in self._runs:
            file = self._file(name)
            if file is None:
                raise KeyError(name)
            self._runs[name] = json.loads(file.read_text("utf-8"))
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        waiting = self.waiting.glob("*.json") if self.waiting else []
        return iter(sorted({*self._runs, *(file.stem for file in waiting if not file.name.startswith("."))}))

    def resampled(self, name: str) -> Resamples:
        """Return the TAR in every resample of LFW all-pairs, the student as probe; {} if it is not kept."""
        if "resampled" in self[name]:
            return self[name]["resampled"]
        if name not in self._resamples:
            return {}
        tar = self._resamples[name] / 10**DIGITS
        return {f"student-{g}": dict(zip(FARS, rows)) for g, rows in zip(GALLERIES, tar.tolist(), strict=True)}

    def add(self, name: str, result: Run) -> None:
        """Put a result into the folder."""
        assert self.waiting is not None
        with atomic_write(self.waiting / f"{name}.json") as temporary:
            temporary.write_text(json.dumps({"run": name, **result}), "utf-8")

    def _file(self, name: str) -> Path | None:
        file = self.waiting / f"{name}.json" if self.waiting else None
        return file if file is not None and file.exists() else None

    @cached_property
    def _resamples(self) -> dict[str, np.ndarray]:
        file = self.committed / "resamples.npz"
        if not file.exists():
            return {}
        with np.load(file, allow_pickle=False) as stored:
            return dict(zip(stored["runs"].tolist(), stored["tar"], strict=True))


def collect(waiting: Path, paired: Callable[[Results], set[str]], committed: Path = COMMITTED) -> Results:
    """Add the waiting results to the committed files. The resamples are written first: a run's line marks it as done.

    Args:
        paired: returns the runs whose resamples are kept.

    Raises:
        SystemExit: another process is collecting.
    """
    committed.mkdir(parents=True, exist_ok=True)
    with claimed(committed / RUNS) as mine:
        if not mine:
            raise SystemExit("another process is collecting; wait for it and start again")
        results = Results(waiting, committed)
        drawn = {name: of for name in sorted(paired(results)) if (of := results.resampled(name))}
        tar = [[[of[f"student-{g}"][far] for far in FARS] for g in GALLERIES] for of in drawn.values()]
        whole = np.rint(np.array(tar) * 10**DIGITS).astype(np.int32)
        with atomic_write(committed / "resamples.npz") as temporary:
            np.savez_compressed(temporary, runs=np.array(list(drawn), dtype=np.str_), tar=whole)
        with atomic_write(committed / RUNS) as temporary:
            text = "".join(f"{json.dumps(line(results[name]))}\n" for name in results)
            temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same bytes for the same results
    return results


def line(run: Run) -> Run:
    """Return the run without the parts that no table reads: curves, resamples, differences within the run."""
    evaluation = {key: value for key, value in run["evaluation"].items() if key != "differences"}
    evaluation["results"] = [_figures(result) for result in evaluation["results"]]
    return {key: value for key, value in run.items() if key != "resampled"} | {"evaluation": evaluation}


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key not in ("curves", "resampled")}
    if "tar_at_far" in kept:
        left_out = ("closest", "threshold_ci95")
        kept["tar_at_far"] = {
            far: {key: value for key, value in at.items() if key not in left_out}
            for far, at in kept["tar_at_far"].items()
        }
    return kept
