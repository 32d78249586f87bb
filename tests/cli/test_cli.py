"""The command line: what it prints, what it refuses and with which exit code, mostly through `main` in this process."""

import builtins
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from facedistill.backbones import create_backbone
from facedistill.cli.app import main
from facedistill.models.folder import load_model
from facedistill.results import render_table
from tiny_world import Tiny

VERBS = (
    "demo",
    "import",
    "check",
    "distill",
    "train",
    "sweep",
    "evaluate",
    "compare",
    "embed",
    "show",
    "list",
    "bench",
    "upgrade",
    "cache",
)
SMALL = ("student.input_size=32", "student.options.width=0.25", "schedule.epochs=1", "schedule.batch=12")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Cli:
    """Run one command in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code: Any = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as e:
            code = e.code or 0
        return Ran(code, *capsys.readouterr())

    return run


def refused(ran: Ran, code: int, *words: str) -> None:
    """One line on stderr that holds `words`, this exit code, nothing on stdout."""
    assert ran.code == code, ran
    assert ran.err.startswith("facedistill: ") and ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err, ran.err
    assert "Traceback" not in ran.err and not ran.out


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=120
    )


# Help, and how a command line is refused


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_shows_an_example(cli: Cli, verb: str) -> None:
    ran = cli(verb, "--help")
    assert ran.code == 0 and "Example" in ran.out
    assert f"facedistill {verb}" in ran.out.partition("Example")[2]
    assert verb in cli().out and verb in cli("--help").out


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from facedistill.cli import main
for arguments in (["--help"], ["distill", "--help"], ["trian"], ["--version"]):
    try:
        main(arguments)
    except SystemExit:
        pass
heavy = {"torch", "numpy", "PIL", "pydantic", "yaml", "onnxruntime", "pyarrow", "safetensors"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_real_process_and_its_exit_codes(tmp_path: Path) -> None:
    for arguments, code in (
        (["--version"], 0),
        (["list", "metods"], 2),
        (["show", str(tmp_path / "nothing")], 1),
    ):
        done = python("-m", "facedistill", *arguments)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == (1 if code else 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["unknown verb 'trian' (did you mean 'train'?)", "demo, import, fuse, check"]),
        (["train"], ["RECIPE needs a value", "`facedistill train --help`"]),
        (["train", "scratch"], ["--out needs a value"]),
        (["train", "scratch", "--ou", "r"], ["--ou", "--out"]),
        (["show", "a", "b"], ["unexpected argument 'b'"]),
        (["evaluate", "m", "--on", "x", "--flip", "both"], ["both", "sum", "concat", "none"]),
        (["evaluate", "m", "--on"], ["--on needs a value"]),
        (["evaluate", "m", "--on", "x", "--show-faces"], ["--show-faces", "--report"]),
        (["evaluate", "m", "--on", "x", "--distractors", "y"], ["--distractors", "--gallery"]),
        (["compare"], ["RUNS needs a value"]),
        (["sweep", "seed=0,1", "--out", "r"], ["RECIPES needs a value", "facedistill sweep"]),
        (["sweep", "l2kd", "schedule.epoch=1,2", "--out", "r"], ["schedule.epoch", "did you mean 'epochs'?"]),
        (["import", "x.onnx", "--out", "t", "--mean", "grey"], ["--mean", "grey"]),
        (["import", "x.onnx", "--out", "t", "--from", "onx"], ["onx", "arcface_torch"]),
        (["list", "method"], ["did you mean 'methods'?"]),
        (["embed", "m", "photos", "--out", "x.csv"], ["x.csv", ".npz"]),
        (["train", "scrach", "--out", "r"], ["scrach", "did you mean 'scratch'?", "facedistill list recipes"]),
        (["train", "nowhere.yaml", "--out", "r"], ["nowhere.yaml", "no such file"]),
        (["train", "scratch", "epochs", "--out", "r"], ["'epochs'", "key=value"]),
        (["train", "scratch", "schedule.epoch=3", "--out", "r"], ["schedule.epoch", "did you mean 'epochs'?"]),
        (["train", "scratch", "schedule.epochs=many", "--out", "r"], ["schedule.epochs", "'many'"]),
        (["train", "scratch", "method=proxyless", "--out", "r"], ["'proxyless'", "did you mean 'proxylesskd'?"]),
        (["show", "synthetic:identites=3"], ["identites", "did you mean 'identities'?"]),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], words: list[str]) -> None:
    refused(cli(*arguments), 2, *words)
    assert not Path("r").exists()


def test_an_unknown_key_in_a_recipe_file(cli: Cli) -> None:
    Path("r.yaml").write_text("schedule: {epocs: 3}\n")
    refused(cli("train", "r.yaml", "--out", "r"), 2, "r.yaml", "'schedule.epocs'", "did you mean 'epochs'?")
    Path("r.yaml").write_text("schedule: [epochs\n")
    refused(cli("train", "r.yaml", "--out", "r"), 2, "r.yaml", "not YAML")


@pytest.mark.parametrize("what", ["methods", "terms", "backbones", "margins", "views", "protocols", "recipes"])
def test_list(cli: Cli, what: str) -> None:
    ran = cli("list", what)
    known = {"methods": "proxylesskd", "terms": "margin_softmax", "backbones": "iresnet50", "margins": "arcface"}
    known |= {"protocols": "templates 1:1      Templates", "views": "augment            Faces are cropped"}
    assert ran.code == 0 and known.get(what, "l2kd") in ran.out


# Bad input


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("code ran",))


def test_data_that_is_not_what_it_says(cli: Cli) -> None:
    refused(cli("show", "nothing"), 1, "nothing", "no such file or folder")
    Path("x.bin").write_bytes(b"\x89PNG and so on")
    refused(cli("show", "x.bin"), 1, "x.bin", "not a pickle")
    Path("evil.bin").write_bytes(pickle.dumps(([Evil(), b"a"], [True])))
    ran = cli("show", "evil.bin")
    refused(ran, 1, "evil.bin")
    assert "code ran" not in ran.out
    Path("train.rec").write_bytes(bytes(64))
    Path("train.idx").write_text("0\t0\n1\t32\n")
    refused(cli("show", "train.rec"), 1, "train.rec", "broken magic", "0xced7230a")
    Path("faces/ann").mkdir(parents=True)
    refused(cli("show", "faces"), 1, "faces/ann", "no image")


def test_checkpoints_that_do_not_fit(cli: Cli, tmp_path: Path) -> None:
    state = create_backbone("iresnet18", 16, 32, width=0.125).state_dict()
    torch.save(state | {"bn2.weight": torch.zeros(5)}, "shape.pth")
    refused(cli("import", "shape.pth", "--out", "t"), 1, "shape.pth", "'bn2.weight'", "[5]", "[64]")
    torch.save({"a": Evil()}, "evil.pth")
    ran = cli("import", "evil.pth", "--out", "t")
    refused(ran, 1, "evil.pth", "plain tensors")
    torch.save(state, "backbone.pth")
    torch.save({"weight": torch.randn(7, 16)}, "head.pt")
    Path("names.txt").write_text("ann\nbob\n")
    import_ = ("import", "backbone.pth", "--classifier", "head.pt", "--out", "t")
    refused(cli(*import_, "--classes", "names.txt"), 1, "head.pt", "7 classes, but 2 class names")
    assert not (tmp_path / "t").exists()
    assert cli(*import_).code == 0
    refused(cli("import", "t", "--out", "u"), 1, "already a model folder")
    Path("u").mkdir()
    Path("u/mine.txt").write_text("precious")
    refused(cli("import", "backbone.pth", "--out", "u"), 2, "not a model folder", "choose another --out")
    assert Path("u/mine.txt").read_text() == "precious"


def test_a_folder_that_holds_another_run(cli: Cli, tiny: Tiny, tmp_path: Path) -> None:
    before = (tiny.student / "recipe.yaml").read_bytes()
    refused(cli("train", tiny.recipe, "--out", tiny.student), 2, "another recipe", "choose another --out")
    assert (tiny.student / "recipe.yaml").read_bytes() == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    refused(cli("train", tiny.recipe, "--out", "photos"), 2, "holds no run")
    assert sorted(p.name for p in (tmp_path / "photos").iterdir()) == ["a.jpg"]


def test_a_model_of_embeddings_alone_cannot_run(cli: Cli, tiny: Tiny) -> None:
    names = sorted(p.name for p in tiny.photos.iterdir())
    vectors = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
    labels = np.arange(24) % 12
    np.savez("t.npz", keys=[str(i) for i in range(24)], class_names=names, labels=labels, vectors=vectors)
    ran = cli("import", "t.npz", "--out", "t")
    assert ran.code == 0 and "no network" in ran.out and "12 classes (centres" in ran.out
    for arguments in (
        ["check", "t", "--data", tiny.photos],
        ["evaluate", "t", "--on", tiny.photos],
        ["embed", "t", tiny.photos, "--out", "x.npz"],
    ):
        refused(cli(*arguments), 1, "embeddings only", "import the teacher's checkpoint or ONNX file")


BLOCKED = {
    "pyarrow": ("photos.parquet", "facedistill[parquet]"),
    "onnxruntime": ("m.onnx", "facedistill[onnx]"),
}


@pytest.mark.parametrize("package", BLOCKED)
def test_a_missing_extra_is_named(cli: Cli, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, extra = BLOCKED[package]
    Path(path).write_bytes(b"x")
    block(monkeypatch, package)
    ran = cli("show", path)
    refused(Ran(ran.code, ran.out, ran.err.splitlines()[-1] + "\n"), 1, package, f"pip install '{extra}'")


def test_a_teacher_under_another_name_than_the_method_asks_for(cli: Cli, tiny: Tiny) -> None:
    ran = cli("train", "l2kd", "--out", "r", f"data={tiny.photos}", f"teachers.techer={tiny.teacher}")
    refused(ran, 2, "teachers.techer (did you mean 'teacher'?)", "l2kd also needs teacher; the recipe has: techer")


def test_tensorboard_is_asked_for_before_the_first_step(cli: Cli, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    ran = cli("train", tiny.recipe, "--out", "r", "track=tensorboard", "data.hold_out=0.2")
    refused(ran, 1, "pip install 'facedistill[track]'")
    assert not Path("r/log.jsonl").exists()


def block(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make `import package` fail as if it were not installed."""
    real = builtins.__import__

    def fake(name: str, *rest: Any) -> Any:
        if name == package or name.startswith(package + "."):
            raise ImportError(f"No module named '{name}'", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fake)


def test_a_report_asks_for_its_libraries_first(cli: Cli, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(cli("evaluate", tiny.student, "--on", "nowhere.bin", "--report", "r.html"), 1, "facedistill[report]")


# The way of a user


def test_from_a_sharded_checkpoint_to_an_evaluation(
    cli: Cli, tiny: Tiny, tmp_path: Path, write_arcface_torch_run: Callable[..., None]
) -> None:
    names = sorted(p.name for p in tiny.photos.iterdir())
    torch.manual_seed(0)
    weight = torch.randn(12, 16)
    (tmp_path / "run").mkdir()
    state = create_backbone("iresnet18", 16, 32, width=0.125).state_dict()
    write_arcface_torch_run(tmp_path / "run", state, weight.split([5, 4, 3]))

    ran = cli("import", "run", "--classes", tiny.photos, "--out", "teacher")
    assert ran.code == 0, ran.err
    assert "32 x 32 pixels -> 16 dimensions" in ran.out and "12 classes (trained with it" in ran.out
    model = load_model("teacher")
    assert model.classifier is not None and model.classifier.class_names == names
    torch.testing.assert_close(model.classifier.weight, torch.nn.functional.normalize(weight))
    assert cli("show", "teacher").out == ran.out and model.space is not None and model.space in ran.out

    ran = cli("check", "teacher", "--data", tiny.photos, "--json", "check.json")
    assert ran.code == 1 and ran.out.rstrip().endswith("check FAILED"), ran  # W is random
    assert "own_class" in json.loads(Path("check.json").read_text())["faults"]

    ran = cli("evaluate", "teacher", "--on", tiny.pairs, tiny.photos, "--json", "r.json")
    result = json.loads(Path("r.json").read_text())
    assert ran.code == 0 and ran.out == render_table(result) + "\n"
    assert result["models"]["model"]["path"] == "teacher"
    assert [r["protocol"] for r in result["results"]] == ["all-pairs", "pairs", "all-pairs"]


def test_classes_come_from_a_data_set_in_one_file_too(cli: Cli, tiny: Tiny) -> None:
    torch.save(create_backbone("iresnet18", 16, 32, width=0.125).state_dict(), "backbone.pth")
    people = load_names(tiny.pairs)
    torch.save(torch.randn(len(people), 16), "head.pt")
    options = ("--classifier", "head.pt", "--classes", tiny.pairs)
    assert cli("import", "backbone.pth", *options, "--out", "t").code == 0
    model = load_model("t")
    assert model.classifier is not None and model.classifier.class_names == people
    ran = cli("import", "backbone.pth", *options, "--out", "t", "--centre", tiny.photos)
    assert "left out" in ran.out and "mean embedding is subtracted" in ran.out and "classifier:" not in ran.out
    ran = cli("import", "backbone.pth", "--out", "t", "--centre", tiny.photos, "--fit-classifier", tiny.photos)
    assert ran.code == 0 and "12 classes (fitted" in ran.out


def load_names(pairs: Path) -> list[str]:
    lines = pairs.with_name(f"{pairs.stem}_bin_names.txt").read_text().splitlines()
    return sorted({line.partition("/")[0] for line in lines})


def test_distil_evaluate_check_and_use(cli: Cli, tiny: Tiny) -> None:
    changes = ("data.hold_out=0.2", "check.own_class=0", "method.terms.margin_softmax.scale=16")
    arguments = ("distill", "--teacher", tiny.teacher, "--data", tiny.photos, "--out", "run", *SMALL, *changes)
    ran = cli(*arguments)
    assert ran.code == 0, ran.err
    assert "check passed" in ran.out and "run: proxylesskd (W: teacher)" in ran.out
    assert "hold-out, all-pairs" in ran.out and "| student → teacher |" in ran.out
    again = cli(*arguments)
    assert again.code == 0 and "nothing to do" in again.err and "check passed" not in again.out
    assert again.out == cli("show", "run").out
    assert load_model("run").space == load_model(tiny.teacher).space

    ran = cli("evaluate", "run", "--on", tiny.pairs, "--against", tiny.teacher, "--flip", "none", "--json", "r.json")
    result = json.loads(Path("r.json").read_text())
    assert ran.code == 0 and set(result["models"]) == {"student", "teacher"}
    assert all(r["same_space"] and r["settings"]["flip"] == "none" for r in result["results"])

    ran = cli("evaluate", "run", "--on", tiny.pairs, "--against", tiny.teacher, "--save-threshold", 0.1, 0.01)
    assert ran.code == 0, ran.err
    kept = load_model("run").thresholds
    assert [t["far"] for t in kept] == [0.1, 0.01] * 2  # for a gallery of its own, and the teacher's
    assert {t["probe"] for t in kept} == {load_model("run").fingerprint()}
    assert {t["gallery"] for t in kept} == {load_model(m).fingerprint() for m in ("run", tiny.teacher)}
    assert f"| 0.01 | {kept[1]['value']:.4f} |" in Path("run/model/README.md").read_text()

    ran = cli("check", "run", "--against", tiny.teacher, "--data", tiny.photos)
    assert ran.code in (0, 1) and "check " in ran.out.splitlines()[-1]

    ran = cli("embed", "run", tiny.photos, "--out", "photos.npz")
    assert ran.code == 0 and "72 images of 12 classes" in ran.out
    assert f"space {load_model('run').space}" in cli("show", "photos.npz").out


def test_evaluate_by_other_protocols_with_a_report(cli: Cli, tiny: Tiny) -> None:
    asked = ("--protocol", "identification", "retrieval", "--resolution", 14, "--jpeg", 50, "--baseline", tiny.teacher)
    outputs = ("--json", "r.json", "--report", "r.html", "--show-faces")
    ran = cli("evaluate", tiny.student, "--on", tiny.pairs, "--against", tiny.teacher, *asked, *outputs)
    assert ran.code == 0, ran.err
    result = json.loads(Path("r.json").read_text())
    assert {r["protocol"] for r in result["results"]} == {"identification", "retrieval"}
    low = [r["settings"]["resolution"] for r in result["results"] if "resolution" in r["settings"]]
    assert {"probe": 14, "jpeg": 50} in low and {"probe": 14, "gallery": 14, "jpeg": 50} in low
    assert result["errors"][0]["false_accepts"] and result["models"]["student"]["latency_ms"] > 0
    rank = result["results"][0]["rank"]["1"]["value"]
    page = Path("r.html").read_text()
    assert f"{100 * rank:.2f}" in page and f"{100 * rank:.2f} [" in ran.out and "data:image/jpeg" in page
    assert "r.html: open it in a browser" in ran.out

    ran = cli("evaluate", tiny.student, "--on", tiny.pairs, "--gallery", tiny.pairs, "--distractors", tiny.photos)
    assert ran.code == 0 and "72 distractors" in ran.out, ran
    refused(
        cli("evaluate", tiny.student, "--on", tiny.photos, "--protocol", "templates 1:1"), 2, "templates", "all-pairs"
    )


def test_a_threshold_needs_a_folder_before_anything_is_measured(cli: Cli, tiny: Tiny) -> None:
    Path("m.onnx").write_bytes(b"")
    refused(cli("evaluate", "m.onnx", "--on", tiny.pairs, "--save-threshold", 0.1), 2, "m.onnx", "facedistill import")


def test_compare_runs_and_files(cli: Cli, tiny: Tiny) -> None:
    assert cli("evaluate", tiny.student, "--on", tiny.pairs, "--json", "mine.json").code == 0
    ran = cli("compare", tiny.student, "mine.json", "--report", "c.html", "--json", "c.json")
    assert ran.code == 0, ran.err
    written = json.loads(Path("c.json").read_text())
    stored = written["evaluations"]
    assert list(stored) == list(written["recipes"]) == [tiny.student.name, "mine"]
    assert ran.out.startswith("Overview, ") and ">Overview</h2>" in Path("c.html").read_text()
    assert stored["mine"] == json.loads(Path("mine.json").read_text())
    for run, evaluation in stored.items():
        eer = evaluation["results"][0]["eer"]
        assert any(line.startswith(f"| {run}") and f"{100 * eer:.2f}" in line for line in ran.out.splitlines())
    assert "Training curves" in Path("c.html").read_text()
    published = Path(__file__).parents[2] / "benchmarks" / "published" / "arcdistill.json"
    ran = cli("compare", published, tiny.student, "mine.json", "--report", "c.html", "--json", "c.json")
    assert ran.code == 0 and list(json.loads(Path("c.json").read_text())["evaluations"])[:2] == list(stored)
    row = r"ArcDistill \(published: AdaDistill poster, arXiv 2407.01332, on MS1MV2\)"
    assert re.search(rf"\| {row} +\| student → student +\| 99.63 ", ran.out) and "compared with nothing" in ran.out
    assert re.search(row, Path("c.html").read_text()) and "Training curves" in Path("c.html").read_text()
    refused(cli("compare", "nowhere"), 1, "nowhere", "finished run")
    Path("not.json").write_text("{}")
    refused(cli("compare", "not.json"), 1, "not.json", "results")
    for content, named in (({"results": [1], "models": {}}, "results.0"), ({"results": []}, "models")):
        Path("not.json").write_text(json.dumps(content))
        refused(cli("compare", "not.json"), 1, "not.json", named)


def test_a_sweep_is_planned_run_and_compared(cli: Cli, tiny: Tiny) -> None:
    changes = (f"data={tiny.photos}", f"teacher={tiny.teacher}", f"evaluation.sets=[{tiny.pairs}]")
    asked = ("sweep", "l2kd", "scratch", "--out", "runs", "seed=0,1", *changes, "student.embedding_dim=16")
    ran = cli(*asked, *SMALL, "--plan")
    assert ran.code == 0 and "4 runs" in ran.out and not list(Path("runs").glob("*/evaluation.json")), ran
    assert cli(*asked, *SMALL).code == 0
    ran = cli("compare", "runs", "--to", "l2kd", "--json", "c.json", "--report", "c.html")
    assert ran.code == 0 and ran.out.count("| l2kd-seed1 ") >= 2 and "teacher forwards" in ran.out
    differences = json.loads(Path("c.json").read_text())["differences"]
    assert {(d["a"], d["b"], d["seeds"]) for d in differences} == {("scratch", "l2kd", 2)}
    assert "Differences between recipes" in ran.out and "Differences between recipes" in Path("c.html").read_text()
    refused(cli("compare", "runs", "--to", "rkd"), 1, "--to rkd", "l2kd, scratch")


def test_distil_refuses_a_teacher_that_does_not_fit(cli: Cli, tiny: Tiny) -> None:
    arguments = ("distill", "--teacher", tiny.teacher, "--data", tiny.photos, "--out", "run", *SMALL)
    ran = cli(*arguments, "check.own_class=1")
    assert ran.code == 1 and "check FAILED" in ran.out and "check.own_class" in ran.err
    assert not Path("run").exists()


def test_distil_makes_centres_where_the_teacher_has_no_classes_of_the_data(cli: Cli, tiny: Tiny) -> None:
    ran = cli(
        "distill",
        "--teacher",
        tiny.teacher,
        "--data",
        tiny.pairs,
        "--out",
        "run",
        *SMALL,
        "check.own_class=0",
        "data.hold_out=0.2",
    )
    assert ran.code == 0, ran.err
    assert "lacks 8 of 8 classes" in ran.out and "W starts from class centres" in ran.out
    assert ran.out.count("8 classes are few") == 1
    assert "run: proxylesskd (W: centres)" in ran.out


def test_show_says_what_lies_there(cli: Cli, tiny: Tiny, tmp_path: Path) -> None:
    assert "72 images of 12 classes (id000000, id000001, id000002, ...)" in cli("show", tiny.photos).out
    picture = next(tiny.photos.rglob("*.*")).read_bytes()
    for name, count in {"b": 4, "a": 2, "c": 6, "d": 1, "e": 4}.items():
        (tmp_path / "uneven" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "uneven" / name / f"{i}.png").write_bytes(picture)
    assert "largest: c (6), b (4), e (4); smallest: d (1), a (2), e (4)" in cli("show", "uneven").out
    ran = cli("show", tiny.pairs)
    assert "60 pairs, 30 of them genuine; the people are known" in ran.out
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_bytes((tiny.teacher / "recipe.yaml").read_bytes())
    assert "not finished, at its beginning" in cli("show", "run").out
    (unfinished / "log.jsonl").write_text(json.dumps({"step": 3, "epoch": 0}) + "\n")
    with open(unfinished / "log.jsonl", "a") as log:
        log.write('{"step": 6, "epo')  # cut short by a kill
    ran = cli("show", "run")
    assert "scratch, not finished, in epoch 1 of 2; `facedistill train run/recipe.yaml --out run` resumes it" in ran.out
