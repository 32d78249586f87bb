"""The peak of memory is that since it was last forgotten."""

import numpy as np
import pytest

from facedistill import memory

MANY = 100 << 20  # bytes


def test_a_peak_is_seen_and_forgotten() -> None:
    if not memory.FORGET.exists():
        pytest.skip("a peak can be forgotten on Linux alone")
    memory.forget_peak()
    before = memory.peak()
    np.ones(MANY, dtype=np.uint8).sum()
    assert memory.peak() > before + 0.9 * MANY
    memory.forget_peak()
    assert memory.peak() < before + 0.5 * MANY
