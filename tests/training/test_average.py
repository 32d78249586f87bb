"""The moving average of weights: its values, and that it is the model which is saved, measured and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from facedistill.errors import UsageError
from facedistill.models.folder import load_model
from facedistill.recipe.read import dump_recipe, make_recipe
from facedistill.recipe.schema import Recipe
from facedistill.training import engine
from facedistill.training.average import WeightAverage
from facedistill.training.engine import train
from processes import free_port

DATA = "synthetic:identities=6,images=4,size=32,seed=1"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))


def _raw(**schedule: Any) -> dict[str, Any]:
    return {
        "data": {"train": DATA, "hold_out": 0.34},
        "student": {"input_size": 32, "embedding_dim": 8, "options": {"width": 0.25}},
        "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
        "schedule": {"epochs": 2, "batch": 4, "lr": 0.05, "checkpoint_steps": 1, "log_steps": 1} | schedule,
    }


def _recipe(**schedule: Any) -> Recipe:
    return make_recipe(_raw(**schedule))


def _saved(run: Path) -> dict[str, torch.Tensor]:
    model, w = (load_file(run / "model" / f"{name}.safetensors") for name in ("model", "classifier"))
    return model | {"w": w["weight"]}


def test_the_average_is_the_formulas_and_integers_are_copied() -> None:
    module = nn.BatchNorm1d(2).double()
    assert module.num_batches_tracked is not None
    average = WeightAverage(module, 0.5)
    expected = [1.0, 1.0]
    for step in range(1, 20):
        with torch.no_grad():
            module.weight.add_(torch.tensor([1.0, -2.0], dtype=torch.float64))
        module.num_batches_tracked += 1
        average.update(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = [kept * old + (1 - kept) * new for old, new in zip(expected, module.weight.tolist(), strict=True)]
    assert average.weights["weight"].tolist() == pytest.approx(expected, abs=1e-12)
    assert average.weights["num_batches_tracked"] == 19


def test_a_decay_of_zero_is_the_trained_weights_and_shown_restores_them() -> None:
    module = nn.Linear(3, 2)
    average = WeightAverage(module, 0.0)
    first = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    with pytest.raises(KeyError), average.shown():
        assert torch.equal(module.weight, first)
        raise KeyError
    assert torch.equal(module.weight, first + 1)
    average.update(1)
    average.install()
    assert torch.equal(module.weight, first + 1)


def test_training_is_the_same_and_the_saved_model_is_the_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    update = WeightAverage.update

    def watched(self: WeightAverage, step: int) -> None:
        seen.append({name: value.clone() for name, value in self.module.state_dict().items()})
        update(self, step)

    monkeypatch.setattr(WeightAverage, "update", watched)
    monkeypatch.setattr(WeightAverage, "__init__", _watched_start(seen))
    plain, averaged = train(_recipe(), tmp_path / "plain"), train(_recipe(ema=0.9), tmp_path / "averaged")
    logs = [
        [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()] for run in (plain, averaged)
    ]
    assert logs[0] == logs[1] and len(seen) == 1 + len(logs[0]) == 9
    expected = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        kept = min(0.9, (1 + step) / (10 + step))
        expected = {
            n: kept * x + (1 - kept) * weights[n] if x.is_floating_point() else weights[n] for n, x in expected.items()
        }
    found = load_file(averaged / "model" / "model.safetensors")
    for name, value in found.items():
        torch.testing.assert_close(value, expected[f"student.{name}"], rtol=1e-5, atol=1e-6)
    w = load_model(averaged).classifier
    assert w is not None
    rows = nn.functional.normalize(expected["weight.weight"], dim=1)
    torch.testing.assert_close(w.weight, rows, rtol=1e-5, atol=1e-6)
    assert not torch.equal(_saved(plain)["w"], _saved(averaged)["w"])


def _watched_start(seen: list[dict[str, torch.Tensor]]) -> Any:
    start = WeightAverage.__init__

    def watched(self: WeightAverage, module: nn.Module, decay: float) -> None:
        start(self, module, decay)
        seen.append({name: value.clone() for name, value in self.weights.items()})

    return watched


def test_a_resumed_run_reaches_the_same_bits_and_epochs_keep_the_average(tmp_path: Path) -> None:
    recipe = _recipe(ema=0.9, keep="epochs")
    recipe.evaluation.every = 1
    whole, run = train(recipe, tmp_path / "whole"), train(recipe, tmp_path / "run")
    (run / "evaluation.json").unlink()
    max((run / "checkpoints").glob("*.pt")).unlink()
    for file in (run / "epochs").iterdir():
        file.unlink()
    train(recipe, run)
    first, again = _saved(whole), _saved(run)
    assert all(torch.equal(first[name], again[name]) for name in first)
    last = load_file(whole / "epochs" / "0001.safetensors")
    assert all(torch.equal(last[name], first[name]) for name in last)
    evaluation = json.loads((whole / "evaluation.json").read_text())
    assert evaluation["training"]["epochs"] == 2 and (whole / "verification.jsonl").exists()


def test_the_key_is_left_out_unless_it_is_set_and_a_share_of_one_is_refused() -> None:
    assert "ema" not in dump_recipe(_recipe()) and "ema: 0.99" in dump_recipe(_recipe(ema=0.99))
    with pytest.raises(UsageError, match=r"schedule\.ema"):
        _recipe(ema=1)


def test_two_processes_save_an_average_and_one_goes_on_with_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_raw(ema=0.9)))
    run = tmp_path / "run"
    command = ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}", "-m", "facedistill"]
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command, "train", str(recipe), "--out", str(run)],
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    state = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    saved = _saved(run)
    for name, value in state["average"].items():
        if name.startswith("student."):
            assert torch.equal(value, saved[name.removeprefix("student.")]), name
    assert not torch.equal(state["average"]["weight.weight"], state["method"]["weight.weight"])
    (run / "evaluation.json").unlink()
    max((run / "checkpoints").glob("*.pt")).unlink()
    engine.train(make_recipe(_raw(ema=0.9)), run)
    assert json.loads((run / "evaluation.json").read_text())["training"]["epochs"] == 2
