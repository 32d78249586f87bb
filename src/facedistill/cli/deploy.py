"""The verbs about files for devices: bench."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from facedistill.cli.app import Many, app, write_json


@app.command(sort_key=13)
def bench(
    contestants: Annotated[list[Path], Many],
    /,
    *,
    evaluation: Annotated[list[Path] | None, Many] = None,
    threads: Annotated[list[int] | None, Many] = None,
    rounds: int = 20,
    compiled: Annotated[bool, Parameter(negative="--no-compiled")] = True,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    report: Path | None = None,
) -> None:
    """Measure latency, throughput, size and memory of models and exported files.

    On this machine's CPU, each contestant in a process of its own, in turns. A model runs in PyTorch, as it is and
    compiled; a file in its own runtime.

    Example: `facedistill bench run student.onnx student.tflite --report bench.html`

    Parameters
    ----------
    contestants:
        Model folders, runs, .onnx, .tflite and .pte files.
    evaluation:
        Files of `evaluate --json` that measure contestants: their accuracy stands beside the cost. A run's own is
        found.
    threads:
        Numbers of threads. [default: 1, and all]
    rounds:
        Turns of each contestant, up to 10 images each.
    compiled:
        Also compile each model.
    json_:
        Also write all measurements to this file.
    report:
        Also write them as a page to read: one HTML file.
    """
    from facedistill.export import bench as run
    from facedistill.results import render_bench, require as require_report

    if report is not None:
        require_report()
    result = run(contestants, evaluations=evaluation or (), threads=threads, rounds=rounds, compiled=compiled)
    result["made"]["command"] = " ".join(["facedistill", *sys.argv[1:]])
    print(render_bench(result))
    write_json(json_, result)
    if report is not None:
        from facedistill.results import write_bench

        write_bench(result, report)
        print(f"{report}: open it in a browser")
