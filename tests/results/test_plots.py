"""The SVGs: well formed, alone and in one page, the same bytes for the same input, and the numbers that they draw."""

import csv
import io
import re
from itertools import pairwise
from statistics import NormalDist
from typing import Any
from xml.etree import ElementTree

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="plots need matplotlib")

from facedistill.evaluation.protocols.identification import PLOTS  # noqa: E402
from facedistill.results import drawing, plots  # noqa: E402
from facedistill.results.drawing import Plot  # noqa: E402
from facedistill.results.plots import Axis  # noqa: E402
from report_example import example, log  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["_under", '$x$ & <b> "q"', "漢字", "a" * 90]
PLACES = {name: i for i, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """Under names that trip up matplotlib, XML or the legend."""
    return dict(zip(NAMES, example()["results"]))


def every_plot(results: dict[str, Any], key: str = "p", places: dict[str, int] = PLACES) -> list[Plot]:
    figures = {name: (10.0**i, r["tar_at_far"]["1e-3"]) for i, (name, r) in enumerate(results.items())}
    lines = {name: {"14 px": {"value": 0.1}, "full": r["tar_at_far"]["1e-3"]} for name, r in results.items()}
    ranks = {name: {"curves": {"cmc": [0.5, 0.7, 0.9]}} for name in results}
    tar = Axis.of("tar_at_far.1e-3", list(results.values()))
    return [
        plots.roc(results, places, "about", f"{key}-roc"),
        plots.det(results, places, "about", f"{key}-det"),
        plots.scores(results, "1e-3", "about", f"{key}-scores"),
        plots.line(PLOTS[0], ranks, places, "about", f"{key}-cmc"),
        plots.against_cost(figures, "macs", tar, places, "about", f"{key}-cost"),
        plots.against_resolution(lines, tar, places, "about", f"{key}-low"),
        plots.training({name: log(i + 1) for i, name in enumerate(results)}, "loss", f"{key}-log"),
    ]


@pytest.fixture(scope="module")
def drawn(results: dict[str, Any]) -> list[Plot]:
    return every_plot(results)


def rows(plot: Plot) -> list[list[str]]:
    return list(csv.reader(io.StringIO(plot.csv)))


def ids(svg: str) -> list[str]:
    return [e.attrib["id"] for e in ElementTree.fromstring(svg).iter() if "id" in e.attrib]


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_well_formed_and_described(drawn: list[Plot]) -> None:
    for plot in drawn:
        for svg in (plot.svg, plot.file):
            root = ElementTree.fromstring(svg)
            assert root.tag == f"{SVG}svg"
            assert root.attrib["role"] == "img"
            assert root.attrib["aria-label"] == plot.alt
        for name in NAMES[:2]:
            assert name in plot.alt


def test_names_are_text_whatever_they_hold(drawn: list[Plot]) -> None:
    for plot in drawn:
        shown = texts(plot.file)
        assert set(NAMES[:3]) <= set(shown), plot.title
        assert any(text.startswith("aaaa") and "…" in text for text in shown), "a long name is shortened"
        assert any(len(row[0]) == 90 for row in rows(plot)), "but not in the data"


def test_no_id_twice_in_one_page_and_each_reference_has_its_own(results: dict[str, Any], drawn: list[Plot]) -> None:
    page = [*drawn, *every_plot(results, "q")]
    everything = [one for plot in page for one in ids(plot.svg)]
    assert everything
    assert len(everything) == len(set(everything))
    for plot in page:
        references = set(re.findall(r'(?:url\(|href=")#([\w-]+)', plot.svg))
        assert references == set(ids(plot.svg))


def test_equal_input_equal_bytes_whatever_the_user_has_set(results: dict[str, Any], drawn: list[Plot]) -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert every_plot(results) == drawn
    assert dict(matplotlib.rcParams) == before
    assert not re.search(r"<metadata|<dc:|20\d\d-\d\d-\d\d", "".join(plot.file for plot in drawn))


def test_the_page_s_colours_are_variables_and_the_file_s_are_not(drawn: list[Plot]) -> None:
    known = {f"var({name})" for name in drawing.VARIABLES.values()}
    for plot in drawn:
        assert "var(" not in plot.file
        styles = [e.attrib.get("style", "") for e in ElementTree.fromstring(plot.svg).iter()]
        colours = {c for style in styles for c in re.findall(r"(?:fill|stroke): ?([^;]+)", style)} - {"none"}
        assert colours <= known, plot.title
        assert "font-family" not in "".join(styles[1:]), "the page's font"


def test_a_name_like_a_colour_or_an_id_stays(results: dict[str, Any]) -> None:
    name = '#1b1f24 id="x" url(#y)'
    plot = plots.roc({name: results["漢字"]}, {name: 0}, "about", "k")
    assert name in texts(plot.svg)


def test_csv_holds_the_json_s_curves(results: dict[str, Any], drawn: list[Plot]) -> None:
    for plot in drawn[:2]:
        header, *data = rows(plot)
        assert header == ["series", "far", "tar"]
        for name, result in results.items():
            curve = result["curves"]["roc"]
            mine = [(float(far), float(tar)) for series, far, tar in data if series == name]
            assert mine == list(zip(curve["far"], curve["tar"]))
    header, *data = rows(drawn[2])
    assert header == ["series", "low", "high", "genuine", "impostor"]
    for name, result in results.items():
        bins = result["curves"]["scores"]
        bars = [row for row in data if row[0] == name]
        assert [int(row[3]) for row in bars] == bins["genuine"]
        assert [int(row[4]) for row in bars] == bins["impostor"]
        assert (float(bars[0][1]), float(bars[-1][2])) == (bins["low"], bins["high"])
    assert rows(drawn[3])[:4] == [
        ["series", "rank", "rate"],
        *(["_under", str(k), v] for k, v in ((1, "0.5"), (2, "0.7"), (3, "0.9"))),
    ]
    for (*_, value, low, high), result in zip(rows(drawn[4])[1:], results.values()):
        at = result["tar_at_far"]["1e-3"]
        assert (float(value), [float(low), float(high)]) == (at["value"], at["ci95"])
    assert rows(drawn[5])[1] == ["_under", "14 px", "0.1", "", ""]
    assert [(int(step), float(loss)) for run, step, loss in rows(drawn[6])[1:] if run == "漢字"] == [
        (row["step"], row["loss"]) for row in log(3)
    ]


def ticks(svg: str, axis: str) -> dict[float, float]:
    """Where on the page each numbered tick stands: x of those below the axes, y of those beside it."""
    found = {}
    for e in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if re.fullmatch(r"[\d.e-]+", e.text or ""):
            x, y = float(e.attrib["x"]), float(e.attrib["y"])
            below = x > drawing.LEFT - 1 and "middle" in e.attrib["style"]
            if below == (axis == "x"):
                found[float(e.text or "")] = x if below else y
    return found


def test_det_axes_are_normal_deviates_and_the_roc_s_is_logarithmic(drawn: list[Plot]) -> None:
    deviate = NormalDist().inv_cdf
    for axis, whole in (("x", 1), ("y", 100)):  # the FAR as a fraction, the miss rate in percent
        at = ticks(drawn[1].file, axis)
        assert len(at) >= 3
        (first, *_, last) = sorted(at)
        scale = (at[last] - at[first]) / (deviate(last / whole) - deviate(first / whole))
        for rate, place in at.items():
            expected = at[first] + scale * (deviate(rate / whole) - deviate(first / whole))
            assert place == pytest.approx(expected, abs=0.1)
    at = ticks(drawn[0].file, "x")
    places = [at[far] for far in (1e-4, 1e-3, 1e-2)]
    assert places[2] - places[1] == pytest.approx(places[1] - places[0], abs=0.1)


def test_the_threshold_stands_where_it_is(results: dict[str, Any]) -> None:
    one = {"student": results["漢字"]}
    plot = plots.scores(one, "1e-3", "about", "k")
    assert "FAR 1e-3" in texts(plot.file)
    assert "FAR 1e-3" not in texts(plots.scores(one, None, "about", "k").file)
    at = {float(t.replace("−", "-")): x for t, x in signed_ticks(plot.file)}
    low, high = min(at), max(at)
    threshold = one["student"]["tar_at_far"]["1e-3"]["threshold"]
    expected = at[low] + (threshold - low) / (high - low) * (at[high] - at[low])
    verticals = [
        float(m[1])
        for e in ElementTree.fromstring(plot.file).iter(f"{SVG}path")
        if (m := re.match(r"M ([\d.]+) [\d.]+\s+L \1 ", e.attrib.get("d", ""))) and drawing.INK in e.attrib["style"]
    ]
    assert verticals == [pytest.approx(expected, abs=0.1)]


def signed_ticks(svg: str) -> list[tuple[str, float]]:
    found = [e for e in ElementTree.fromstring(svg).iter(f"{SVG}text") if re.fullmatch(r"−?[\d.]+", e.text or "")]
    return [(e.text or "", float(e.attrib["x"])) for e in found]


def test_a_colour_belongs_to_a_name(results: dict[str, Any]) -> None:
    """Also where another series is missing."""
    name = NAMES[2]
    plot = plots.roc({name: results[name]}, PLACES, "about", "k")
    assert drawing.SERIES[2] in plot.file
    assert drawing.SERIES[0] not in plot.file


@pytest.mark.filterwarnings("error")
def test_nothing_to_draw_is_no_error() -> None:
    nothing: dict[str, Any] = {
        "curves": {
            "roc": {"far": [0.0, 1.0], "tar": [0.0, 1.0]},
            "scores": {"low": -1, "high": 1, "genuine": [0, 0], "impostor": [0, 0]},
        }
    }
    places = {"a": 0}
    for plot in (
        plots.roc({"a": nothing}, places, "about", "k"),
        plots.det({"a": nothing}, places, "about", "k"),
        plots.scores({"a": nothing}, "1e-3", "about", "k"),
        plots.training({"a": []}, "loss", "k"),
    ):
        ElementTree.fromstring(plot.svg)


def test_few_pairs_are_drawn_in_wide_bins() -> None:
    bins = plots._bins({"low": -1, "high": 1, "genuine": [1] * 200, "impostor": [2] * 200})
    merged = plots._merged(bins)
    assert 25 <= len(merged) <= 30
    assert (merged[0][0], merged[-1][1]) == (-1, 1)
    assert sum(b[2] for b in merged) == 200
    assert sum(b[3] for b in merged) == 400
    assert all(left[1] == right[0] for left, right in pairwise(merged))


def test_the_words_of_a_log() -> None:
    words = {
        "lr": "learning rate",
        "gradient_norm": "gradient norm",
        "lfw.bin/all-pairs/tar_at_far/1e-3": "lfw.bin, all-pairs, TAR at FAR 1e-3",
        "lfw.bin/pairs/accuracy": "lfw.bin, pairs, accuracy",
    }
    assert {name: plots._words(name) for name in words} == words


def test_names_are_no_formulas_and_hold_no_control_characters() -> None:
    names = ["=1+1", "+a", "-b", "@c", "a\x1b[2J\x00\u202e"]
    found = dict.fromkeys(names, example()["results"][0])
    for plot in every_plot(found, places={name: i for i, name in enumerate(names)}):
        first = {row[0] for row in rows(plot)[1:]}
        assert not {name[0] for name in first} & set("=+-@"), first
        for text in (plot.svg, plot.file, plot.csv):
            assert not set(text) & set("\x1b\x00\u202e")
            ElementTree.fromstring(plot.svg)
