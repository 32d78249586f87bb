"""The study of long tails: its plan, its choice of settings, and a run of it on a few people from end to end."""

import argparse
import json
from pathlib import Path
from typing import Any

import long_tail
import pytest
from long_tail import LOSSES, REGION, SEEDS, TUNED_AT, Setting


def _row(method: str, setting: Setting, tuning: float, seed: int = SEEDS[0], test: float = 0.5) -> dict[str, Any]:
    about = {"method": method, "imbalance": TUNED_AT, "seed": seed} | setting._asdict()
    return about | {"test": {"map": test, "few_map": test, "many_map": test}, "tuning": {"map": tuning}}


def test_a_setting_is_chosen_after_all_three_and_imitation_has_the_rate_of_bce() -> None:
    rates = long_tail.settings("bce", Setting())
    rows = [_row("bce", setting, tuning) for setting, tuning in zip(rates[:2], (0.4, 0.6), strict=True)]
    assert long_tail.chosen(rows, "bce") == rates[0]
    rows.append(_row("bce", rates[2], 0.5))
    assert long_tail.chosen(rows, "bce") == rates[1]
    weights = long_tail.settings("kd", rates[1])
    assert {one.rate for one in weights} == {rates[1].rate} and len({one.weight for one in weights}) == 3
    rows += [_row(REGION, setting, tuning) for setting, tuning in zip(weights, (0.1, 0.2, 0.3), strict=True)]
    assert long_tail.chosen(rows, "rskd, at random") == long_tail.chosen(rows, REGION) == weights[2]
    assert long_tail.chosen(rows, "kd") == weights[0]
    assert long_tail.trials_table(rows).count("yes") == 2


def test_differences_are_paired_over_seeds() -> None:
    rows = [_row("bce", Setting(), 0.5, seed, test) for seed, test in ((0, 0.5), (1, 0.4))]
    rows += [_row("kd", Setting(), 0.5, seed, test) for seed, test in ((0, 0.6), (1, 0.52), (2, 0.9))]
    lines = {line.split("|")[1].strip(): line for line in long_tail.table(rows, TUNED_AT).splitlines()}
    assert "+11.00 [" in lines["kd"] and "+" not in lines["bce"]
    assert long_tail.table(rows, 10) == "Not measured yet."


def test_every_method_has_the_terms_it_names() -> None:
    teachers = {name: Path(name) for name in ("eyes", "mouth")}
    for method in LOSSES:
        assert long_tail.spec(method, {}, Setting()) == {"name": method}
    terms = long_tail.spec("rskd, regions, self-paced", teachers, Setting(0.1, 30))["terms"]
    assert terms["rskd"] == 0 and terms["eyes"]["balance"] == "self_paced" and terms["mouth"]["weight"] == 30


def test_teachers_together_answer_for_their_own_labels(tmp_path: Path) -> None:
    def label(precision: float, images: int) -> dict[str, float]:
        return {"average_precision": precision, "auc": 0.5 + precision / 2, "training_images": images}

    own = {"eyes": [label(0.9, 200), label(0.3, 5)], "mouth": [label(0.6, 100)]}
    for name, labels in own.items():
        row = {"set": "test", "probe": "student", "gallery": "student", "of_classes": labels}
        other = row | {"gallery": "teacher", "of_classes": [label(0.1, 1)]}
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"results": [row, row | {"set": "tuning"}, other]}))
    found = long_tail.together([tmp_path / name for name in own])
    assert found["test"] == {"map": 0.6, "label_auc": 0.8, "many_map": 0.75, "few_map": 0.3} == found["tuning"]


@pytest.mark.slow
def test_a_study_of_a_few_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(long_tail, "RESULTS", tmp_path / "long_tail.json")
    small = {"PEOPLE": 60, "IMAGES": 2, "EPOCHS": 1, "BATCH": 32, "TEACHER": 0.25, "OTHERS": {"test": 20}}
    small |= {
        "LOSSES": ("bce",),
        "RSKD": {name: of for name, of in long_tail.RSKD.items() if of[1] != "inverse_frequency"},
    }
    for name, value in small.items():
        monkeypatch.setattr(long_tail, name, value)
    runs = tmp_path / "runs"
    args = argparse.Namespace(runs=str(runs), imbalance=[10], seeds=[0], tune=False, only=None, threads=1)
    long_tail.run(args)
    files = sorted(runs.glob("tail-*.json"))
    assert len(files) == 2 + len(long_tail.RSKD) + len(long_tail.OWN_ROWS)
    times = [file.stat().st_mtime_ns for file in files]
    long_tail.run(args)
    assert [file.stat().st_mtime_ns for file in files] == times
    assert all(0 < json.loads(file.read_text())["test"]["map"] <= 1 for file in files)
    long_tail.collect(runs)
    lines = long_tail.tables(json.loads(long_tail.RESULTS.read_text()))["long tail 10"].splitlines()
    assert len(lines) == 2 + len(files) and all(line.split("|")[2].strip() == "1" for line in lines[2:])
