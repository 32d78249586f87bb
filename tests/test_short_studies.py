"""The short studies, on twelve people: every part runs, finished parts are skipped, and tables are full."""

import argparse
import json
from pathlib import Path

import exported
import multi_step
import pytest
import search_study
import short_study
from command import run_verb

from facedistill.architecture_search import random_genotype
from facedistill.backbones import count_macs, create_backbone
from facedistill.models import load_model
from studies import TEST, column, files, results
from tiny_world import Tiny


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (short_study, "FARS", (1e-1, 1e-2)),
        (short_study, "RESAMPLES", 5),
        (short_study, "BATCH", 12),
        (search_study, "FARS", (1e-1, 1e-2)),
        (search_study, "DECIDING", ("teacher", "1e-1")),
        (search_study, "SEARCH_BATCH", 12),
        (search_study, "SIZE", 32),
        (search_study, "CELLS", 4),
        (search_study, "SUPERNET", search_study.SUPERNET | {"channels": 2}),
        (search_study, "MOBILE", {"backbone": "mobilefacenet", "options": {"width": 0.25, "output": "affine"}}),
        (search_study, "ROUNDS", 1),
        (search_study, "WIDTHS", (5, 6)),
        (exported, "ROUNDS", 1),
        (multi_step, "SIZE", 32),
        (multi_step, "DIM", 16),
        (multi_step, "BATCH", 12),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_search_study(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "runs"
    args = argparse.Namespace(data=str(tiny.photos), teacher=str(tiny.teacher), lfw=TEST, runs=str(folder), threads=1)
    vars(args).update(seeds=[0], random=2, epochs=1, search_epochs=1, without=0.2)
    vars(args).update(equal=["macs", "latency"], only=None, go_on=False)
    search_study.run(args)
    before = files(folder)
    search_study.run(args)
    assert files(folder) == before and len(before) == 3 + 13 + 12  # searches, networks, and the widths of all cells
    result = results(monkeypatch, search_study, folder)
    mobile = create_backbone("mobilefacenet", 16, 32, width=0.25, output="affine")
    equal = [row for row in result["networks"] if row["equal"] == "macs"]
    assert all(0.7 < row["macs"] / count_macs(mobile, 32) < 1.4 for row in equal) and len(equal) == 7
    tables = search_study.tables(result)
    for name in ("search equal macs", "search equal latency"):
        assert column(tables[name], 1)[4:] == ["random cells: 2 genotypes", "MobileFaceNet, width 0.5"]
        assert [cell.endswith(" of 2") for cell in column(tables[name], -2)] == [True] * 4 + [False, True]
    assert column(tables["search ranking"], 2) == ["5"] * 3
    elsewhere = tmp_path / "elsewhere"
    vars(args).update(runs=str(elsewhere), go_on=True)
    search_study.run(args)  # all is known: nothing is searched or trained
    assert len(files(elsewhere)) == 3 + 13 + 12 and not [path for path in elsewhere.iterdir() if path.is_dir()]
    search_study.collect(elsewhere)
    assert json.loads((folder / "results.json").read_text()) == result


def test_equal_latency_is_the_widest_network_that_takes_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime computes 8 channels faster than 5, so the price does not grow with the width alone."""
    prices = {1: 0.5, 2: 0.6, 3: 0.9, 4: 0.95, 5: 1.3, 6: 1.4, 7: 1.5, 8: 1.05, 9: 1.6}
    monkeypatch.setattr(search_study, "WIDTHS", range(1, 10))
    monkeypatch.setattr(search_study, "_network", lambda student, dim: student["options"].get("channels", 0))
    for name in search_study.PRICES:
        monkeypatch.setitem(search_study.PRICES, name, lambda unit: prices.__getitem__)
    cells = random_genotype(0)
    assert search_study.width_of(tmp_path, "a", cells, 16, "latency") == {"channels": 8, "price": 1.05}
    assert search_study.width_of(tmp_path, "a", cells, 16, "macs")["channels"] == 4  # the nearest
    prices[8] = 1.2
    assert search_study.width_of(tmp_path, "b", cells, 16, "latency")["channels"] == 4
    assert search_study.width_of(tmp_path, "a", cells, 16, "latency")["channels"] == 8  # the file keeps it
    prices[5], prices[8] = 2.1, 1.0
    assert search_study.width_of(tmp_path, "c", cells, 16, "latency")["channels"] == 4  # no more than 5 were tried


def test_a_table_of_equal_latency_tells_widths_apart() -> None:
    far = {"1e-3": [0.1, 0.1, 0.1], "1e-4": [0.1, 0.1, 0.1]}
    row = {"network": "pocketnet", "equal": "latency", "cells": [1], "parameters": 1e5, "macs": 1e6}
    row["tar"] = {"student": far, "teacher": far}
    runs = [row | {"channels": channels, "seed": seed} for seed, channels in enumerate((4, 8, 8))]
    table = search_study.network_table({"networks": runs, "searches": [], "ms": {}}, "latency")
    lines = [line for line in table.splitlines() if line.startswith("| published cells (PocketNet)")]
    assert [line.split("|")[2].strip() for line in lines] == ["4", "8"]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_multi_step_study(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "runs"
    args = argparse.Namespace(data=str(tiny.photos), test=TEST, runs=str(folder), seeds=[0, 1], epochs=2, threads=1)
    multi_step.run(args)
    before = files(folder)
    multi_step.run(args)
    assert files(folder) == before and len(before) == 1 + 2 * 3
    table = multi_step.table(results(monkeypatch, multi_step, folder))
    assert column(table, 2) == ["1", "2", "2", "2"]


def test_a_mistake_of_the_user_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(_: argparse.Namespace) -> None:
        load_model(tmp_path / "missing.onnx")

    parser = argparse.ArgumentParser()
    parser.set_defaults(verb=fails)
    monkeypatch.setattr("sys.argv", ["/far/away/study.py"])
    with pytest.raises(SystemExit, match=r"^study\.py: .*missing\.onnx: no such file.*") as stopped:
        run_verb(parser)
    assert "\n" not in str(stopped.value)
