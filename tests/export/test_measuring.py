"""`bench` on real files, each in a process of its own."""

import json
from pathlib import Path

import pytest

from facedistill.backbones import create_backbone
from facedistill.cli.app import main
from facedistill.cli.listing import listing
from facedistill.errors import UsageError, UserError
from facedistill.export import bench, export_model
from facedistill.models import Model, load_model, save_model
from facedistill.results import render_bench, write_bench
from tiny_world import Tiny

pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")


@pytest.fixture(scope="module")
def file(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tiny.student, "onnx", tmp_path_factory.mktemp("files") / "student.onnx").path


def test_a_run_beside_its_exported_file(tiny: Tiny, file: Path, tmp_path: Path) -> None:
    result = bench([tiny.student, file], threads=[1], rounds=3, compiled=False)
    run, exported = result["contestants"]
    model = load_model(tiny.student)
    assert (run["runtime"], exported["runtime"]) == ("torch", "onnx") and result["left_out"] == []
    for found in (run, exported):
        assert (found["parameters"], found["macs"]) == (model.parameters_count(), model.macs())
        assert 0 < found["latency_ms"]["1"]["median"] <= found["latency_ms"]["1"]["p95"]
        assert set(found["throughput"]) == {"1", "8", "64"} and min(found["throughput"].values()) > 0
        assert 0 < found["memory"]["network"] < found["memory"]["process"]
    assert exported["bytes"] == file.stat().st_size
    assert "accuracy" in run and "accuracy" not in exported
    table = render_bench(result)
    assert "ONNX Runtime" in table and "MACs" in table and "FLOP" not in table and run["accuracy"]["what"] in table
    write_bench(result, tmp_path / "report.html")
    assert "<svg" in (tmp_path / "report.html").read_text("utf-8")
    json.dumps(result)


def test_the_list_of_networks_shows_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    save_model(Model(create_backbone("ghostfacenet_v1")), tmp_path / "model")
    (found,) = bench([tmp_path / "model"], threads=[1], rounds=1, compiled=False)["contestants"]
    rows = [line.split() for line in listing("backbones").splitlines()]
    (row,) = [row for row in rows if row[0] == "ghostfacenet_v1"]
    assert row[:6] == ["ghostfacenet_v1", "4.04", "M", "59.3", "M", f"{found['latency_ms']['1']['median']:.1f}"]
    assert next(row for row in rows if row[0] == "pocketnet_s")[5] == "91.62"


def test_accuracy_of_an_evaluation_by_path(
    tiny: Tiny, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    options = ["--threads", "1", "--rounds", "1", "--no-compiled", "--json", "b.json", "--report", "b.html"]
    for arguments in (
        ["evaluate", str(file), "--on", str(tiny.pairs), "--json", "e.json", "--far", "0.1"],
        ["bench", str(file), "--evaluation", "e.json", *options],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
    (found,) = json.loads(Path("b.json").read_text())["contestants"]
    assert found["accuracy"]["what"].startswith("pairs") and 0 <= found["accuracy"]["value"] <= 1
    assert "against latency" in Path("b.html").read_text("utf-8")
    assert "b.html: open it in a browser" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"e\.json measures none of the contestants"):
        bench([tiny.teacher], evaluations=["e.json"], compiled=False)


def test_what_does_not_compile_in_time_is_left_out(tiny: Tiny) -> None:
    result = bench([tiny.student], threads=[1], rounds=1, limit=0.1)
    assert [c["runtime"] for c in result["contestants"]] == ["torch"]
    (left,) = result["left_out"]
    assert left["runtime"] == "torch compiled" and left["why"].startswith("not done after 0.1 s")
    assert "left out" in render_bench(result)


def test_a_model_folder_that_holds_an_onnx_file(tiny: Tiny, file: Path, tmp_path: Path) -> None:
    save_model(load_model(file), tmp_path / "folder")
    (found,) = bench([tmp_path / "folder"], threads=[1], rounds=1)["contestants"]
    assert found["runtime"] == "onnx" and found["bytes"] == (tmp_path / "folder" / "model.onnx").stat().st_size


@pytest.mark.parametrize(
    ("target", "suffix", "package"),
    [("litert", ".tflite", "litert_torch"), ("executorch", ".pte", "executorch")],
)
def test_files_of_other_runtimes(tiny: Tiny, tmp_path: Path, target: str, suffix: str, package: str) -> None:
    pytest.importorskip(package, reason=f"the extra '{target}' is not installed")
    path = export_model(tiny.student, target, tmp_path / f"s{suffix}").path
    (found,) = bench([path], threads=[1], rounds=1)["contestants"]
    assert (found["runtime"], found["precision"]) == (target, "fp32") and found["throughput"]["8"] > 0


def test_bad_input(tiny: Tiny, tmp_path: Path, file: Path) -> None:
    with pytest.raises(UsageError, match="name a model or an exported file"):
        bench([])
    with pytest.raises(UsageError, match="expected 1 or more"):
        bench([file], threads=[0])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"notes\.txt; expected a model folder, a run, or a file that ends in \.onnx"):
        bench([tmp_path / "notes.txt"])
    with pytest.raises(UserError, match="no such folder"):
        bench([tmp_path / "nothing"])
