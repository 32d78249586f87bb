"""The page: every number of the JSON in its table, nothing fetched, nothing run, nobody named unless asked for."""

import base64
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the report needs matplotlib")
pytest.importorskip("jinja2", reason="the report needs jinja2")

from facedistill.errors import UserError
from facedistill.evaluation import evaluate
from facedistill.models.folder import load_model
from facedistill.results import write_comparison, write_report
from facedistill.results.reading import blocks, headline, rate
from facedistill.results.summary import summary
from report_example import HOSTILE, brief, example, log
from report_page import Page
from tiny_world import Tiny

RUNS = ("scratch", "<i>proxylesskd</i>", "l2kd")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    write_report(example(), folder / "report.html")
    return (folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Page:
    logs = {run: log(1 + n) for n, run in enumerate(RUNS)}
    write_comparison({run: brief(0.03 * n) for n, run in enumerate(RUNS)}, folder / "compare.html", logs=logs)
    return Page((folder / "compare.html").read_text("utf-8"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Page]:
    def write(evaluation: dict[str, Any], **options: Any) -> Page:
        write_report(evaluation, tmp_path / "page.html", **options)
        return Page((tmp_path / "page.html").read_text("utf-8"))

    return write


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def interval(ends: list[float]) -> str:
    return f"[{percent(ends[0])}, {percent(ends[1])}]"


def only(**changes: Any) -> dict[str, Any]:
    """An evaluation with one result of the least that a result is."""
    result = {"protocol": "pairs", "set": "lfw", "probe": "student", "gallery": "student"} | changes
    return {"schema": 1, "models": {"student": {}}, "results": [result]}


# The document


@pytest.mark.parametrize("name", ["page", "comparison"])
def test_well_formed(name: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name)
    assert page.faults == []
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in page.addresses() if a.startswith("#")} <= set(ids)
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert {given.get("scope") for given in page.all("th")} == {"col", "row"}
    assert all(given.get("aria-label") for given in page.all("table"))
    assert all(given.get("aria-label") and given.get("role") == "img" for given in page.all("svg"))
    assert all(given["tabindex"] == "0" for given in page.all("div") if given.get("class") == "scroll"), "by keyboard"
    labels = [a["aria-label"] for a in page.all("a") if a.get("download", "").endswith((".svg", ".csv"))]
    assert len(labels) == 2 * len(page.all("svg")) > 0
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", ["page", "comparison"])
def test_nothing_is_fetched_or_run(name: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name)
    assert all(re.match(r"data:|#", address) for address in page.addresses())
    assert "url(" not in page.data["style"]
    assert "@import" not in page.data["style"]
    assert page.all("script") == [{"type": "application/json", "id": "evaluation"}]
    assert not [n for _, given in page.tags for n in given if n.startswith("on")]
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    others = {"iframe", "object", "embed", "video", "audio", "form", "base", "img", "image"}
    assert not others & {tag for tag, _ in page.tags}


def test_hostile_names_stand_as_they_are(page: Page, comparison: Page) -> None:
    assert HOSTILE in page.text
    assert 'runs/a <b>bold</b> & "quoted" name/model' in page.text
    assert "facedistill evaluate <run> & more" in page.text
    assert RUNS[1] in comparison.text
    assert {"b"} == {tag for tag, _ in page.tags if tag in ("b", "i")}  # figcaptions
    assert not comparison.all("i")


def test_the_json_can_be_had_back(page: Page, comparison: Page) -> None:
    kept = {key: value for key, value in example().items() if key != "errors"}
    assert json.loads(page.data["script"]) == kept
    assert json.loads(page.download("evaluation", ".json")) == kept
    runs = json.loads(comparison.data["script"])
    assert list(runs) == list(RUNS)
    assert runs["l2kd"]["results"] == brief(0.06)["results"]


def test_equal_input_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(deepcopy(brief()), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# The tables


def row_of(page: Page, result: dict[str, Any], table: str, heads: list[str]) -> dict[str, str]:
    """The row whose first cells are `heads`, by the names of its columns."""
    header, *rows = page.rows[f"{result['set']}, {result['protocol']}", table]
    found = [row for row in rows if row[: len(heads)] == heads]
    assert len(found) == 1, (heads, rows)
    return dict(zip(header, found[0], strict=True))


def resolution(result: dict[str, Any]) -> str:
    at = result["settings"].get("resolution", {})
    return "" if not at else f"both {at['probe']} px" if "gallery" in at else f"probe {at['probe']} px"


def heads_of(result: dict[str, Any], page: Page, table: str = "Results") -> list[str]:
    name = f"{result['probe']} → {result['gallery']}"
    if table == "Results" and result["same_space"] is False:
        name += "†"
    header = page.rows[f"{result['set']}, {result['protocol']}", table][0]
    images = resolution(result) or "full" * (table == "Results")
    return [name, images] if "images" in header else [name]


def enough(result: dict[str, Any]) -> int:
    """Impostors that decide a threshold to be trusted: 20 pairs of images, each counted in both directions."""
    return 40 if "directions" in result["settings"] else 20


def figure(value: dict[str, Any], star: bool = False) -> str:
    return f"{percent(value['value'])}{'*' * star}|{interval(value['ci95'])}"


def test_every_figure_of_every_result_is_in_its_row(page: Page) -> None:
    for r in example()["results"]:
        row = row_of(page, r, "Results", heads_of(r, page))
        expected = {}
        if "accuracy" in r:
            expected["accuracy"] = figure({"value": r["accuracy"], "ci95": r["ci95"]})
            expected["std of folds"] = percent(r["std"])
        for far, at in r.get("tar_at_far", {}).items():
            expected[f"TAR at FAR {far}"] = figure(at, star=at["impostors"] < enough(r))
        for fpir, at in r.get("tpir_at_fpir", {}).items():
            expected[f"TPIR at FPIR {fpir}"] = figure(at, star=at["non_mated"] < 20)
        for key, words in (("rank", "rank {}"), ("recall_at", "recall at {}"), ("knn", "vote of {}")):
            expected |= {words.format(k): figure(of) for k, of in r.get(key, {}).items()}
        for key, words in (
            ("map", "mAP"),
            ("r_precision", "R-precision"),
            ("top1", "top 1"),
            ("top5", "top 5"),
            ("per_class", "mean of classes"),
            ("few_shots", "mean of few-shot classes"),
            ("macro_f1", "macro F1"),
            ("class_auc", "AUC of classes"),
        ):
            expected |= {words: figure(r[key])} if key in r else {}
        expected |= {"EER": percent(r["eer"]), "AUC": f"{100 * r['auc']:.3f}"} if "eer" in r else {}
        if "mean_cosine" in r:
            ceiling = f"|of {r['mean_cosine']['ceiling']:.3f}" if "ceiling" in r["mean_cosine"] else ""
            expected["mean cosine"] = f"{r['mean_cosine']['value']:.3f}{ceiling}"
        for name, cell in expected.items():
            assert row[name] == cell, (r["set"], r["protocol"], name)
        known = {"probe → gallery", "images", "mean cosine", "EER", "AUC"}
        assert {name for name, cell in row.items() if cell} <= known | set(expected)


def test_a_star_has_its_note_and_no_other_table_has(page: Page) -> None:
    assert "* fewer than 20 impostor pairs" in page.text
    assert not any("*" in cell for row in page.rows["photos, retrieval", "Results"] for cell in row)


def test_operating_points(page: Page) -> None:
    for r in example()["results"]:
        for far, at in r.get("tar_at_far", {}).items():
            row = row_of(page, r, "Operating points", [*heads_of(r, page, "Operating points"), f"FAR {far}"])
            assert row["TAR, %"] == percent(at["value"]) + "*" * (at["impostors"] < enough(r))
            low, high = at["threshold_ci95"]
            assert row["threshold"] == f"{at['threshold']:.4f}|[{low:.4f}, {high:.4f}]"
            assert float(row["rate obtained"]) == pytest.approx(at["far"], rel=0.01)
            assert row["impostors that decide"] == f"{at['impostors']:,}"
            assert row["TAR at closest FAR, %"].startswith(percent(at["closest"]["tar"]))


def test_at_the_gallery_s_thresholds_and_false_accepts(page: Page) -> None:
    kinds = {
        "within_family": "within a family",
        "across_families": "across families",
        "across_sources": "across sources",
    }
    for r in example()["results"]:
        low = ", low resolution" if resolution(r) else ""
        if "at_gallery_threshold" in r:
            table = f"At the gallery’s thresholds{low}"
            row = row_of(page, r, table, heads_of(r, page, table))
            for far, at in r["at_gallery_threshold"].items():
                tar, obtained = row[far].split("|FAR ")
                assert (tar, float(obtained)) == (percent(at["tar"]), pytest.approx(at["far"], rel=0.01))
        for kind, of in r.get("false_accepts", {}).items():
            table = "False accepts by kind of impostor"
            row = row_of(page, r, table, [*heads_of(r, page, table), kinds[kind]])
            for far, at in of.items():
                obtained, counts = row[far].split("|")
                assert float(obtained) == pytest.approx(at["far"], rel=0.01)
                assert counts == f"{at['impostors']:,} of {at['pairs']:,}"


def test_differences_say_what_cannot_be_told(page: Page) -> None:
    labels = {"accuracy": "accuracy"} | {f"tar_at_far.1e-{n}": f"TAR at FAR 1e-{n}" for n in (1, 2, 3, 4)}
    differences = example()["differences"]
    assert {d["distinguishable"] for one in differences for d in one["of"].values()} == {True, False}
    for d in differences:
        row = row_of(page, d, "Paired differences", [" → ".join(d["a"]), " → ".join(d["b"])])
        for path, of in d["of"].items():
            value, ends, *verdict = row[labels[path]].replace("−", "-").split("|")
            assert float(value) == pytest.approx(100 * of["value"], abs=0.0051)
            assert [float(end) for end in ends.strip("[]").split(", ")] == pytest.approx(
                [100 * end for end in of["ci95"]], abs=0.0051
            )
            assert verdict == ([] if of["distinguishable"] else ["not distinguishable"])
        if "mcnemar" in d:
            assert row["McNemar p"] == "0.449|only a 132, only b 119|not distinguishable"


def test_compatibility_groups_and_models(page: Page) -> None:
    (row,) = page.rows["lfw, all-pairs", "Backward compatibility"][1:]
    assert row == ["student → teacher", "+3.10|[+2.10, +4.10]|compatible", "+0.40|[−0.80, +1.60]|not distinguishable"]
    header, first, *_ = page.rows["Groups of sets", "rfw, pairs"]
    assert header == ["probe → gallery", "African", "Asian", "Caucasian", "Indian", "mean", "std", "skewed error ratio"]
    assert first == ["student → student", "80.00", "82.00", "84.00", "86.00", "83.00", "2.24", "1.429"]
    header, *rows = page.rows["Models", "Models"]
    assert header == ["model", "path", "space", "parameters", "MACs", "latency, ms"]
    assert rows[0][3:] == ["280,000", "19,320,832", "1.23"]
    assert rows[1][-1] == "" == rows[2][1], "what is not known is an empty cell"


def test_settings_versions_and_counts(page: Page) -> None:
    made = {row[0]: row[1] for row in page.rows["Settings and data", "How it was made"][1:]}
    assert made["torch"] == "2.13.0"
    assert made["command"] == "facedistill evaluate <run> & more"
    header, *rows = page.rows["Settings and data", "Settings, all-pairs"]
    settings = [dict(zip(header, row)) for row in rows]
    assert len(settings) == 30
    assert settings[0]["data"] == "929d4d9b5fe2a67c"
    assert (settings[0]["resamples"], settings[0]["seed"], settings[0]["flip"]) == ("1,000", "0", "sum")
    assert {(s["resolution probe"], s["resolution gallery"]) for s in settings} == {
        ("", ""), ("14", ""), ("14", "14"), ("28", ""), ("28", "28")
    }  # fmt: skip
    assert "3,728 probes, 3,700 of them mated, 28 not mated" in page.text


def test_what_is_missing_is_empty(written: Callable[..., Page]) -> None:
    page = written(only())
    assert page.faults == []
    assert page.rows["lfw, pairs", "Results"] == [["probe → gallery"], ["student → student"]]
    assert not re.search(r"\b(None|nan|null|undefined)\b", page.text)
    page = written(only(tar_at_far={"1e-3": {"value": 0.5, "impostors": 3, "far": 0.001, "threshold": 0.4}}))
    assert page.rows["lfw, pairs", "Results"][1] == ["student → student", "50.00*"]
    assert written({"schema": 1, "models": {}, "results": []}).faults == []


def test_figures_of_other_protocols_share_one_row_order(written: Callable[..., Page]) -> None:
    """Rates fall, ranks rise, whatever their order in the JSON."""
    of = {"value": 0.5}
    rank, tpir = {"10": of, "1": of}, {"1e-2": of, "1e-1": of}
    page = written(only(protocol="identification", tpir_at_fpir=tpir, rank=rank))
    assert page.rows["lfw, identification", "Results"][0][1:] == [
        "rank 1",
        "rank 10",
        "TPIR at FPIR 1e-1",
        "TPIR at FPIR 1e-2",
    ]


# The plots


def titles(page: Page) -> list[str]:
    return [a["aria-label"].removesuffix(" as SVG") for a in page.all("a") if a.get("download", "").endswith(".svg")]


def test_which_plots_there_are(page: Page) -> None:
    found = titles(page)
    for title in ("ROC", "DET", "Scores"):
        assert found.count(title) == 7  # sets and protocols with pairs
    assert found.count("CMC") == 1
    assert found[:3] == [f"TAR at FAR 1e-3 against {cost}" for cost in ("parameters", "MACs", "latency")]
    assert [t for t in found if "resolution" in t] == [
        f"TAR at FAR 1e-3 against resolution, {side} low" for side in ("probe", "both")
    ]


def test_no_costs_for_one_model_or_models_that_cost_the_same(written: Callable[..., Page]) -> None:
    assert titles(written(only(accuracy=0.9))) == []
    two = only(accuracy=0.9)
    two["results"] += [two["results"][0] | {"probe": "teacher", "gallery": "teacher"}]
    two["models"] = {"student": {"latency_ms": 2.79}, "teacher": {"latency_ms": 2.78}}
    assert titles(written(two)) == []


def test_csv_of_the_page_equals_the_json(page: Page) -> None:
    rows = list(csv.DictReader(io.StringIO(page.download("roc-3-"))))
    for r in example()["results"][:6]:
        mine = [
            (float(row["far"]), float(row["tar"])) for row in rows if row["series"] == f"{r['probe']} → {r['gallery']}"
        ]
        assert mine == list(zip(r["curves"]["roc"]["far"], r["curves"]["roc"]["tar"]))
    rows = list(csv.DictReader(io.StringIO(page.download("tar-at-far-1e-3-against-resolution,-both"))))
    points = {row["images"]: float(row["tar_at_far.1e-3"]) for row in rows if row["series"] == "student → teacher"}
    assert points == {
        place: next(
            r["tar_at_far"]["1e-3"]["value"]
            for r in example()["results"]
            if (r["probe"], r["gallery"], resolution(r)) == ("student", "teacher", words)
        )
        for place, words in (("14 px", "both 14 px"), ("28 px", "both 28 px"), ("full", ""))
    }


def test_contrast(page: Page) -> None:
    """WCAG 2: text 4.5 to 1, lines of plots 3 to 1, in light and in dark."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))

    schemes = re.findall(r":root \{(.*?)\n\s*\}", page.data["style"], re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        paper = luminance(colours["paper"])
        for name in ("ink", "muted", "link", *(f"series-{i}" for i in range(6))):
            low, high = sorted([paper, luminance(colours[name])])
            assert (high + 0.05) / (low + 0.05) >= (3 if name.startswith("series") else 4.5), name


# Faces


SECRETS = ("Secret_Person", "<img src=x>")


def test_without_faces_nobody_is_named(source: str, page: Page) -> None:
    hidden = [base64.b64decode(a.partition(";base64,")[2]).decode() for a in page.addresses() if ";base64," in a]
    for secret in SECRETS:
        assert secret not in page.text
        assert not any(secret in text for text in [source, json.dumps(json.loads(page.data["script"])), *hidden])
    assert "Worst errors" not in page.text


def test_with_faces_the_worst_errors_are_pairs_of_images(written: Callable[..., Page]) -> None:
    faces = {("lfw", f"Secret_Person/{n}.jpg"): PNG for n in (0, 1, 2, 7)} | {
        ("lfw", "<img src=x>/0.jpg"): b"\xff\xd8x"
    }
    page = written(brief(), faces=faces)
    assert page.faults == []
    images = page.all("img")
    assert len(images) == 5
    assert images[0] == {"src": "data:image/png;base64," + base64.b64encode(PNG).decode(), "alt": "Secret_Person/0.jpg"}
    assert images[1]["src"].startswith("data:image/jpeg")
    assert images[1]["alt"] == "<img src=x>/0.jpg"
    assert page.text.count("no image") == 3
    assert "score 0.6100" in page.text
    assert "score -0.0451" in page.text
    assert "lfw, student → teacher: false rejects" in page.text
    assert json.loads(page.data["script"]) == brief()


# The summary


def words(evaluation: dict[str, Any], *more: dict[str, Any]) -> str:
    runs = {"": evaluation} if not more else {f"run{n}": one for n, one in enumerate((evaluation, *more))}
    return " ".join(summary(runs, blocks(runs)))


def verification(values: dict[tuple[str, str], float], difference: dict[str, Any] | None = None) -> dict[str, Any]:
    """Results at FAR 1e-4 with intervals of two points around them."""
    results = [
        {
            "protocol": "all-pairs",
            "set": "lfw",
            "probe": probe,
            "gallery": gallery,
            "settings": {},
            "tar_at_far": {
                "1e-3": {"value": 0.9, "impostors": 1000, "far": 0.001, "threshold": 0.4},
                "1e-4": {"value": v, "ci95": [v - 0.01, v + 0.01], "impostors": 100, "far": 0.0001, "threshold": 0.5},
                "1e-5": {"value": 0.1, "impostors": 10, "far": 0.00001, "threshold": 0.6},
            },
        }
        for (probe, gallery), v in values.items()
    ]
    there = {"protocol": "all-pairs", "set": "lfw", "a": ["student", "teacher"], "b": ["student", "student"]}
    differences = [] if difference is None else [there | {"of": {"tar_at_far.1e-4": difference}}]
    return {"schema": 1, "models": {}, "results": results, "differences": differences}


VALUES = {("student", "student"): 0.455, ("student", "teacher"): 0.592, ("teacher", "teacher"): 0.9578}


def test_the_summary_takes_the_lowest_rate_that_can_be_trusted() -> None:
    entries = blocks({"": verification(VALUES)})["lfw", "all-pairs"]
    assert rate(entries) == "1e-4"
    assert headline(entries) == "tar_at_far.1e-4"
    assert words(verification(VALUES)) == (
        "On lfw (all-pairs, FAR 1e-4), the student accepts 45.5% [44.5, 46.5] of genuine pairs against its own gallery "
        "and 59.2% [58.2, 60.2] against the teacher’s; the teacher 95.8% [94.8, 96.8] against its own gallery."
    )


def test_a_difference_is_claimed_only_where_its_interval_leaves_out_zero() -> None:
    apart = {"value": 0.137, "ci95": [0.12, 0.15], "distinguishable": True}
    text = words(verification(VALUES, apart))
    assert (
        "Higher: the student against the teacher than the student against itself, by 13.70 points [12.00, 15.00]."
        in text
    )
    assert "ot distinguishable" not in text
    negative = {"value": -0.137, "ci95": [-0.15, -0.12]}
    assert (
        "Higher: the student against itself than the student against the teacher, by 13.70 points [12.00, 15.00]."
        in (words(verification(VALUES, negative)))
    )
    level = {"value": 0.137, "ci95": [-0.01, 0.28], "distinguishable": False}
    text = words(verification(VALUES, level))
    assert "Not distinguishable: the student against the teacher from the student against itself." in text
    assert "igher" not in text
    assert "igher" not in words(verification(VALUES, {"value": 0.137})), "without an interval"


def test_of_runs_it_is_said_whose_intervals_overlap_but_not_that_they_are_level() -> None:
    """The intervals are not paired: runs whose intervals overlap may differ."""
    runs = [verification({("student", "teacher"): v}) for v in (0.50, 0.41, 0.51)]
    text = words(*runs)
    assert text == (
        "On lfw (all-pairs), TAR at FAR 1e-4 of the student against the teacher: 50.0% [49.0, 51.0] in run0, "
        "41.0% [40.0, 42.0] in run1 and 51.0% [50.0, 52.0] in run2. run2 is the highest; its interval overlaps with "
        "that of run0. “compare --to NAME” tests in pairs whether recipes differ."
    )
    assert words(verification(VALUES), runs[1]).count("--to") == 1 and "--to" not in words(runs[0])
    many = words(*(verification({("student", "teacher"): 0.1 * n}) for n in range(1, 9)))
    assert "from 10.0% [9.0, 11.0] in run0 to 80.0% [79.0, 81.0] in run7." in many


def test_runs_on_other_data_are_not_compared() -> None:
    runs = [verification({("student", "teacher"): v}) for v in (0.50, 0.41)]
    runs[0]["results"][0]["data"] = "another fingerprint"
    assert "not compared, because the runs differ in data or settings" in words(*runs)


def test_a_set_too_small_for_any_rate_is_summed_up_by_its_equal_error_rate() -> None:
    small = only(eer=0.2, protocol="all-pairs", tar_at_far={"1e-1": {"value": 0.5, "impostors": 4, "far": 0.1}})
    assert words(small) == "On lfw (all-pairs), the student has an equal error rate of 20.0% against its own gallery."


def test_the_summary_stays_short_with_many_sets() -> None:
    many = only(accuracy=0.9)
    many["results"] = [many["results"][0] | {"set": f"set {n}"} for n in range(9)]
    assert words(many).endswith("5 more in the tables.")


# Several runs


def test_runs_stand_side_by_side(comparison: Page) -> None:
    header, *rows = comparison.rows["lfw, all-pairs", "Results"]
    assert header[:3] == ["run", "probe → gallery", "images"]
    first = [row[:3] for row in rows]
    assert first[:3] == [[run, "student → student", "full"] for run in RUNS]
    assert first.count(["every run", "teacher → teacher", "full"]) == 1
    values = [example(0.03 * n)["results"][0]["tar_at_far"]["1e-3"]["value"] for n in range(3)]
    assert [row[4].split("|")[0] for row in rows[:3]] == [percent(v) for v in values]
    assert comparison.rows["Models", "Models"][1][:2] == ["every run", "student"]


def test_training_curves_are_the_logs(comparison: Page) -> None:
    found = titles(comparison)
    assert found[-5:] == ["Learning rate", "Loss", "Gradient norm", "Margin softmax", "Images per second"]
    rows = list(csv.DictReader(io.StringIO(comparison.download("loss-"))))
    for n, run in enumerate(RUNS):
        mine = [(int(row["step"]), float(row["loss"])) for row in rows if row["series"] == run]
        assert mine == [(line["step"], line["loss"]) for line in log(1 + n)]


def test_a_plot_for_each_pair_of_models_of_one_space(comparison: Page) -> None:
    found = titles(comparison)
    assert [t for t in found if t.startswith("ROC")][:2] == ["ROC, student → student", "ROC, student → teacher"]
    assert not [t for t in found if "student → baseline" in t]


def test_a_log_may_lack_what_another_has(tmp_path: Path) -> None:
    logs = {"a": [{"step": 1, "epoch": 0, "loss": 3.0}], "b": [{"step": 1, "lfw/pairs/accuracy": 0.5}], "c": []}
    write_comparison({name: only(accuracy=0.9) for name in "abc"}, tmp_path / "page.html", logs=logs)
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert titles(page) == ["Loss", "Lfw, pairs, accuracy"]
    assert page.rows["lfw, pairs", "Results"][1][0] == "every run"


# Writing


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_without_its_libraries(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"the report needs matplotlib and jinja2; pip install 'facedistill\[report\]'"):
        write_report(example(), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        write_report(only(), tmp_path / "file" / "page.html")
    write_report(only(), tmp_path / "new" / "page.html", title="Mine & <yours>")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]
    page = Page((tmp_path / "new" / "page.html").read_text("utf-8"))
    assert page.data["h1"] == page.data["title"] == "Mine & <yours>"


def test_names_of_files_that_are_no_utf8(tmp_path: Path, written: Callable[..., Page]) -> None:
    """Python holds such a byte as a lone surrogate, which no UTF-8 has."""
    evaluation = only(set="lfw\udcff", eer=0.2, curves={"roc": {"far": [0.1, 1], "tar": [0.5, 1]}})
    evaluation["models"]["student"]["path"] = "runs/\udcff"
    page = written(evaluation)
    assert page.faults == [] and r"runs/\udcff" in page.text and r"lfw\udcff" in page.data["h2"]
    assert json.loads(page.data["script"]) == json.loads(page.download("evaluation", ".json")) == evaluation
    logs = {"run\udcff": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]}
    write_comparison({"run\udcff": evaluation, "other": only(eer=0.1)}, tmp_path / "page.html", logs=logs)
    assert r">run\udcff</text>" in (tmp_path / "page.html").read_text("utf-8")


def test_a_real_evaluation(tiny: Tiny, written: Callable[..., Page]) -> None:
    models = {"student": load_model(tiny.student), "teacher": load_model(tiny.teacher)}
    result = evaluate(models, [str(tiny.pairs)], resamples=20)
    page = written(result)
    assert page.faults == []
    for r in result["results"]:
        row = row_of(page, r, "Results", heads_of(r, page))
        assert row["EER"] == percent(r["eer"])
        for far, at in r["tar_at_far"].items():
            assert row[f"TAR at FAR {far}"] == figure(at, star=at["impostors"] < enough(r))
    assert {"ROC", "DET", "Scores"} <= set(titles(page))
