"""How much longer the quick demo takes beside busy loops, one a core, than alone: at most 2.5 times is the goal.

    python benchmarks/busy.py run
    python benchmarks/busy.py table

Two loops on two cores leave a process half of the machine, so it takes at least twice as long. What is above that is
lost to threads that spin while they wait. The demo is run as a user runs it: nothing about threads is set.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docs_table import put_table
from result_file import write_result

from facedistill import __version__
from facedistill.__main__ import cores
from facedistill.results import markdown

RESULTS = Path(__file__).parent / "results" / "busy.json"
THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "MKL_NUM_THREADS")


def seconds(loops: int) -> float:
    """Run the quick demo beside so many busy loops; return its seconds."""
    clean = {name: value for name, value in os.environ.items() if name not in THREADS}
    with ExitStack() as held:
        folder = held.enter_context(TemporaryDirectory())
        for _ in range(loops):
            loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            held.callback(loop.kill)
        words = [sys.executable, "-m", "facedistill", "demo", "--quick", "--out", str(Path(folder) / "demo")]
        began = time.perf_counter()
        subprocess.run(words, env=clean, check=True, stdout=subprocess.DEVNULL)
        return round(time.perf_counter() - began, 1)


def main(verb: str) -> None:
    if verb == "run":
        found = {"alone": seconds(0), "beside": seconds(cores())}
        write_result(RESULTS, {"version": __version__, "cores": cores(), "seconds": found})
    put_table("hardness.md", "busy", made := table(json.loads(RESULTS.read_text("utf-8"))))
    print(made)


def table(result: dict[str, Any]) -> str:
    alone, beside = result["seconds"]["alone"], result["seconds"]["beside"]
    row = [str(result["cores"]), f"{alone:.0f}", f"{beside:.0f}", f"{beside / alone:.2f}"]
    return markdown(["cores, and busy loops", "alone, s", "beside the loops, s", "times as long"], [row])


if __name__ == "__main__":
    main(sys.argv[1])
