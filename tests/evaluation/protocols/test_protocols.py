"""The registry: every entry declares what it measures, and a protocol from outside the package works like ours."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation_toys import PEOPLE, model, write_bin, write_folder
from facedistill.data.dataset import open_dataset
from facedistill.data.synthetic.attributes import ATTRIBUTES
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import Figure, Values, evaluate, open_sets
from facedistill.evaluation.calibration import thresholds_of
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.protocols import PROTOCOLS, carried, declaration, everything, find_protocol
from facedistill.evaluation.protocols.all_pairs import AllPairs
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.run import protocols_of
from facedistill.evaluation.sets import EvaluationSet
from facedistill.evaluation.statistics import Estimate
from facedistill.head.classifier import Classifier
from facedistill.results import load_evaluations, over_seeds, render_comparison, render_table

OUTSIDE = '''
import numpy as np

from facedistill.evaluation import PROTOCOLS, Count, Estimate, Figure, Line, Protocol, Values, estimate, resampled_mean


class Nearest(Protocol):
    """Is the nearest other image of the same class?"""

    name = "nearest"
    kinds = ("labels",)
    figures = (
        Figure("of_class", "nearest of its class", "puts {} beside their class", headline=True, grouped=True),
        Figure("within", "within {}", overview="never"),
        Figure("angle", "angle to it", unit="degrees", digits=1),
    )
    counts = (Count("asked", "asked for"),)
    plots = (Line("growth", "Growth", "images seen", "share of class", "how the share grows", unit="%"),)

    def refusal(self, probe, gallery):
        if self.options.flip == "concat":
            return f"nearest on {self.data.path}: --flip concat is not for it; choose sum"

    def measure(self, probe, gallery):
        labels = gallery.table("images").labels
        score = probe.unit("images") @ gallery.unit("images").T
        np.fill_diagonal(score, -2)
        order = np.argsort(-score, axis=1)
        right = labels[order] == labels[:, None]
        o = self.options

        def mean(values):
            values = values.astype(np.float64)
            return Estimate(float(values.mean()), resampled_mean(values, labels, o.resamples, o.seed))

        angle = np.degrees(np.arccos(np.clip(score.max(axis=1), -1, 1)))
        figures = {"of_class": mean(right[:, 0]), "angle": mean(angle)}
        figures |= {f"within.{k}": mean(right[:, :k].any(axis=1)) for k in (3, 2)}
        curve = {"x": [1, 2, 4], "y": [float(right[:, :k].any(axis=1).mean()) for k in (1, 2, 4)]}
        return Values(figures, {"asked": len(labels)}, {"growth": curve}), {"resampled": "classes"}


class Undeclared(Nearest):
    figures = Nearest.figures[1:]


class Unfinished(Protocol):
    name, kinds = "unfinished", ("labels",)


class Taken(Nearest):
    name = "pairs"


class Twin(Nearest):
    pass


class Again(PROTOCOLS["all-pairs"]):
    name = "again"
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a module that is not the package's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_protocols.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    monkeypatch.delitem(sys.modules, "my_protocols", raising=False)
    yield tmp_path / "mine"
    sys.modules.pop("my_protocols", None)  # docs/extend.md has a module of that name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "faces")


def two() -> dict[str, Any]:
    return {"student": model(1, noise=0.7, space="s"), "teacher": model(2, noise=0.1, space="s")}


NEAREST = "my_protocols:Nearest"


# From outside


def test_one_from_outside_is_measured_beside_ours(outside: Path, folder: Path) -> None:
    result = evaluate(two(), [folder], protocols=[NEAREST, "all-pairs"], resamples=20, keep_resamples=True)
    assert [r["protocol"] for r in result["results"]] == ["nearest"] * 3 + ["all-pairs"] * 3
    mine, ours = result["results"][0], result["results"][3]
    assert mine["settings"] | {"resampled": "classes"} == mine["settings"]
    assert set(mine["resampled"]) == {"of_class", "angle", "within.2", "within.3"}
    assert mine["declared"]["figures"][0]["label"] == "nearest of its class"
    assert "declared" not in ours and not any(
        "declared" in d for d in result["differences"] if d["protocol"] != "nearest"
    )
    difference = next(d for d in result["differences"] if d["protocol"] == "nearest")
    assert set(difference["of"]) == set(mine["resampled"]) and difference["declared"] == mine["declared"]
    text = render_table(result)
    assert "faces, nearest (48 images, 48 asked for; flip sum)" in text
    header = text.split("faces, nearest")[1].split("Results. In % where no other unit stands")[1].splitlines()[2]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert names == ["probe → gallery", "nearest of its class", "within 2", "within 3", "angle to it, degrees"]
    low, high = mine["angle"]["ci95"]
    assert f"{mine['angle']['value']:.1f} [{low:.1f}, {high:.1f}]" in text
    assert f"{100 * mine['of_class']['value']:.2f} [" in text


def test_one_that_returns_a_verification_has_all_that_comes_with_it(
    outside: Path, folder: Path, tmp_path: Path
) -> None:
    """Thresholds to keep, rates at the gallery's, compatibility, false accepts, curves: as of all-pairs."""
    models = two() | {"baseline": model(3, dim=16, noise=3)}
    models = {name: models[name] for name in ("student", "baseline", "teacher")}
    mine, ours = (
        evaluate(models, [folder], protocols=[name], resamples=10, keep_resamples=True)
        for name in ("my_protocols:Again", "all-pairs")
    )

    def plain(evaluation: dict[str, Any]) -> Any:
        text = json.dumps(evaluation).replace('"again"', '"all-pairs"')
        return json.loads(text, object_hook=lambda of: {key: v for key, v in of.items() if key != "declared"})

    assert plain(mine) == ours and mine["compatibility"] and "at_gallery_threshold" in mine["results"][1]
    assert render_table(mine).replace("faces, again", "faces, all-pairs") == render_table(ours)
    kept, expected = (thresholds_of(e, models, [0.01]) for e in (mine, ours))
    assert [t | {"protocol": "all-pairs"} for t in kept] == expected


def test_its_figure_sums_up_groups(outside: Path, tmp_path: Path) -> None:
    sets = {f"rfw/{name}": write_bin(tmp_path / f"{name}.bin", names=True) for name in ("African", "Asian")}
    result = evaluate(two(), sets, protocols=[NEAREST, "pairs"], resamples=0)
    mine, ours = (next(g for g in result["groups"] if g["protocol"] == p) for p in ("nearest", "pairs"))
    own = [
        r for r in result["results"] if (r["protocol"], r["probe"], r["gallery"]) == ("nearest", "student", "student")
    ]
    values = {r["set"]: r["of_class"]["value"] for r in own}
    assert mine["sets"] == values and len(values) == 2 and "declared" not in ours
    assert "rfw, nearest. Nearest of its class in %." in render_table(result)
    assert "rfw, pairs. Accuracy in %." in render_table(result)


def test_it_says_what_is_wrong(outside: Path, folder: Path, tmp_path: Path) -> None:
    def refused(kind: type[Exception], says: str, asked: list[str], on: Any = folder, **options: Any) -> None:
        with pytest.raises(kind, match=says):
            evaluate(two(), [on], protocols=asked, resamples=0, **options)

    refused(UserError, "faces: --flip concat is not for it", [NEAREST], flip="concat")
    refused(UserError, "'nearest' measured 'of_class', which is not one of its `figures`", ["my_protocols:Undeclared"])
    refused(UsageError, "'my_protocols:Unfinished' lacks figures, measure", ["my_protocols:Unfinished"])
    refused(UsageError, "is called 'pairs', as one of facedistill is", ["my_protocols:Taken"])
    refused(UsageError, "another one is called 'nearest', too", [NEAREST, "my_protocols:Twin"])
    refused(UsageError, "cannot be imported", ["my_protocols:Nothing"])
    refused(UsageError, "cannot be imported", ["no_such_module:Nearest"])
    refused(UsageError, "is no Protocol", ["my_protocols:Estimate"])
    refused(UsageError, "is no Protocol", ["my_protocols:estimate"])
    bare = write_bin(tmp_path / "x.bin", names=False)
    refused(UsageError, "measures labels, and x is a set of pairs: choose one of pairs", [NEAREST], bare)


def test_protocols_are_known_before_anything_is_embedded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facedistill.evaluation.sets.embed_dataset", lambda *_, **__: pytest.fail("embedded"))
    with pytest.raises(UsageError):
        evaluate(two(), [folder], protocols=["all-pairs", "no_such_module:Nearest"])


def run(*arguments: Any, path: Path | None = None, cwd: Path) -> str:
    source = str(Path(__file__).parents[3] / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, *([str(path)] if path else [])])}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_it_measured_is_read_without_its_module(outside: Path, folder: Path, tmp_path: Path) -> None:
    """In processes of their own: one has the module, one lacks it."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    for seed in (1, 2):
        result = evaluate(
            {"student": model(seed, noise=0.5), "teacher": model(9, noise=0.1)},
            [folder],
            protocols=[NEAREST],
            resamples=20,
            keep_resamples=True,
        )
        result |= {"method": "l2kd" if seed == 1 else "rkd"}
        result["training"] = {"recipe": result["method"], "seed": 0, "epochs": 14, "data": "x"}
        (tmp_path / f"run{seed}.json").write_text(json.dumps(result))
    line = ["-m", "facedistill", "compare", "run1.json", "run2.json", "--to", "run1", "--report", "page.html"]
    with_module = run(*line, path=outside, cwd=tmp_path)
    page = (tmp_path / "page.html").read_text()
    without = run(*line, cwd=tmp_path)
    assert without == with_module and (tmp_path / "page.html").read_text() == page
    found = json.loads((tmp_path / "run1.json").read_text())["results"][0]
    overview, _, rest = without.partition("\n\n")[2].partition("\n\n")
    assert "nearest of its class" in overview and "angle to it, degrees" in overview and "within 2" not in overview
    assert f"{found['angle']['value']:.1f}" in overview
    assert "Differences between recipes" in rest and "48 asked for" in rest
    for text in ("nearest of its class", "Growth", "share of class, %", "images seen", "within 2"):
        assert text in page, text
    header = page.split("<main>")[0]
    assert f"{100 * found['of_class']['value']:.1f}%" in header and "nearest of its class of the student" in header
    assert "my_protocols" not in page.replace("my_protocols:Nearest", "")


def test_the_report_of_one_from_outside(outside: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    code = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parents[2] / "toys")!r})
from evaluation_toys import model
from facedistill.evaluation import Resolution, evaluate
from facedistill.results import write_report
models = {{"student": model(1, noise=.7), "teacher": model(2, noise=.1)}}
result = evaluate(models, [{str(folder)!r}], protocols=[{NEAREST!r}], resamples=9, resolutions=[Resolution(8)])
write_report(result, "page.html")
json.dump(result, open("result.json", "w"))
"""
    run("-c", code, path=outside, cwd=tmp_path)
    page, result = (tmp_path / "page.html").read_text(), json.loads((tmp_path / "result.json").read_text())
    own = result["results"][0]["of_class"]["value"]
    assert (
        f"On faces (nearest), the student puts {100 * own:.1f}% [" in page
        and "beside their class against its own" in page
    )
    for text in (
        "Growth",
        "Nearest of its class against resolution, probe low",
        "angle to it, degrees",
        "Settings, nearest",
    ):
        assert text in page, text


def test_a_broken_declaration_is_refused_in_one_line(outside: Path, folder: Path, tmp_path: Path) -> None:
    good = evaluate(two(), [folder], protocols=[NEAREST], resamples=0)
    file = tmp_path / "e.json"
    for change, where in (
        ({"declared": {"figures": [{"key": 3}]}}, "results.0.declared.figures.0"),
        ({"declared": None}, "results.0.declared"),
        ({"of_class": 0.5}, "results.0.of_class"),
        ({"within": {"low": {"value": 1}}}, "results.0.within.low"),
    ):
        broken = good | {"results": [good["results"][0] | change]}
        file.write_text(json.dumps(broken))
        with pytest.raises(UserError, match=rf"e\.json: {where}.*expected a finished run") as refused:
            load_evaluations([file])
        assert "\n" not in str(refused.value)
    file.write_text(json.dumps(good))
    assert render_comparison(load_evaluations([file])) == render_comparison({"e": good})


def test_published_figures_of_one_from_outside(tmp_path: Path, outside: Path, folder: Path) -> None:
    declared = carried(find_protocol(NEAREST))
    result = {"set": "faces", "protocol": "nearest", "probe": "student", "gallery": "student", **declared}
    content: dict[str, Any] = {"published": "table 4", "method": "Theirs", "results": [result | {"of_class": 0.875}]}
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(content))
    ours = evaluate({"student": model()}, [folder], protocols=[NEAREST], resamples=0)
    text = render_comparison({"ours": ours, **load_evaluations([file])})
    assert "87.50" in text and "nearest of its class" in text
    for wrong in ({"of_class": 87.5}, {"share": 0.5}, {"of_class": 0.5, "declared": 3}):
        file.write_text(json.dumps(content | {"results": [result | wrong]}))
        with pytest.raises(UserError, match=r"theirs\.json"):
            load_evaluations([file])


def test_seeds_of_one_from_outside_have_a_mean(outside: Path, folder: Path) -> None:
    runs = {}
    for seed in (0, 1):
        found = evaluate(
            {"student": model(seed, noise=0.5)}, [folder], protocols=[NEAREST], resamples=5, keep_resamples=True
        )
        runs[f"r-s{seed}"] = found | {"training": {"recipe": "r", "seed": seed, "epochs": 1, "data": "x"}}
    (mean,) = over_seeds(runs).values()
    values = [r["results"][0]["angle"]["value"] for r in runs.values()]
    assert mean["results"][0]["angle"]["value"] == pytest.approx(np.mean(values))
    assert mean["results"][0]["declared"] == runs["r-s0"]["results"][0]["declared"]
    low, high = sorted(f"{value:.1f}" for value in values)
    assert f"{low} to {high}" in render_comparison({}, recipes={"r": mean})


# Ours


def sets_of_every_kind(root: Path) -> dict[str, EvaluationSet]:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        faces = write_folder(root / "faces")
        importlib.import_module("ijb_from_faces").write_ijb(open_dataset(faces), root / "ijb")
    finally:
        sys.path.pop(0)
    enrolled = write_folder(root / "enrolled", range(8), 1)
    found = open_sets(
        [faces, write_bin(root / "x.bin", names=False), write_bin(root / "y.bin", names=True), root / "ijb"]
    )
    labels = open_sets({"labels": "synthetic:identities=30,images=1,size=16,task=attributes"})
    return found | labels | open_sets({"searched": str(faces)}, gallery=str(enrolled))


def test_every_protocol_declares_every_figure_that_it_measures_and_no_more(tmp_path: Path) -> None:
    models = two()
    names = dict.fromkeys(f"p{person:{width}}" for width in ("02", "1") for person in range(PEOPLE))
    names |= dict.fromkeys(ATTRIBUTES)
    shots = torch.tensor([200, 50, 5]).repeat(len(names))[: len(names)]  # many, medium, few
    w = Classifier(torch.randn(len(names), 16), list(names), counts=shots, scale=16.0, bias=torch.zeros(len(names)))
    for one in models.values():
        one.classifier = w
    seen: dict[str, set[str]] = {name: set() for name in PROTOCOLS}
    counted: dict[str, set[str]] = {name: set() for name in PROTOCOLS}
    sets = sets_of_every_kind(tmp_path)
    for name, one in sets.items():
        fitting = [kind.name for kind in PROTOCOLS.values() if set(kind.kinds) & set(one.kinds)]
        for r in evaluate(models, {name: one}, protocols=fitting, resamples=2)["results"]:
            says = PROTOCOLS[r["protocol"]].declaration()
            measured = {key for key, value in r.items() if isinstance(value, dict | float)} - {
                "settings", "curves", "at_gallery_threshold", "mean_cosine", "false_accepts", "galleries",
            }  # fmt: skip
            assert measured <= {figure.key for figure in says.figures}, r["protocol"]
            numbers = {key for key, value in r.items() if isinstance(value, int)} - {"images", "same_space"}
            assert numbers <= {count.key for count in says.counts}, r["protocol"]
            drawn = {{"det": "roc"}.get(key, key) for key in (p if isinstance(p, str) else p.key for p in says.plots)}
            assert set(r.get("curves", {})) == drawn, r["protocol"]
            for figure in says.figures:
                values = r[figure.key].values() if figure.family and figure.key in r else []
                assert not figure.target or all(
                    {figure.target.obtained, figure.target.decided_by} <= set(value) for value in values
                )
            seen[r["protocol"]] |= measured
            counted[r["protocol"]] |= numbers
    for name, kind in PROTOCOLS.items():
        assert seen[name] == {figure.key for figure in kind.figures}, name
        assert {count.key for count in kind.counts} - counted[name] <= {"distractors"}, name


def test_usual_protocols_of_every_kind_of_set(tmp_path: Path) -> None:
    found = {
        name: [kind.name for kind in protocols_of(one, name, None)]
        for name, one in sets_of_every_kind(tmp_path).items()
    }
    assert found == {
        "faces": ["all-pairs"],
        "x": ["pairs"],
        "y": ["all-pairs", "pairs"],
        "ijb": ["templates 1:1", "templates 1:N"],
        "searched": ["identification"],
        "labels": ["multi-label"],
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_entry(name: str) -> None:
    kind = PROTOCOLS[name]
    assert kind.name == name and find_protocol(name) is kind and carried(kind) == {}
    assert kind.figures and kind.kinds and set(kind.usual) <= set(kind.kinds) and kind.__doc__
    keys = [figure.key for figure in kind.figures]
    assert len(keys) == len(set(keys)) and any(figure.headline for figure in kind.figures)
    assert declaration({"protocol": name}) == kind.declaration()
    assert all(figure.sentence for figure in kind.figures if figure.headline)


def test_what_nobody_declares_has_the_figures_of_all() -> None:
    keys = {figure.key for kind in PROTOCOLS.values() for figure in kind.figures}
    assert {figure.key for figure in everything().figures} == keys
    assert declaration() == declaration({"protocol": "of an older version"}) == everything()
    one = AllPairs.declaration()
    assert declaration({"protocol": "all-pairs"}, {"protocol": "all-pairs"}) == one


def test_an_entry_that_python_adds_is_still_carried(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    class Mine(Protocol):
        name, kinds, figures = "mine", ("labels",), (Figure("one", "one"),)

        def measure(self, probe: Any, gallery: Any) -> tuple[Measurement, dict[str, Any]]:
            return Values({"one": Estimate(1.0, np.empty(0))}), {}

    monkeypatch.setitem(PROTOCOLS, "mine", Mine)
    (result,) = evaluate({"m": model()}, [folder], protocols=["mine"], resamples=0)["results"]
    assert result["one"] == {"value": 1.0} and result["declared"] == {"figures": [{"key": "one", "label": "one"}]}


def test_declarations_need_no_torch() -> None:
    code = "import sys, facedistill.evaluation.protocols; print('torch' in sys.modules)"
    assert run("-c", code, cwd=Path.cwd()).strip() == "False"
