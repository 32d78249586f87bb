"""The peak of memory is that since it was last forgotten."""

import subprocess
import sys
from pathlib import Path

import pytest

from facedistill.run import memory

# In a process of its own: in this one the memory that earlier tests freed may be taken again, and nothing rises.
SCRIPT = """
import numpy as np
from facedistill.run import memory
memory.forget_peak()
before = memory.peak()
np.ones(200 << 20, dtype=np.uint8).sum()
during = memory.peak()
memory.forget_peak()
print((during - before) >> 20, (memory.peak() - before) >> 20)
"""


def test_a_peak_is_seen_and_forgotten() -> None:
    try:
        memory.FORGET.write_text("5")
    except OSError:
        pytest.skip("a peak can be forgotten only where Linux lets the process write to its clear_refs")
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    rise, left = map(int, ran.stdout.split())
    assert 180 < rise < 300 and left < 100


def test_without_the_line_in_proc_there_is_still_a_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("VmRSS: 1 kB\n")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory.peak() > 1 << 20
