"""The verbs that measure: evaluate, compare."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from facedistill.cli.app import Flag, Json, Many, Report, answer, app
from facedistill.errors import UsageError


@app.command(sort_key=7)
def evaluate(
    model: Path,
    /,
    *,
    on: Annotated[list[str], Many],
    against: Path | None = None,
    baseline: Path | None = None,
    protocol: Annotated[list[str] | None, Many] = None,
    gallery: str | None = None,
    distractors: str | None = None,
    flip: Literal["sum", "concat", "none"] = "sum",
    threshold: Literal["grid", "exact"] = "grid",
    far: Annotated[list[float] | None, Many] = None,
    resolution: Annotated[list[int] | None, Many] = None,
    blur: float = 0.0,
    jpeg: int | None = None,
    weight_by_norm: bool = True,
    weight_by_detector_score: bool = True,
    media_pooling: bool = True,
    save_threshold: Annotated[list[float] | None, Many] = None,
    json_: Json = None,
    report: Report = None,
    show_faces: Annotated[bool, Flag] = False,
) -> None:
    """Measure a model, alone or against another model's gallery.

    With --against, three comparisons are measured: student against student, student against a gallery that the teacher
    enrolled, and teacher against teacher.

    Examples:

    `facedistill evaluate teacher.onnx --on lfw.bin`

    `facedistill evaluate run --on lfw.bin photos --against teacher --report result.html --json result.json`

    `facedistill evaluate run --on IJBC --against teacher --far 1e-4 1e-5`

    `facedistill evaluate run --on probes --gallery enrolled --distractors strangers`

    `facedistill evaluate run --on lfw.bin --resolution 14 28 --against teacher`

    Parameters
    ----------
    model:
        A model folder, a run, or an .onnx.
    on:
        Sets of people who are not in the training data: verification .bin files, a folder of them (RFW), a .csv of two
        image paths and a label, the pairs.txt of LFW or XQLFW, data sets with class names, a folder of IJB-B, IJB-C,
        TinyFace or QMUL-SurvFace.
    against:
        The teacher.
    baseline:
        The same student trained without distillation. The result says whether the distilled student, against the
        teacher's gallery, beats it.
    protocol:
        Names from `facedistill list protocols`, or `package.module:Class`. [default: the usual protocol of each set]
    gallery:
        The images to enrol. --on then names the probes, which are matched by class name.
    distractors:
        Images of people who are never searched for, any number. They enlarge the gallery.
    flip:
        How the mirror image's embedding is used: added to the image's own, concatenated with it, or not computed.
    threshold:
        The thresholds that the ten folds try: insightface's grid (0.01 apart in squared distance), or all of them.
    far:
        False-accept rates to measure at. [default: those of --save-threshold, else the protocol's own]
    resolution:
        Measure again with images shrunk to this many pixels: the probes alone, then both sides.
    blur:
        With --resolution: blur before shrinking, sigma in pixels.
    jpeg:
        With --resolution: JPEG quality of the small image.
    weight_by_norm:
        Weight each image of a template by the norm of its embedding.
    weight_by_detector_score:
        Weight each image of a template by its detector score.
    media_pooling:
        Give a video the same weight in a template as a photo.
    save_threshold:
        False-accept rates. Their thresholds, measured on the first set, are saved in the model folder.
    json_:
        Also write the results to this file.
    report:
        Also write the results as one HTML file with plots.
    show_faces:
        Put the images of the worst errors into the report.
    """
    from facedistill.evaluation import EvaluationOptions, Resolution, evaluate as run, open_sets, thresholds_of
    from facedistill.files import cache_dir
    from facedistill.models import load_model, save_thresholds, thresholds_folder
    from facedistill.results import render_table, require as require_report

    if not on:
        raise UsageError("evaluate: --on needs a value, e.g. --on lfw.bin or --on photos")
    if show_faces and report is None:
        raise UsageError("evaluate: --show-faces puts images into the report; add --report result.html")
    if distractors is not None and gallery is None:
        raise UsageError("evaluate: --distractors are added to a gallery; name it with --gallery")
    if save_threshold:
        thresholds_folder(model)
    if report is not None:
        require_report()
    rates = sorted({*(far or []), *(save_threshold or [])}, reverse=True)
    options = EvaluationOptions(
        protocols=None if protocol is None else tuple(protocol),
        flip=flip,
        threshold=threshold,
        fars=tuple(rates) or None,
        resolutions=tuple(Resolution(pixels, blur, jpeg) for pixels in resolution or []),
        weight_by_norm=weight_by_norm,
        weight_by_detector_score=weight_by_detector_score,
        media_pooling=media_pooling,
        latency=report is not None,
        errors=show_faces,
        cache=cache_dir() / "embeddings",
    )
    named = {"model" if against is None else "student": model, "baseline": baseline, "teacher": against}
    paths = {name: path for name, path in named.items() if path is not None}
    models = {name: load_model(path) for name, path in paths.items()}
    sets = open_sets(on, gallery, distractors)
    result = run(models, sets, options, paths=paths)
    result["made"]["command"] = " ".join(["facedistill", *sys.argv[1:]])
    answer(render_table(result), json_, result)
    if save_threshold:
        save_thresholds(model, thresholds_of(result, models, save_threshold))
    if report is not None:
        from facedistill.evaluation import faces
        from facedistill.results import write_report

        write_report(result, report, faces=faces(result, sets) if show_faces else None)
        answer(f"{report}: open it in a browser", json_)


@app.command(sort_key=8)
def compare(
    runs: Annotated[list[Path], Many],
    /,
    *,
    to: Annotated[list[str] | None, Many] = None,
    json_: Json = None,
    report: Report = None,
) -> None:
    """Put the results of several runs side by side.

    The first table shows what each recipe reaches and costs, as the mean over its seeds; the next ones show every run.
    Rows keep the order given: nothing is ranked.

    Examples:

    `facedistill compare runs/scratch runs/proxylesskd --report comparison.html`

    `facedistill compare runs --to l2kd proxylesskd`

    Parameters
    ----------
    runs:
        Finished runs, folders of runs, files that `evaluate --json` wrote, or published figures.
    to:
        Recipes or methods. All others are compared with them, by paired intervals of the mean over seeds. Runs of
        several seeds count as one recipe, named as the runs are but without the seed.
    json_:
        Also write all results to this file.
    report:
        Also write the results as one HTML file with plots, training curves among them.
    """
    from facedistill.results import (
        differences_to,
        load_evaluations,
        load_logs,
        over_seeds,
        render_comparison,
        require as require_report,
        without_resamples,
    )

    if report is not None:
        require_report()
    evaluations = load_evaluations(runs)
    across, recipes = differences_to(evaluations, to or []), without_resamples(over_seeds(evaluations))
    evaluations = without_resamples(evaluations)
    content = {"schema": 1, "evaluations": evaluations, "recipes": recipes}
    answer(render_comparison(evaluations, across, recipes), json_, content | ({"differences": across} if to else {}))
    if report is not None:
        from facedistill.results import write_comparison

        write_comparison(evaluations, report, logs=load_logs(runs), across=across, recipes=recipes)
        answer(f"{report}: open it in a browser", json_)
