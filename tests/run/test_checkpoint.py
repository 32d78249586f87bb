"""Checkpoints: two are kept, a damaged or malicious one is refused in one line, everything comes back."""

import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facedistill.errors import UserError
from facedistill.run.checkpoint import latest_checkpoint, restore_checkpoint, save_checkpoint


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "method": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "frozen_weight": None,
    }


def _trained(steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        network(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    state = _state(*_trained())
    for step in (7, 8, 12, 100):
        save_checkpoint(tmp_path, step, state)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step00000012.pt", "step00000100.pt"]
    found = latest_checkpoint(tmp_path)
    assert found is not None and found["step"] == 100


def test_weights_buffers_and_optimiser_come_back(tmp_path: Path) -> None:
    network, optimizer = _trained()
    save_checkpoint(tmp_path, 2, _state(network, optimizer))
    other, other_optimizer = _trained(1)
    state = latest_checkpoint(tmp_path)
    assert state is not None
    restore_checkpoint(other, other_optimizer, state, tmp_path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    mine, theirs = (o.state_dict()["state"] for o in (optimizer, other_optimizer))
    assert all(torch.equal(mine[i]["momentum_buffer"], theirs[i]["momentum_buffer"]) for i in mine)


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "another file", "renamed"])
def test_a_damaged_file_is_passed_over_in_one_clear_line(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, _state(*_trained()))
    file, before = (tmp_path / "checkpoints" / f"step0000000{step}.pt" for step in (2, 1))
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-200])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "noise":
        file.write_bytes(b"\x80\x02nothing of the kind")
    elif damage == "renamed":
        file.write_bytes(before.read_bytes())
    else:
        torch.save({"step": 2, "weights": torch.zeros(2)}, file)
    state = latest_checkpoint(tmp_path)
    assert state is not None and state["step"] == 1
    line = capsys.readouterr().err
    assert (
        line.count("\n") == 1 and "step00000002.pt" in line and "Resuming from the one before, step00000001.pt" in line
    )
    before.unlink()
    with pytest.raises(UserError, match=r"step00000002\.pt .*delete it") as caught:
        latest_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_damage_goes_on_to_other_weights(tmp_path: Path) -> None:
    """Whatever byte is changed: the checkpoint is refused, or all that it holds is as it was."""
    state = _state(*_trained())
    save_checkpoint(tmp_path, 1, state)
    file = tmp_path / "checkpoints" / "step00000001.pt"
    whole, rng, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            found = latest_checkpoint(tmp_path)
        except UserError:
            refused += 1
            continue
        assert found is not None and found["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
        assert all(torch.equal(found["method"][name], value) for name, value in state["method"].items())
    assert refused > 50


def test_a_checkpoint_that_is_not_this_runs_is_passed_over(tmp_path: Path) -> None:
    def require(state: dict[str, Any]) -> None:
        if state["step"] == 2:
            raise UserError("foreign")

    for step in (1, 2):
        save_checkpoint(tmp_path, step, _state(*_trained()))
    found = latest_checkpoint(tmp_path, require)
    assert found is not None and found["step"] == 1
    (tmp_path / "checkpoints" / "step00000001.pt").unlink()
    with pytest.raises(UserError, match="foreign"):
        latest_checkpoint(tmp_path, require)


class _Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_pickle_runs(tmp_path: Path, zipped: bool) -> None:
    (tmp_path / "checkpoints").mkdir()
    file, proof = tmp_path / "checkpoints" / "step00000001.pt", tmp_path / "proof"
    torch.save({"step": 1, "method": _Malicious(proof)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="cannot be read"):
        latest_checkpoint(tmp_path)
    assert not proof.exists()
    torch.load(file, weights_only=False)
    assert proof.exists()  # it would have


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (nn.Sequential(nn.Linear(3, 5)), r"'0\.weight' is \(4, 3\), the recipe's network expects \(5, 3\)"),
        (nn.Sequential(nn.Linear(3, 4)), r"'1\.weight' is \(4,\), the recipe's network expects absent"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.PReLU(4)), r"'2\.weight' is absent"),
    ],
    ids=["shape", "superfluous", "missing"],
)
def test_another_network_is_named(tmp_path: Path, other: nn.Module, named: str) -> None:
    save_checkpoint(tmp_path, 1, _state(*_trained()))
    state = latest_checkpoint(tmp_path)
    assert state is not None
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(UserError, match=named):
        restore_checkpoint(other, torch.optim.SGD(other.parameters()), state, tmp_path)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


@contextmanager
def _files_of_at_most_4_kib() -> Iterator[None]:
    """What a full disk looks like to a writer: the file ends in the middle.

    Only around the write itself: the limit holds for the whole process, and pytest's own output may be a longer file.
    """
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, _state(*_trained()))
    with (
        pytest.raises(UserError, match=r"cannot write .*free some space"),
        _files_of_at_most_4_kib(),
    ):
        save_checkpoint(tmp_path, 2, {"method": torch.zeros(100_000)})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step00000001.pt"]
