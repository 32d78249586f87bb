"""Published figures stand beside runs, marked, and take part in nothing that compares."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from facedistill.errors import UserError
from facedistill.results import render_comparison
from facedistill.results.across_runs import differences_to
from facedistill.results.reading import EVERY, blocks, measured
from facedistill.results.stored import load_evaluations

SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks" / "published").glob("*.json"))
PUBLISHED = {
    "schema": 1,
    "method": "Theirs",
    "published": "arXiv 1234.56789, table 4",
    "results": [
        {"set": "lfw", "protocol": "pairs", "probe": "student", "gallery": "student", "accuracy": 0.9963},
        {"set": "lfw", "protocol": "all-pairs", "probe": "student", "gallery": "student", "tar_at_far": {"1e-4": 0.9}},
    ],
}
NAME = "Theirs (published: arXiv 1234.56789, table 4)"


def ours(accuracy: float, seed: int) -> dict[str, Any]:
    """A run measured on pairs, the teacher alike in every run."""
    results = [
        {
            "set": "lfw",
            "protocol": "pairs",
            "probe": who,
            "gallery": who,
            "settings": {"flip": "sum"},
            "data": "x",
            "pairs": 6000,
            "accuracy": value,
        }
        for who, value in (("student", accuracy), ("teacher", 0.99))
    ]
    return {
        "schema": 1,
        "models": {"student": {"parameters": seed}, "teacher": {"parameters": 9}},
        "results": results,
        "method": "l2kd",
        "training": {"recipe": "l2kd", "seed": seed, "epochs": 14, "data": "faces", "images": 9},
    }


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """The published file first, then two runs."""
    contents = {"theirs": PUBLISHED, "a": ours(0.93, 1), "b": ours(0.94, 2)}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [tmp_path / f"{name}.json" for name in contents]


def test_it_stands_below_the_runs_marked_with_only_its_cells(places: list[Path]) -> None:
    evaluations = load_evaluations(places)
    assert list(evaluations) == ["a", "b", NAME] and list(measured(evaluations)) == ["a", "b"]
    text = render_comparison(evaluations, differences_to(evaluations, ["l2kd"]))
    table = text.split("lfw, pairs (6,000 pairs; flip sum)")[1].split("lfw, all-pairs\n")[0]
    lines = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in table.splitlines() if "→" in line]
    student, teacher = "student → student", "teacher → teacher"
    assert [line[1:] for line in lines[1:]] == [
        [student, "93.00"],
        [student, "94.00"],
        [student, "99.63"],
        [teacher, "99.00"],
    ]
    assert lines[3][0] == NAME and lines[4][0] == EVERY, "the teacher's own result is still every run's"
    assert "| 90.00" in text.split("lfw, all-pairs\n")[1] and "Operating points" not in text
    assert text.count("compared with nothing") == 2


def test_it_is_not_warned_about_nor_compared(places: list[Path], capsys: pytest.CaptureFixture) -> None:
    evaluations = load_evaluations(places)
    before, after = (render_comparison(e) for e in (measured(evaluations), evaluations))
    assert "not comparable" not in after and before.split("lfw, pairs")[0] == after.split("lfw, pairs")[0]
    assert differences_to(evaluations, ["l2kd"]) == differences_to(measured(evaluations), ["l2kd"])
    with pytest.raises(UserError, match="expected one of a"):
        differences_to(evaluations, [NAME])
    assert not capsys.readouterr().err


def test_two_with_one_figure_are_two_rows_and_alone_they_stand_too(places: list[Path]) -> None:
    other = places[0].with_name("other.json")
    other.write_text(json.dumps(PUBLISHED | {"method": "Others"}))
    evaluations = load_evaluations([places[0], other])
    assert [entry.run.partition(" ")[0] for entry in blocks(evaluations)["lfw", "pairs"]] == ["Theirs", "Others"]
    assert "99.63" in render_comparison(evaluations)


def test_the_page_draws_and_sums_up_the_runs_alone(places: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from facedistill.results import write_comparison

    for some in (places, places[:2], places[:1]):
        page = places[0].with_name("page.html")
        write_comparison(load_evaluations(some), page)
        text = page.read_text("utf-8")
        assert f'<th scope="row">{NAME}</th>' in text
        header, _, body = text.partition("<main>")
        assert "Theirs" not in header and "not compared, because" not in header
        assert "<svg" not in body or NAME not in body.split("<svg", 1)[1].split("</svg>")[0]
    write_comparison(load_evaluations(places), page)
    assert "93.0% in a and 94.0% in b" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": None}, "a text 'method'"),
        ({"published": True}, "a text 'published'"),
        ({"results": [3]}, "set, protocol, probe, gallery"),
        ({"set": None}, "expected set"),
        ({"acuracy": 0.9}, "'acuracy'.*accuracy"),
        ({"accuracy": 99.63}, r"accuracy 99.63: expected fractions from 0 to 1, e.g. 0.92"),
        ({"tar_at_far": 0.9}, r'tar_at_far 0.9: expected .*\{"1e-3": 0.92\}'),
        ({"tar_at_far": {"low": 0.9}}, "tar_at_far"),
    ],
)
def test_what_is_no_figure_is_refused_in_one_line(places: list[Path], change: dict[str, Any], says: str) -> None:
    content: dict[str, Any] = deepcopy(PUBLISHED)
    (content if change.keys() & content.keys() else content["results"][0]).update(change)
    places[0].write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"theirs.json: .*{says}"):
        load_evaluations(places)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_what_comes_with_the_program_can_be_read(file: Path) -> None:
    (evaluation,) = load_evaluations([file]).values()
    assert evaluation["results"] and evaluation["about"]
