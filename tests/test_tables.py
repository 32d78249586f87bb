"""Tables in docs/ are what the committed JSON says: run the benchmark's `table` again when one of these fails."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in (
        "docs_table",
        "comparison",
        "comparison_chart",
        "comparison_plan",
        "comparison_store",
        "result_file",
        "training",
        "check_detection",
        "evaluation",
        "head",
        "head_rivals",
        "export",
        "prepare",
        "clean",
        "clean_planted",
        "clean_worth",
        "photos_to_device",
        "gallery_speed",
        "gallery_upgrade",
        "low_resolution",
        "exported",
        "all_pairs_memory",
        "fuzzing",
        "busy",
        "augmentation",
        "augmentation_rivals",
        "instances",
        "long_tail",
        "scale",
        "scale_chart",
        "timing",
        "short_study",
        "search_study",
        "family",
        "family_chart",
        "fashion",
        "house",
        "identity_tail",
        "multi_step",
    ):
        sys.modules.pop(name, None)


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _json(name: str) -> Any:
    return json.loads((BENCHMARKS / "results" / name).read_text("utf-8"))


def test_comparison() -> None:
    for page, tables in _module("comparison").tables(_module("comparison_store").Results()).items():
        for name, table in tables.items():
            assert _module("docs_table").stored_table(page, name) == table.strip()


def test_the_chart_of_the_comparison() -> None:
    comparison, results = _module("comparison"), _module("comparison_store").Results()
    drawn = comparison.summary_chart(results)
    assert comparison.CHART.read_text("utf-8") == drawn
    assert all(value in drawn for value in ("48.4 and 61.2", "26.4 and 26.9", "45.9 and 59.7", "95.8"))
    assert "mean over three seeds" in drawn
    assert {len(row["training"]["seeds"]) for row in comparison.first_page(results).values()} == {3}


def test_comparison_has_one_definition_of_images_a_second_and_hours_as_noted() -> None:
    comparison, plan = _module("comparison"), _module("comparison_plan")
    results = _module("comparison_store").Results()
    for row in plan.FINALS:
        rates = [run["images_per_second"] for run in plan.stored(results, *row).values()]
        assert [e["training"]["images_per_second"] for e in comparison.finals(results, [row]).values()] == rates
    runs = [results[name] for name in results if name.startswith("final-")]
    assert len(runs) > 100
    noted = sum(run["evaluation"].get("training", {}).get("seconds", 0) for run in runs) / 3600
    early = sum(193_172 / run["images_per_second"] for run in runs if "training" not in run["evaluation"]) / 3600
    assert f"| {noted + early:.1f} |" in comparison.cost_table(results)


def test_training() -> None:
    table = _module("training").table(_json("training.json"))
    assert _module("docs_table").stored_table("training.md", "training") == table.strip()


def test_check_detection() -> None:
    table = _module("check_detection").table(_json("check_detection.json"))
    assert _module("docs_table").stored_table("check.md", "check_detection") == table.strip()


def test_evaluation() -> None:
    table = _module("evaluation").table(_json("evaluation.json"))
    assert _module("docs_table").stored_table("evaluation.md", "evaluation") == table.strip()


def test_head() -> None:
    for name, table in _module("head").tables().items():
        assert _module("docs_table").stored_table("head.md", name) == table.strip()


def test_the_heads_rival_is_what_it_is_called() -> None:
    _module("head_rivals").check_partial_fc()


def test_export() -> None:
    result = _json("export.json")
    tables = _module("export").tables(result)
    assert {"export", "export goals", "export of public networks", "export of students", "export faults"} == set(tables)
    for name, table in tables.items():
        assert _module("docs_table").stored_table("export.md", name) == table.strip()
    planted = [row for row in result["faults"] if not row["fault"].startswith("none")]
    assert planted and not any(row["passed"] for row in planted)


def test_prepare() -> None:
    tables = _module("prepare").tables(_json("prepare.json"))
    assert "prepare lfw" in tables
    for name, table in tables.items():
        assert _module("docs_table").stored_table("prepare.md", name) == table.strip()


def test_photos_to_device() -> None:
    table = _module("photos_to_device").table(_json("photos_to_device.json"))
    stored = _module("docs_table").stored_table("guides/photos_to_device.md", "photos to device")
    assert stored == table.strip()


def test_clean_worth() -> None:
    table = _module("clean_worth").table(_json("clean_worth.json"))
    assert _module("docs_table").stored_table("clean.md", "clean worth") == table.strip()


def test_clean() -> None:
    result = _json("clean.json")
    tables = _module("clean").tables(result)
    assert {"clean find", "clean before", "clean neighbours"} == set(tables)
    for name, table in tables.items():
        assert _module("docs_table").stored_table("clean.md", name) == table.strip()
    five = [row for row in result["find"] if row["share"] == 0.05 and row["by"] == "clean"]
    assert {row["kind"] for row in five} == {"swapped", "merged", "split", "duplicate", "overlap", "unclear"}
    assert min(row["precision"][0] for row in five) > 0.9 and min(row["recall"][0] for row in five) > 0.6


def test_gallery_speed() -> None:
    tables = _module("gallery_speed").tables(_json("gallery_speed.json"))
    assert {"gallery search", "gallery enrol"} <= set(tables)
    for name, table in tables.items():
        assert _module("docs_table").stored_table("gallery.md", name) == table.strip()


def test_gallery_upgrade() -> None:
    tables = _module("gallery_upgrade").tables(_json("gallery_upgrade.json"))
    assert {"gallery identification", "gallery calibrated", "gallery upgrade"} == set(tables)
    for name, table in tables.items():
        assert _module("docs_table").stored_table("gallery-upgrade.md", name) == table.strip()


def test_damaged_files() -> None:
    counted = _json("fuzz.json")
    assert _module("docs_table").stored_table("hardness.md", "fuzz") == _module("fuzzing").table(counted).strip()
    kinds = {kind for counts in counted["formats"].values() for kind in counts}
    assert kinds <= {"accepted", "refused"} and len(counted["formats"]) >= 39
    memory = _json("all_pairs_memory.json")
    stored = _module("docs_table").stored_table("hardness.md", "all-pairs memory")
    assert stored == _module("all_pairs_memory").table(memory).strip()
    assert max(row["mb"] for row in memory["rows"]) < 1024 and memory["rows"][-1]["images"] == 1_000_000


def test_busy_machine() -> None:
    assert (
        _module("docs_table").stored_table("hardness.md", "busy") == _module("busy").table(_json("busy.json")).strip()
    )


def test_low_resolution() -> None:
    benchmark, result = _module("low_resolution"), _json("low_resolution.json")
    for name, table in benchmark.tables(result).items():
        assert _module("docs_table").stored_table("low_resolution.md", name) == table.strip()


def test_augmentation() -> None:
    tables = _module("augmentation").tables(_json("augmentation.json"))
    assert {"augmentation", "augmentation changes"} == set(tables)
    for name, table in tables.items():
        assert _module("docs_table").stored_table("augmentation.md", name) == table.strip()


def test_long_tail() -> None:
    for name, table in _module("long_tail").tables(_json("long_tail.json")).items():
        assert _module("docs_table").stored_table("guides/other_tasks.md", name) == table.strip()


def test_instances() -> None:
    table = _module("instances").table(_json("instances.json"))
    assert _module("docs_table").stored_table("classifier.md", "instances") == table.strip()
    assert "| 1,000,000 | int8 | exact | 1 |" in table and "| 1,000,000 | bf16 | nearest 64 | 1 |" in table


def test_scale() -> None:
    scale = _module("scale")
    result = scale.stored()
    for name, table in scale.tables(result).items():
        assert _module("docs_table").stored_table("scale.md", name) == table.strip()
    assert scale.CHART.exists() == scale.drawn(result["runs"])
    assert not scale.CHART.exists() or scale.CHART.read_text("utf-8") == scale.drawing(result["runs"])


def test_search_study() -> None:
    study = _module("search_study")
    for name, table in study.tables(_json("search.json")).items():
        assert _module("docs_table").stored_table("search.md", name) == table.strip()
    assert study.kendall([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx((5 - 1) / 6)
    assert study.kendall([1, 1, 2], [3, 2, 1]) == pytest.approx(-2 / 3)  # a tie counts for neither


def test_family() -> None:
    family, result = _module("family"), _json("family.json")
    assert _module("docs_table").stored_table("model.md", "family") == family.table(result).strip()
    drawn = family.drawing(result)
    assert family.CHART.exists() == bool(drawn)
    assert not drawn or family.CHART.read_text("utf-8") == drawn


def test_the_front_of_the_family() -> None:
    module = _module("family_chart")
    places = {"a": (1, 10), "b": (2, 9), "c": (2, 12), "d": (3, 12), "e": (4, 20)}
    networks = [module.Network(name, {"ms": x}, (y, y - 1, y + 1)) for name, (x, y) in places.items()]
    assert [one.name for one in module.front(networks, "ms")] == ["a", "c", "e"]  # d costs more and finds no more
    drawn = ElementTree.fromstring(module.chart("title", "about", ["ms"], networks))
    assert len(drawn.findall(".//{*}circle")) == 2 * 5  # a mark in the panel and one in the legend


def test_multi_step() -> None:
    table = _module("multi_step").table(_json("multi_step.json"))
    assert _module("docs_table").stored_table("methods.md", "multi-step") == table.strip()


def test_fashion() -> None:
    for name, table in _module("fashion").tables(_json("fashion.json")).items():
        assert _module("docs_table").stored_table("guides/other_tasks.md", name) == table.strip()


def test_house() -> None:
    for name, table in _module("house").tables(_json("house.json")).items():
        assert _module("docs_table").stored_table("comparison.md", name) == table.strip()


def test_identity_tail() -> None:
    for name, table in _module("identity_tail").tables(_json("identity_tail.json")).items():
        assert _module("docs_table").stored_table("guides/other_tasks.md", name) == table.strip()


def test_heap() -> None:
    for name, table in _module("heap").tables(_json("heap.json")).items():
        assert _module("docs_table").stored_table("training.md", name) == table.strip()
