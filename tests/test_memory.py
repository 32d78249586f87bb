"""The peak of memory is that since it was last forgotten."""

from pathlib import Path

import numpy as np
import pytest

from facedistill import memory

MANY = 100 << 20  # bytes


def test_without_the_line_in_proc_there_is_still_a_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("VmRSS: 1 kB\n")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory.peak() > 1 << 20


def test_a_peak_is_seen_and_forgotten() -> None:
    if not memory.FORGET.exists():
        pytest.skip("a peak can be forgotten on Linux alone")
    memory.forget_peak()
    before = memory.peak()
    np.ones(MANY, dtype=np.uint8).sum()
    assert memory.peak() > before + 0.9 * MANY
    memory.forget_peak()
    assert memory.peak() < before + 0.5 * MANY
