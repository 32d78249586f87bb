"""The demo's table in docs/demo.md: run the demo, count its CPU seconds, keep its figures.

    python benchmarks/demo.py [--out DIR]

On a shared machine, set OMP_NUM_THREADS=1 and read the printed CPU seconds: they vary less than wall time.
"""

import argparse
import json
import resource
import subprocess
import time
from pathlib import Path

import torch
from docs_table import put_table
from result_file import write_result

from facedistill.demo import FULL, render, run_demo

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "demo.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-run"))
    parser.add_argument("--table", action="store_true", help="only write the table from the JSON again")
    args = parser.parse_args()
    if not args.table:
        if args.out.exists():
            parser.error(f"{args.out} exists; a demo that goes on measures nothing")
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        began = time.time()
        found = run_demo(args.out)
        used = resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "schema": 1,
            "command": "benchmarks/demo.py",
            "commit": commit.stdout.strip(),
            "threads": torch.get_num_threads(),
            "cpu_seconds": round(used.ru_utime + used.ru_stime),
            "wall_seconds": round(time.time() - began),
            "images_per_second": {
                name: json.loads((args.out / name / "log.jsonl").read_text("utf-8").splitlines()[-1])[
                    "images_per_second"
                ]
                for name in found["runs"]
            },
            "demo": found,
        }
        write_result(RESULTS, result)
    put_table("demo.md", "demo", render(json.loads(RESULTS.read_text("utf-8"))["demo"]["runs"], FULL))


if __name__ == "__main__":
    main()
