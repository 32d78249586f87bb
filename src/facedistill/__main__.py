"""`python -m facedistill`, and the command `facedistill`."""

import os
import sys
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of a processor in a period, and the period


def main() -> None:
    """Run the command line. Threads wait without work, so that a busy machine keeps its speed."""
    for name, value in thread_settings().items():
        os.environ.setdefault(name, value)  # read when torch is imported
    try:
        from facedistill.cli import main as run
    except KeyboardInterrupt:
        print("facedistill: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    run()


def thread_settings() -> dict[str, str]:
    """Return OpenMP's variables: passive waiting, and no more threads than cores that this process may use.

    The number does not follow the load of the machine: a run that resumes with another number of threads adds in
    another order, and ends with other bits.
    """
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    there, mine = os.cpu_count() or 1, cores()
    return passive | ({"OMP_NUM_THREADS": str(mine)} if mine < there else {})


def cores() -> int:
    """Return the number of cores that this process may use: its affinity and its container's quota limit it."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(mine, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no container, or "max": no limit
        return mine


if __name__ == "__main__":
    main()
