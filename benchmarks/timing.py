"""Latency of several things at once: in turns, so that other load on the machine falls on all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def medians(
    calls: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Milliseconds of each call, all in turns.

    Args:
        clock: `time.process_time` counts what this process computes, and not what others take from it in between.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 5):
        for name, call in calls.items():
            start = clock()
            call()
            if turn >= 5:
                times[name].append(1e3 * (clock() - start))
    return {name: round(statistics.median(values), 3) for name, values in times.items()}
