"""Real torchrun: W in shares, one machine and two, a process that dies, and a run that other numbers go on with."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from facedistill.recipe.read import make_recipe
from facedistill.training import engine
from processes import free_port

DATA = "synthetic:identities=6,images=4,size=32,seed=1"
STUDENT = {"input_size": 32, "embedding_dim": 8, "options": {"width": 0.25}}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that inherits a W which a teacher's training has left in its model folder."""
    folder = tmp_path_factory.mktemp("torchrun")
    schedule = {"epochs": 1, "batch": 8, "lr": 0.05}
    teacher = {"data": DATA, "student": STUDENT, "method": "scratch", "schedule": schedule}
    engine.train(make_recipe(teacher), folder / "teacher")
    method = {"name": "proxylesskd", "classifier": {"rows": "int8"}, "terms": {"margin_softmax": {"scale": 16}}}
    inherits = teacher | {"teacher": str(folder / "teacher"), "method": method, "check": {"own_class": 0}}
    inherits["schedule"] = schedule | {"epochs": 2, "checkpoint_steps": 2, "log_steps": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(inherits))
    return folder / "recipe.yaml"


def _start(arguments: Sequence[str], command: Sequence[str]) -> "subprocess.Popen[str]":
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments, "-m", "facedistill", *command],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _one_machine(count: int) -> list[str]:
    return [f"--nproc-per-node={count}", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]


def _wait_for(checkpoint: str, run: Path, launcher: "subprocess.Popen[str]") -> None:
    deadline = time.time() + 200
    while not list(run.glob(f"checkpoints/{checkpoint}")):
        assert launcher.poll() is None and time.time() < deadline, launcher.communicate()[0]
        time.sleep(0.01)


def _steps(run: Path) -> list[str]:
    return [line.partition(",")[0] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_machines_train_what_one_does(recipe: Path, tmp_path: Path) -> None:
    one = _start(_one_machine(2), ["train", str(recipe), "--out", str(tmp_path / "one")])
    assert one.wait(300) == 0, one.communicate()[0]
    port = free_port()
    at = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    command = ["train", str(recipe), "--out", str(tmp_path / "two")]
    nodes = [_start([*at, f"--node-rank={n}"], command) for n in (0, 1)]
    for node in nodes:
        assert node.wait(300) == 0, node.communicate()[0]
    assert "student" in nodes[0].communicate()[0]
    assert _steps(tmp_path / "one") == _steps(tmp_path / "two") == [f'{{"step": {n}' for n in range(1, 7)]
    a, b = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_process_dies_and_another_number_of_them_goes_on(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    longer = ["train", str(recipe), "--out", str(run), "schedule.epochs=300", "schedule.checkpoint_steps=1"]
    launcher = _start(_one_machine(2), longer)
    _wait_for("step*.pt", run, launcher)
    os.kill(_rank(launcher.pid, 1), signal.SIGKILL)
    said = launcher.communicate(timeout=100)[0]
    assert launcher.returncode != 0
    assert re.search("facedistill: .*another process of (this run|it) failed", said), said  # whichever comes first
    assert "run the same command again" in said
    assert "facedistill/engine.py" not in said  # no traceback of ours
    assert not (run / "evaluation.json").exists() and not list(run.rglob("*.tmp*"))
    begun = max(int(file.stem.removeprefix("step")) for file in run.glob("checkpoints/step*.pt"))
    four = _start(_one_machine(4), longer)
    _wait_for(f"step{begun + 5:08d}.pt", run, four)
    four.send_signal(signal.SIGTERM)
    said = four.communicate(timeout=100)[0]
    assert f"resuming from step {begun}" in said and "facedistill: this process was told to end" in said
    steps = [int(line.removeprefix('{"step": ')) for line in _steps(run)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > begun


@pytest.mark.slow
def test_a_process_that_stands_still_is_not_waited_for_for_ever(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEDISTILL_TIMEOUT", "0.2")
    run = tmp_path / "run"
    launcher = _start(_one_machine(2), ["train", str(recipe), "--out", str(run), "schedule.epochs=300"])
    _wait_for("step*.pt", run, launcher)
    os.kill(_rank(launcher.pid, 1), signal.SIGSTOP)
    said = launcher.communicate(timeout=120)[0]
    assert launcher.returncode != 0
    assert "facedistill: " in said and "waited too long for another process" in said, said
    assert "facedistill/engine.py" not in said and not (run / "evaluation.json").exists()


def _rank(launcher: int, rank: int) -> int:
    """The process of that rank among the launcher's children."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")
