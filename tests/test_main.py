"""Threads on a machine that is shared: as many as there are cores for this process, and none that waits busily."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facedistill import __main__ as start


@pytest.mark.parametrize(
    ("quota", "affinity", "threads"),
    [
        ("max 100000", 8, None),
        ("200000 100000", 8, "2"),
        ("150000 100000", 8, "1"),
        ("50000 100000", 8, "1"),
        ("1600000 100000", 3, "3"),
        ("damaged", 8, None),
        (None, 1, "1"),
    ],
)
def test_no_more_threads_than_cores(
    quota: str | None, affinity: int, threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(start, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity)), raising=False)
    assert start.thread_settings().get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}])
def test_they_are_set_before_torch_is_imported_unless_the_user_did(given: dict[str, str]) -> None:
    """An empty module stands for torch: what it finds in the environment is what the real one would read."""
    code = (
        "import os, sys, types\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('OMP_NUM_THREADS'))\n"
        "            raise SystemExit\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['facedistill', 'list', 'backbones']\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from facedistill.__main__ import main\n"
        "main()\n"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=clean | given, capture_output=True, text=True)
    expected = "ACTIVE 7" if given else f"PASSIVE {'1' if (os.cpu_count() or 1) > 1 else None}"
    assert done.stdout.strip().splitlines()[-1] == expected, done.stderr
