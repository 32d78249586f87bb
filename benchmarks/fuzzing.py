"""Reads mutants of every format that the program reads, and counts what became of them.

PYTHONPATH=tests/toys python benchmarks/fuzzing.py 100000 [FORMAT ...]

The children, their limits and the faults are those of tests/toys/fuzz. A fault leaves its mutant in fuzz-faults/ and is
printed; the exit code is 1. Counts go to results/fuzz.json, from which the page is made; those of formats that are not
named stay as they are.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docs_table import put_table
from result_file import write_result

from facedistill.progress import say
from facedistill.results import markdown

RESULT = Path(__file__).parent / "results" / "fuzz.json"
FAULTS = Path("fuzz-faults")
PAGE = "hardness.md"
BLOCK = 200  # mutants of a child


def shares(weights: dict[str, int], total: int) -> dict[str, int]:
    """Divide a number of mutants by weight; none gets less than one."""
    whole = sum(weights.values())
    return {name: max(1, round(total * weight / whole)) for name, weight in weights.items()}


def main(total: int, names: Sequence[str]) -> int:
    from fuzz.children import FAULTS as KINDS, Corpus, Tally
    from fuzz.corpus import FORMATS

    chosen = {name: form for name, form in FORMATS.items() if not names or name in names}
    rows: dict[str, dict[str, int]] = {}
    began, faults = time.perf_counter(), 0
    for name, count in shares({name: form.weight for name, form in chosen.items()}, total).items():
        with TemporaryDirectory() as folder:
            corpus, tally = Corpus(name, chosen[name], Path(folder)), Tally()
            for start in range(0, count, BLOCK):
                for number, outcome in corpus.run(range(start, min(count, start + BLOCK))):
                    tally.add(number, outcome)
            for number, outcome in tally.faults:
                file, content = corpus.mutant(number)
                place = FAULTS / f"{name} {number} {outcome.kind} {Path(file).name}".replace("/", "-")
                FAULTS.mkdir(exist_ok=True)
                place.write_bytes(content)
                say(f"{place}: {outcome.text}")
        rows[name] = dict(tally.counts)
        faults += len(tally.faults)
        said = ", ".join(f"{tally.counts[kind]:,} {kind}" for kind in ("accepted", "refused", *KINDS))
        say(f"{name}: {count:,} mutants in {time.perf_counter() - began:,.0f} s so far: {said}")
    known = json.loads(RESULT.read_text("utf-8"))["formats"] if RESULT.exists() else {}
    rows = {name: rows.get(name, known.get(name, {})) for name in FORMATS}
    write_result(RESULT, {"mutants": sum(map(sum, map(dict.values, rows.values()))), "formats": rows})
    put_table(PAGE, "fuzz", table(json.loads(RESULT.read_text("utf-8"))))
    return 1 if faults else 0


def table(result: dict[str, Any]) -> str:
    """Return the counts, a row for each format."""
    kinds = ("accepted", "refused", "code run", "crash", "hang", "memory", "traceback", "silent")
    of = result["formats"]
    rows = [
        [name, f"{sum(counts.values()):,}", *(f"{counts.get(kind, 0):,}" for kind in kinds)]
        for name, counts in of.items()
    ]
    total = [f"{sum(counts.get(kind, 0) for counts in of.values()):,}" for kind in kinds]
    return markdown(["format", "mutants", *kinds], [*rows, ["all", f"{result['mutants']:,}", *total]])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
