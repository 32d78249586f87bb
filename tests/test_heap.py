"""Freed memory stays with the process, so that the next step does not ask the kernel for it again."""

import platform
import subprocess
import sys

import pytest

# Blocks of 48 MB, as large activations are: how often the kernel has to give a page while they come and go.
SCRIPT = """
import resource
import sys
import torch
from facedistill.heap import give_back_freed_memory, keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
if sys.argv[1] == "kept":
    assert keep_freed_memory() and keep_freed_memory()
for _ in range(20):
    torch.ones(12 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident()
give_back_freed_memory()
print(faults, held - resident())
"""


def _ran(how: str) -> tuple[int, int]:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    faults, given_back = map(int, ran.stdout.split())
    return faults, given_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_large_blocks_are_taken_again_without_the_kernel_and_given_back_when_asked() -> None:
    (without, _), (faults, given_back) = _ran("given"), _ran("kept")
    assert faults * 10 < without
    assert given_back > 40
