"""The comparison's results: several processes add runs to a folder, `collect` moves them into the committed files."""

import gzip
import importlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facedistill.files import claimed

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("comparison_store")
    for name in ("comparison", "comparison_chart", "comparison_plan", "comparison_store", "docs_table"):
        sys.modules.pop(name, None)


def run(value: float) -> dict[str, Any]:
    """As `comparison.py run` makes it."""
    at = {"value": value, "threshold": 0.5, "threshold_ci95": [0.4, 0.6], "closest": {"tar": 0.1, "far": 0.001}}
    result = {"set": "lfw.bin", "tar_at_far": {"1e-3": at}, "curves": {"roc": {}}}
    drawn = {far: [round(value + n / 1e5, 5) for n in range(3)] for far in ("1e-3", "1e-4", "1e-5")}
    return {
        "name": "l2kd",
        "seed": 0,
        "evaluation": {"schema": 1, "results": [result], "differences": [{}]},
        "resampled": {"student-student": drawn, "student-teacher": drawn},
    }


def test_collected_runs_are_as_they_were_less_what_no_table_reads(store: ModuleType, tmp_path: Path) -> None:
    waiting, committed = tmp_path / "waiting", tmp_path / "committed"
    results = store.Results(waiting, committed)
    assert list(results) == [] and "b" not in results
    results.add("b", run(0.65165))
    results.add("a", run(0.1 + 0.2))
    assert "b" in results and list(results) == ["a", "b"]
    resampled = results.resampled("b")

    store.collect(waiting, lambda found: {name for name in found if name == "b"}, committed)
    lines = store.read_runs(committed / store.RUNS)
    assert [line["run"] for line in lines] == ["a", "b"]
    for file in waiting.iterdir():
        file.unlink()
    again = store.Results(waiting, committed)
    assert again["a"] == {
        "run": "a",
        "name": "l2kd",
        "seed": 0,
        "evaluation": {
            "schema": 1,
            "results": [{"set": "lfw.bin", "tar_at_far": {"1e-3": {"value": 0.1 + 0.2, "threshold": 0.5}}}],
        },
    }
    assert again.resampled("b") == resampled and again.resampled("a") == {}
    assert "a" in again and "c" not in again
    with pytest.raises(KeyError):
        again["c"]


def test_collecting_again_adds_runs_and_changes_no_byte_without_new_ones(store: ModuleType, tmp_path: Path) -> None:
    waiting, committed = tmp_path / "waiting", tmp_path / "committed"

    def collected() -> dict[str, bytes]:
        store.collect(waiting, set, committed)
        return {file.name: file.read_bytes() for file in committed.iterdir()}

    store.Results(waiting, committed).add("b", run(0.5))
    first = collected()
    assert collected() == first and first.keys() == {store.RUNS, "resamples.npz"}
    (waiting / "b.json").unlink()
    store.Results(waiting, committed).add("a", run(0.25))
    store.Results(waiting, committed).add("b", run(0.75))  # a committed result stays as it is
    lines = [gzip.decompress(found[store.RUNS]) for found in (first, collected())]
    assert lines[1].endswith(lines[0])
    assert store.Results(None, committed).resampled("b")["student-teacher"]["1e-4"] == [0.5, 0.50001, 0.50002]
    assert list(store.Results(None, committed)) == ["a", "b"]


def test_several_writers_at_once(store: ModuleType, tmp_path: Path) -> None:
    names = [f"run-{n:02}" for n in range(40)]

    def write(name: str) -> None:
        store.Results(tmp_path / "waiting", tmp_path).add(name, run(0.5))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    assert list(store.collect(tmp_path / "waiting", set, tmp_path)) == names
    assert list(store.Results(None, tmp_path)) == names


def test_only_one_collects(store: ModuleType, tmp_path: Path) -> None:
    with claimed(tmp_path / store.RUNS), pytest.raises(SystemExit, match="another process is collecting"):
        store.collect(tmp_path / "waiting", set, tmp_path)


def test_of_the_committed_results_only_the_rows_stopped_early_lack_seeds(store: ModuleType) -> None:
    plan, results = importlib.import_module("comparison_plan"), store.Results()
    pending = {plan.run_name(*job) for job in plan.jobs(results)} - set(results)
    assert all("PxK" in name for name in pending)
    assert len(plan.paired(results)) > 40


def test_a_job_that_is_committed_or_waits_is_skipped(
    store: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = importlib.import_module("comparison")
    plan, done = comparison.plan, []
    jobs = [(name, "easy", {"lr": 1.0}, 0) for name in ("committed", "waits", "new")]
    names = [plan.run_name(*job) for job in jobs]
    store.Results(tmp_path / "other").add(names[0], run(0.5))
    store.collect(tmp_path / "other", set, tmp_path)
    store.Results(tmp_path / "runs" / "results").add(names[1], run(0.5))

    def run_one(args: Namespace, results: Any, *job: Any) -> None:
        done.append(plan.run_name(*job))
        results.add(done[-1], run(0.5))

    monkeypatch.setattr(comparison, "run_one", run_one)
    monkeypatch.setattr(plan, "jobs", lambda results: jobs)
    monkeypatch.setattr(comparison, "results_of", lambda args: store.Results(Path(args.runs) / "results", tmp_path))
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    comparison.run(Namespace(runs=tmp_path / "runs", threads=1))
    assert done == names[2:] and list(comparison.results_of(Namespace(runs=tmp_path / "runs"))) == sorted(names)
