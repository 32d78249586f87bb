"""What networks took on this machine: `bench` notes it in the cache folder, `list backbones` shows it."""

import json
import platform
from contextlib import suppress
from pathlib import Path

from facedistill.backbones.costs import COSTS
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir

LIKE = 0.01  # a network with options or a size of its own has other multiply-adds than its row of COSTS


def note_latency(network: str, macs: int, ms: float) -> None:
    """Note the milliseconds of one image on one thread, if the network is that of its row in COSTS.

    Args:
        network: its name in BACKBONES. macs: of the model that was measured.

    A cache folder that cannot be written is no error: the measurement stands elsewhere too.
    """
    cost = COSTS.get(network)
    if cost is None or abs(macs / 1e6 - cost.macs) > LIKE * cost.macs:
        return
    with suppress(UserError, OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        with atomic_write(_folder() / f"{network}.json") as temporary:
            temporary.write_text(json.dumps({"processor": processor(), "ms": ms}), encoding="utf-8")


def noted_latency(network: str) -> float | None:
    """Return what `note_latency` noted on a processor of this kind; None without a note, or if it is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        noted = json.loads((_folder() / f"{network}.json").read_bytes())
        if isinstance(noted, dict) and noted.get("processor") == processor() and type(noted.get("ms")) is float:
            return float(noted["ms"])
    return None


def processor() -> str:
    """Return the name of this machine's processor."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        if found := next((line for line in lines if line.startswith("model name")), ""):
            return found.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _folder() -> Path:
    return cache_dir() / "latency"
