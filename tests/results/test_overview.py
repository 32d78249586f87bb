"""The overview: one row a recipe and pair of models, and every figure where it belongs."""

from typing import Any

from facedistill.results import render_comparison
from facedistill.results.across_runs import over_seeds
from facedistill.results.overview import overview
from facedistill.results.reading import Entry, rate
from facedistill.results.stored import without_resamples

RESAMPLES = [-0.02, 0.0, 0.02]


def result(pair: str, tars: dict[str, float], name: str = "lfw", **more: Any) -> dict[str, Any]:
    probe, gallery = pair.split(" ")
    return {
        "protocol": "all-pairs",
        "set": name,
        "probe": probe,
        "gallery": gallery,
        "settings": {"flip": "sum"},
        "tar_at_far": {far: {"value": tar, "impostors": round(2e5 * float(far))} for far, tar in tars.items()},
        "resampled": {f"tar_at_far.{far}": [tar + draw for draw in RESAMPLES] for far, tar in tars.items()},
        "eer": 0.1,
    } | more


def run(method: str, seed: int, tar: float) -> dict[str, Any]:
    at = {"1e-3": {"tar": tar / 2, "far": 5e-4}, "1e-4": {"tar": tar / 3, "far": 5e-5}}
    return {
        "models": {"student": {"parameters": 280_000, "macs": 7}, "teacher": {"parameters": 990_000}},
        "method": method,
        "training": {
            "recipe": method,
            "seed": seed,
            "epochs": 14,
            "data": "faces",
            "images_per_second": 200.0 + seed,
            "seconds": 600.0,
            "teacher_forwards": 1000,
        },
        "results": [
            result("student student", {"1e-3": tar, "1e-4": tar - 0.2}),
            result("student teacher", {"1e-3": tar + 0.1, "1e-4": tar - 0.1}, at_gallery_threshold=at),
            result("teacher teacher", {"1e-3": 0.98, "1e-4": 0.95}),
            {"protocol": "pairs", "set": "lfw", "probe": "student", "gallery": "student", "settings": {}}
            | {"accuracy": 0.9 + tar / 100, "ci95": [0.89, 0.92], "tar_at_far": {"1e-1": {"value": 0.99}}},
            result("student student", {"1e-3": tar - 0.3}, name="hold-out"),
        ],
    }


def runs() -> dict[str, dict[str, Any]]:
    found = {f"l2kd-s{seed}": run("l2kd", seed, tar) for seed, tar in enumerate((0.60, 0.64))}
    return found | {"rkd": run("rkd", 0, 0.5)}


def rows(text: str) -> list[dict[str, str]]:
    """The rows of the first table in a Markdown text, by column."""
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    header, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, cells, strict=True)) for cells in body]


def test_a_row_for_each_recipe_and_pair() -> None:
    evaluations = runs()
    text = render_comparison(without_resamples(evaluations), recipes=without_resamples(over_seeds(evaluations)))
    assert text.startswith("Overview, lfw. Mean over the seeds in %, its 95% interval where that is known, the range")
    found = rows(text)
    assert [(row["recipe"], row["probe → gallery"], row["seeds"]) for row in found] == [
        ("l2kd", "student → student", "2"),
        ("rkd", "student → student", "1"),
        ("l2kd", "student → teacher", "2"),
        ("rkd", "student → teacher", "1"),
        ("every recipe", "teacher → teacher", ""),
    ]
    own, crossed, teacher = found[0], found[2], found[4]
    assert own["TAR at FAR 1e-3"] == "62.0 [60.1, 63.9] 60.0 to 64.0"
    assert own["TAR at FAR 1e-4"].startswith("42.0 [")
    assert own["accuracy"] == "90.6 60.0".replace("60.0", "90.6 to 90.6"), (
        "of the list of pairs, no interval of the mean"
    )
    assert found[1]["accuracy"] == "90.5 [89.0, 92.0]"
    assert "EER" not in own and "TAR at FAR 1e-1" not in own
    column = "at the gallery’s threshold for FAR 1e-4"
    assert crossed[column] == "20.7 FAR 5.00e-5" and own[column] == ""
    costs = ("parameters", "MACs", "images/s", "minutes", "teacher forwards")
    assert [own[cost] for cost in costs] == ["280,000", "7", "200", "10.0", "1,000"]
    assert [crossed[cost] for cost in costs] == [""] * 5
    assert [teacher[cost] for cost in costs] == ["990,000", "", "", "", ""]


def test_teachers_that_are_not_alike_have_a_row_each() -> None:
    evaluations = runs() | {"pkt": run("pkt", 0, 0.4)}
    evaluations["pkt"]["results"][2]["tar_at_far"]["1e-3"]["value"] = 0.97
    evaluations["l2kd-s1"]["results"][2]["auc"] = 0.99  # no figure of the overview
    text = render_comparison({}, recipes=without_resamples(over_seeds(evaluations)))
    teachers = [row for row in rows(text) if row["probe → gallery"] == "teacher → teacher"]
    assert [row["recipe"] for row in teachers] == ["l2kd and 1 more", "pkt"]
    assert [row["TAR at FAR 1e-3"] for row in teachers] == ["98.0", "97.0"]
    assert {row[what] for row in teachers for what in ("method", "seeds", "images/s")} == {""}


def test_recipes_that_trained_longer_are_not_compared_silently() -> None:
    evaluations = runs()
    assert not any("not comparable" in note for table in overview(over_seeds(evaluations)) for note in table.notes)
    evaluations["rkd"]["training"]["epochs"] = 20
    assert all("not comparable" in table.notes[0] for table in overview(over_seeds(evaluations)))


def test_the_costs_stand_once() -> None:
    first, second = overview(without_resamples(over_seeds(runs())))
    assert "images/s" in first.columns and second.caption == "Overview, hold-out"
    assert second.columns == ["recipe", "probe → gallery", "method", "seeds", "TAR at FAR 1e-3"]


def test_a_figure_that_few_impostors_decide_is_starred() -> None:
    evaluations = runs()
    for evaluation in evaluations.values():
        evaluation["results"][0]["tar_at_far"]["1e-4"]["impostors"] = 3
    text = render_comparison({}, recipes=without_resamples(over_seeds(evaluations)))
    found = rows(text)
    assert found[0]["TAR at FAR 1e-4"].startswith("42.0* ") and "* fewer than 20" in text
    assert "at the gallery’s threshold for FAR 1e-3" in found[0], "the lowest rate that can be trusted"


def test_in_both_directions_each_pair_counts_twice() -> None:
    pooled = result("student teacher", {"1e-3": 0.5}, settings={"flip": "sum", "directions": "both, pooled"})
    for impostors, mark in ((39, "*"), (40, "")):
        pooled["tar_at_far"]["1e-3"]["impostors"] = impostors
        assert rate([Entry("", pooled)]) == (None if mark else "1e-3")
        assert ("50.00*" in render_comparison({"": {"models": {}, "results": [pooled]}})) == bool(mark)
        table, *_ = overview({name: {"models": {}, "results": [pooled]} for name in "ab"})
        assert next(cell for cell in table.rows[0] if cell.value == "50.0").mark == mark


def test_a_single_run_has_none() -> None:
    one = {"rkd": run("rkd", 0, 0.5)}
    assert overview(over_seeds(one)) == []
    assert len(overview(over_seeds({"l2kd-s0": run("l2kd", 0, 0.5), "l2kd-s1": run("l2kd", 1, 0.5)}))) == 2


def test_what_is_published_stands_beside_its_like_and_is_marked() -> None:
    """A paper's accuracy is of the list of pairs alone."""
    published = {"protocol": "pairs", "set": "lfw", "probe": "student", "gallery": "student", "settings": {}}
    results = [published | {"published": "table 4", "accuracy": 0.9963}]
    evaluations = runs() | {"a paper": {"models": {}, "results": results, "published": "table 4"}}
    text = render_comparison(without_resamples(evaluations), recipes=without_resamples(over_seeds(evaluations)))
    assert [row["recipe"] for row in rows(text)[:3]] == ["l2kd", "rkd", "a paper"]
    row = rows(text)[2]
    assert row["accuracy"] == "99.6" and row["TAR at FAR 1e-3"] == row["seeds"] == row["parameters"] == ""
    assert "Published figures are" in text
