"""The verbs on the way to a device: export, bench."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from facedistill.cli.app import File, Json, Many, Report, answer, app


@app.command(sort_key=8.5)
def export(
    model: Path,
    /,
    *,
    to: str,
    out: File,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    calibrate: str | None = None,
    verify: str | None = None,
    against: Path | None = None,
    batch: int | Literal["dynamic"] | None = None,
    layout: Literal["nchw", "nhwc"] = "nchw",
    pixels: Literal["uint8", "float32"] = "uint8",
    normalise: bool = True,
    json_: Json = None,
) -> None:
    """Write a model as one file for a device, proven equal to the model.

    Colour order, normalisation, projection, offset and unit length are inside the file; the device crops faces at the
    input size. The file is run in the target's own runtime and compared with the model before it gets its name. Exit
    code 1 if it fails: then it lies under another name, for study.

    Examples:

    `facedistill export run --to onnx --out student.onnx`

    `facedistill export run --to onnx --precision int8 --calibrate photos --out student.onnx`

    `facedistill export run --to onnx --out student.onnx --verify lfw.bin --against teacher`

    Parameters
    ----------
    model:
        A model folder or a run.
    to:
        onnx, litert, executorch, or package.module:Class.
    out:
        The file to write: .onnx, .tflite or .pte.
    precision:
        Of weights and arithmetic.
    calibrate:
        Images for int8, of people who are not in --verify; 256 of them are used.
    verify:
        A set on which TAR at FAR 1e-4 is compared with the model's: at most 1 point lower.
    against:
        The teacher: --verify then also compares the file against the teacher's gallery, at the teacher's threshold.
    batch:
        Images at a time: a number, or dynamic. [default: dynamic for onnx, 1 for the others]
    layout:
        nchw: N x 3 x H x W. nhwc: N x H x W x 3, LiteRT's habit.
    pixels:
        The type of the input, RGB 0..255.
    normalise:
        Embeddings leave the file with unit length.
    json_:
        Also write what was made and measured to this file.
    """
    from facedistill.export import export_model

    made = export_model(
        model,
        to,
        out,
        precision=precision,
        calibrate=calibrate,
        verify=verify,
        against=against,
        batch=batch,
        layout=layout,
        pixels=pixels,
        normalise=normalise,
    )
    what = f"{made.path}: {made.bytes / 1e6:.2f} MB, {to}, {precision}, input {made.input}"
    answer(f"{made.gate.text()}\n{what}", json_, made.to_json())
    if not made.gate.passed:
        raise SystemExit(1)


@app.command(sort_key=8.6)
def bench(
    contestants: Annotated[list[Path], Many],
    /,
    *,
    evaluation: Annotated[list[Path] | None, Many] = None,
    threads: Annotated[list[int] | None, Many] = None,
    rounds: int = 20,
    compiled: Annotated[bool, Parameter(negative="--no-compiled")] = True,
    json_: Json = None,
    report: Report = None,
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
    answer(render_bench(result), json_, result)
    if report is not None:
        from facedistill.results import write_bench

        write_bench(result, report)
        answer(f"{report}: open it in a browser", json_)
