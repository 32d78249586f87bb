"""Trackers get every number and the plots, are read back by their own libraries, and never stop a run."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facedistill.errors import UsageError, UserError
from facedistill.recipe.read import make_recipe
from facedistill.run.trackers import TRACKERS, MLflow, Tracker, Trackers
from facedistill.training import train


def _recipe(track: Any) -> Any:
    return make_recipe(
        {
            "data": {"train": "synthetic:identities=8,images=4,size=32,seed=1", "hold_out": 0.4},
            "student": {"input_size": 32, "embedding_dim": 8, "options": {"width": 0.125}},
            "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
            "schedule": {"epochs": 2, "batch": 8, "lr": 0.05, "log_steps": 1},
            "track": track,
        }
    )


def _logged(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_several_at_once_get_every_number_and_the_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    pytest.importorskip("tensorboard", reason="the extra 'track' is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(_recipe(["tensorboard", "wandb", "mlflow"]), tmp_path / "run")
    losses = _logged(run)
    assert len(losses) >= 4
    _check_tensorboard(run, losses)
    _check_mlflow(run, losses)
    _check_wandb(run, losses)


def _check_tensorboard(run: Path, losses: list[float]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    pictures = events.Tags()["images"]
    assert any(name.startswith("hold-out") for name in pictures) and any("Training curves" in name for name in pictures)
    assert events.Images(pictures[0])[0].encoded_image_string.startswith(b"\x89PNG")


def _check_mlflow(run: Path, losses: list[float]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient((run / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("facedistill")
    assert experiment is not None
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.info.status == "FINISHED" and stored.info.run_name == "run"
    history = client.get_metric_history(stored.info.run_id, "loss")
    assert [metric.value for metric in sorted(history, key=lambda metric: metric.step)] == pytest.approx(losses)
    assert client.list_artifacts(stored.info.run_id, "plots")


def _check_wandb(run: Path, losses: list[float]) -> None:
    """The file of an offline run: LevelDB's log (blocks of 32 KiB, records with a header of 7 bytes) of protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    rows = []
    for data in _records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        rows += [items["loss"]] if "loss" in items else []
    assert rows == pytest.approx(losses)
    pictures = list(file.parent.rglob("*.png"))
    assert len(pictures) >= 3 and all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def _records(data: bytes) -> Iterator[bytes]:
    at, whole, block = 7, b"", 1 << 15  # the file's own header is 7 bytes
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


class Broken(Tracker):
    """Fails at the method that `at` names."""

    package, at = "json", "numbers"

    def __init__(self, run: Path, step: int) -> None:
        self._maybe("begin")

    def _maybe(self, name: str) -> None:
        if name == self.at:
            raise ConnectionError("no route\nto the \x1b[31mhost")

    def numbers(self, step: int, values: Any) -> None:
        self._maybe("numbers")

    def picture(self, name: str, png: bytes) -> None:
        self._maybe("picture")

    def end(self) -> None:
        self._maybe("end")


@pytest.mark.parametrize("at", ["begin", "numbers", "picture", "end"])
def test_a_tracker_that_fails_is_one_line_and_the_run_goes_on(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Broken)
    monkeypatch.setattr(Broken, "at", at)
    trackers = Trackers(["wandb"], tmp_path)
    trackers.begin(0)
    for step in range(3):
        trackers.numbers(step, {"loss": 1.0})
    trackers.pictures({"a": b"", "b": b""})
    trackers.end()
    assert capsys.readouterr().err == (
        "track: wandb failed (ConnectionError: no route to the \\x1b[31mhost); the run goes on without it\n"
    )


def test_a_run_ends_though_its_tracker_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Broken)
    assert (train(_recipe("wandb"), tmp_path / "run") / "evaluation.json").exists()


def test_a_package_that_is_missing_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLflow, "package", "a_package_that_nobody_has")
    with pytest.raises(UserError, match=r"track: mlflow is not installed; pip install 'facedistill\[mlflow\]'"):
        Trackers(["tensorboard", "mlflow"], tmp_path)


def test_an_unknown_tracker_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="track"):
        _recipe("tensorbord")


def test_a_run_that_is_resumed_goes_on_in_the_same_place(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    for step in (0, 5):
        trackers = Trackers("mlflow", tmp_path)
        trackers.begin(step)
        trackers.numbers(step + 1, {"lfw/all-pairs/tar_at_far/1e-3:x,y": 0.5})
        assert trackers.open
        trackers.end()
    from mlflow import MlflowClient

    client = MlflowClient((tmp_path / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("facedistill")
    assert experiment is not None
    (stored,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(stored.info.run_id, "lfw/all-pairs/tar_at_far/1e-3_x_y")
    assert [metric.step for metric in history] == [1, 6]
