"""Processes that do not come, stop or were described wrongly: one clear line instead of waiting for ever."""

import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from facedistill import parallel
from facedistill.errors import UsageError, UserError
from processes import free_port

NAMED = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
JOIN = """
import sys
from facedistill import parallel
from facedistill.errors import UserError
try:
    with parallel.processes():
        WORK
except UserError as e:
    print(e)
    sys.exit(e.exit_code)
"""


def _start(work: str = "pass", **described: str) -> "subprocess.Popen[str]":
    clean = {name: value for name, value in os.environ.items() if name not in NAMED}
    return subprocess.Popen(
        [sys.executable, "-c", JOIN.replace("WORK", work)],
        env=clean | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | described,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _two(**more: str) -> dict[str, str]:
    return {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **more}


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, but not RANK, MASTER_ADDR, MASTER_PORT"),
        (_two(RANK="2"), "expected whole numbers, and RANK below WORLD_SIZE"),
        (_two(RANK="one"), "expected whole numbers"),
        (_two(RANK="0", FACEDISTILL_TIMEOUT="soon"), "FACEDISTILL_TIMEOUT=soon: expected a number of minutes"),
    ],
)
def test_wrong_variables_are_wrong_usage(
    described: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _describe(described, monkeypatch)
    with pytest.raises(UsageError, match=re.escape(words)) as said, parallel.processes():
        pass
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("changes", [{"RANK": "0"}, {"RANK": "1"}, {"RANK": "1", "MASTER_ADDR": "nowhere.invalid"}])
def test_a_process_that_never_comes_is_not_waited_for_for_ever(
    changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 waits for rank 1; rank 1 for a rank 0 that is not there; an address that no machine has."""
    _describe(_two(FACEDISTILL_TIMEOUT="0.02") | changes, monkeypatch)
    began = time.monotonic()
    with pytest.raises(UserError, match="found not all of the 2 processes at") as said, parallel.processes():
        pass
    assert "\n" not in str(said.value) and time.monotonic() - began < 45


def _describe(described: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables in this process, which joins nobody: it is refused before."""
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)
    for name, value in described.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("waits", ["parallel.counts(torch.zeros(3))", "parallel.barrier()"])
def test_a_stopped_process_is_not_waited_for_for_ever(waits: str) -> None:
    work = f"import time, torch; print('joined', flush=True); time.sleep(2 * parallel.rank()); {waits}"
    more: dict[str, Any] = _two(FACEDISTILL_TIMEOUT="0.05")
    first, second = (_start(work, **more, RANK=str(rank)) for rank in range(2))
    try:
        assert second.stdout is not None and second.stdout.readline() == "joined\n"
        second.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        text = first.communicate(timeout=60)[0]
        assert first.returncode == 1 and "waited too long for another process" in text, text
        assert time.monotonic() - began < 45
    finally:
        second.kill()
