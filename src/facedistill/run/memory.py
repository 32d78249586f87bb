"""The peak memory of this process: on the GPU if there is one, else in total."""

import sys
from contextlib import suppress
from pathlib import Path

import torch

from facedistill import parallel
from facedistill.heap import give_back_freed_memory

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux


def forget_peak() -> None:
    """Restart the measurement, because one process may train several runs. On a CPU this needs Linux."""
    if parallel.device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    give_back_freed_memory()
    with suppress(OSError):
        FORGET.write_text("5")


def peak() -> int:
    """Return the peak in bytes since `forget_peak`."""
    if parallel.device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    if found := [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]:
        return 1024 * found[0]
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
