"""The command line: thin verbs that parse, call and print. Nothing heavy is imported before a verb runs."""

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import MissingArgumentError, UnknownOptionError

from facedistill import __version__
from facedistill.errors import UsageError, UserError, closest

if TYPE_CHECKING:
    from facedistill.recipe import Recipe

app = App(
    name="facedistill",
    version=__version__,
    help="Distil a strong face-recognition teacher into a small student that lives in the teacher's embedding "
    "space.\n\n`facedistill demo` shows the whole story; `facedistill VERB --help` shows an example of each verb.",
    help_format="markdown",
)

Many = Parameter(consume_multiple=True, negative="")
Flag = Parameter(negative="", show_default=False)
TABLES = (".rec", ".idx", ".parquet", ".tar", ".bin")  # data sets that are one file


@app.command(sort_key=1)
def demo(*, out: Path = Path("demo-run"), quick: Annotated[bool, Flag] = False) -> None:
    """The whole story on synthetic faces, in minutes.

    Trains a teacher and three students, measures them on people never seen in training, and prints one table.

    Example: `facedistill demo --out demo-run`

    Parameters
    ----------
    out:
        Folder for the faces, the models and the results. Run again, it does only what is missing.
    quick:
        Smaller and shorter: two minutes, and a weaker teacher.
    """
    from facedistill.demo import run_demo

    run_demo(out, quick)


@app.command(name="import", sort_key=2)
def import_(
    file: Path,
    /,
    *,
    out: Path,
    from_: Annotated[Literal["auto", "arcface_torch", "onnx", "embeddings"], Parameter(name="--from")] = "auto",
    classes: str | None = None,
    classifier: Annotated[list[Path] | None, Many] = None,
    colour: Literal["rgb", "bgr"] | None = None,
    mean: Annotated[list[float] | None, Many] = None,
    std: Annotated[list[float] | None, Many] = None,
    centre: str | None = None,
    fit_classifier: str | None = None,
    margin: str = "arcface",
    scale: float = 64.0,
) -> None:
    """Turn a checkpoint, ONNX file or embeddings into a model folder.

    Examples:

    `facedistill import arcface_run/ --classes names.txt --out teacher`

    `facedistill import backbone.pth --classifier softmax_fc_gpu_0.pt --out teacher`

    `facedistill import dlib.onnx --centre photos --fit-classifier photos --out teacher`

    Parameters
    ----------
    file:
        A state dict or run folder of arcface_torch (.pt, .pth), an .onnx, or an .npz of embeddings.
    out:
        The model folder to write.
    from_:
        What FILE is, where its name does not tell.
    classes:
        The name of every row of the classifier, in order: a text file with one name a line, or the teacher's own data
        set. Without it the rows are called 0, 1, 2, ...
    classifier:
        The file or the per-rank shards that hold the classifier, where they do not lie beside the network.
    colour:
        The channel order that the network was trained with. [default: rgb]
    mean:
        Subtracted from pixels 0..255: one number, or three.
    std:
        Divided by after that: one number, or three. [default: 127.5 and 127.5 for arcface_torch, 0 and 1 for ONNX]
    centre:
        A data set whose mean embedding becomes the origin of the space. For teachers whose embeddings lie in a narrow
        cone: `check` says so.
    fit_classifier:
        A data set on whose embeddings a classifier is trained while the network stays as it is. Minutes.
    margin:
        The margin of --fit-classifier (`facedistill list margins`).
    scale:
        The scale of --fit-classifier.
    """
    from facedistill import starts
    from facedistill.data.dataset import open_dataset, open_source
    from facedistill.embed import embed_dataset
    from facedistill.files import cache_dir
    from facedistill.importers import import_model
    from facedistill.model import save_model
    from facedistill.show import describe_model
    from facedistill.terms.margin_softmax import make_margin

    names: Any = classes
    if classes is not None and (not Path(classes).is_file() or Path(classes).suffix.lower() in TABLES):
        names = open_source(classes).class_names  # also those without an image: W may have a row for them
    paths: Any = classifier[0] if classifier and len(classifier) == 1 else classifier
    model = import_model(file, from_, names, paths, colour, mean, std)
    cache = cache_dir() / "embeddings"
    if centre is not None:
        import torch

        embeddings = embed_dataset(model, open_dataset(centre), cache=cache)
        if model.classifier is not None:
            print(
                "--centre makes a new space: the classifier that came with the teacher belongs to the old one, left out"
            )
        model.subtract_mean(torch.from_numpy(embeddings.vectors.mean((0, 1))))
    if fit_classifier is not None:
        embeddings = embed_dataset(model, open_dataset(fit_classifier), cache=cache)
        model.classifier = starts.fit_classifier(embeddings, make_margin(margin), scale)
    save_model(model, out)
    print(describe_model(out))


@app.command(sort_key=3)
def check(
    model: Path,
    /,
    *,
    data: str,
    against: Path | None = None,
    margin: str = "arcface",
    scale: float = 64.0,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Do teacher and data fit? May the student probe that gallery?

    Before training: do the classifier, its class order, the colours and the pixel scale belong to this data? With
    --against, before use: is the student in the teacher's space? Exit code 1 when the check fails.

    Examples:

    `facedistill check teacher --data photos`

    `facedistill check student --against teacher --data photos`

    Parameters
    ----------
    model:
        The teacher; with --against the student.
    data:
        The images that a student is to be trained on, or any others with class names.
    against:
        The teacher whose gallery the student is to probe.
    margin:
        The margin that the student is to be trained with (`facedistill list margins`).
    scale:
        The scale that the student is to be trained with.
    json_:
        Also write all measurements to this file.
    """
    from facedistill.check import check_student, check_teacher
    from facedistill.data.dataset import open_dataset
    from facedistill.files import cache_dir
    from facedistill.model import load_model
    from facedistill.terms.margin_softmax import make_margin

    dataset = open_dataset(data)
    if against is not None:
        report = check_student(load_model(model), load_model(against), dataset)
    else:
        cache = cache_dir() / "embeddings"
        report = check_teacher(load_model(model), dataset, make_margin(margin), scale, cache=cache)
    print(report.text())
    _write_json(json_, report.to_json())
    if not report.passed:
        raise SystemExit(1)


@app.command(sort_key=5)
def train(recipe: str, /, *overrides: str, out: Path) -> None:
    """Train by a recipe: a teacher, or any method's student.

    Run again with the same recipe, it goes on where it stopped. A shipped recipe runs as it stands, on synthetic faces
    and with the demo's teacher.

    Examples:

    `facedistill train proxylesskd --out run`

    `facedistill train recipe.yaml --out run schedule.epochs=20 method.terms.margin_softmax.scale=32`

    `torchrun --nproc-per-node=4 -m facedistill train recipe.yaml --out run`

    Parameters
    ----------
    recipe:
        A YAML file, or the name of a shipped recipe (`facedistill list recipes`).
    overrides:
        key=value: change the recipe, e.g. schedule.epochs=20.
    out:
        The folder of the run: recipe, log, checkpoints, model, evaluation.
    """
    from facedistill.recipe import load_recipe

    _train(load_recipe(recipe, overrides), out)


@app.command(sort_key=4)
def distill(
    *overrides: str, teacher: Path, data: str, student: str = "mobilefacenet", out: Path, method: str | None = None
) -> None:
    """Distil a student from a teacher: check, train, evaluate.

    A tenth of the identities is held out for the evaluation (data.hold_out). A teacher that brings no classifier for
    these classes gets one made of class centres; the result says so. Where identities are few and no method is named,
    it says what did better there. Run again with the same arguments, it goes on where it stopped.

    Example: `facedistill distill --teacher teacher.onnx --data photos --out run student.options.width=0.5`

    Parameters
    ----------
    overrides:
        key=value: change the recipe, e.g. schedule.epochs=20.
    teacher:
        A model folder, a run, or an .onnx.
    data:
        The images to train on, with class names.
    student:
        The network (`facedistill list backbones`).
    out:
        The folder of the run: recipe, log, checkpoints, model, evaluation.
    method:
        How to distil (`facedistill list methods`). [default: proxylesskd]
    """
    from facedistill.distill import prepare

    _train(prepare(teacher, data, student, out, method, overrides), out)


@app.command(sort_key=6)
def sweep(*recipes: str, out: Path, plan: Annotated[bool, Flag] = False) -> None:
    """Train every combination of recipes and values, each in a folder of its own.

    What is finished is skipped, what was begun goes on; started several times at once, the processes share the work.
    `facedistill compare OUT` then puts the results side by side.

    Example: `facedistill sweep l2kd proxylesskd --out runs seed=0,1,2 schedule.lr=0.3,1 schedule.epochs=20`

    Parameters
    ----------
    recipes:
        YAML files or shipped recipes, and key=value,value: a run for each value.
    out:
        The folder of the runs.
    plan:
        Only print the runs and the hours they would take, from measured images per second.
    """
    from facedistill import sweep as sweeping

    files = [text for text in recipes if "=" not in text]
    if not files:
        raise UsageError("sweep: RECIPES needs a value, e.g. facedistill sweep l2kd proxylesskd --out runs seed=0,1")
    runs = sweeping.combinations(files, [text for text in recipes if "=" in text])
    for recipe in runs.values():
        _with_teachers(recipe)
    if plan:
        print(sweeping.plan(runs, out))
    else:
        sweeping.sweep(runs, out)


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
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    report: Path | None = None,
    show_faces: Annotated[bool, Flag] = False,
) -> None:
    """Measure a model, also against another model's gallery.

    With --against: student against student, student against a gallery that the teacher enrolled, teacher against
    teacher.

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
        Of people not trained on: verification .bin files, a folder of them (RFW), a .csv of two image paths and a
        label, data sets with class names, an IJB-B, IJB-C or TinyFace folder.
    against:
        The teacher.
    baseline:
        The same student without distillation: does the student against the teacher's gallery beat it?
    protocol:
        pairs, all-pairs, identification, retrieval, classification, "templates 1:1", "templates 1:N". [default: what is
        usual for each set]
    gallery:
        Who is enrolled; --on then names the probes, matched by class name.
    distractors:
        Images of nobody who is looked for, added to the gallery; as many as you like.
    flip:
        What is done with the mirrored image's embedding: it is added, joined on, or not made.
    threshold:
        Which thresholds the ten folds try: insightface's grid of 0.01 in squared distance, or every one.
    far:
        False-accept rates to measure at. [default: those of --save-threshold, else the protocol's own]
    resolution:
        Measure again with images shrunk to so many pixels, the probes alone and both sides.
    blur:
        With --resolution: blur before shrinking, sigma in pixels.
    jpeg:
        With --resolution: JPEG quality of the small image.
    weight_by_norm:
        Templates: let an image weigh by the length of its embedding.
    weight_by_detector_score:
        Templates: let an image weigh by its detector score.
    media_pooling:
        Templates: let a video weigh like a photo.
    save_threshold:
        False-accept rates whose thresholds are written into the model folder, as measured on the first set.
    json_:
        Also write the results to this file.
    report:
        Also write them as a page to read: one HTML file with plots.
    show_faces:
        Put the images of the worst errors into the report.
    """
    from facedistill.evaluation import evaluate as run
    from facedistill.evaluation import open_sets, render_table
    from facedistill.evaluation.calibration import thresholds_of
    from facedistill.evaluation.sets import Resolution
    from facedistill.files import cache_dir
    from facedistill.model import load_model, save_thresholds, thresholds_folder
    from facedistill.report import require as require_report

    if not on:
        raise UsageError("evaluate: --on needs a value, e.g. --on lfw.bin or --on photos")
    if show_faces and report is None:
        raise UsageError("evaluate: --show-faces shows them in the report; add --report result.html")
    if distractors is not None and gallery is None:
        raise UsageError("evaluate: --distractors are added to a gallery; name it with --gallery")
    if save_threshold:
        thresholds_folder(model)
    if report is not None:
        require_report()
    named = {"model" if against is None else "student": model, "baseline": baseline, "teacher": against}
    paths = {name: path for name, path in named.items() if path is not None}
    models = {name: load_model(path) for name, path in paths.items()}
    sets = open_sets(on, gallery, distractors)
    result = run(
        models,
        sets,
        protocols=protocol,
        flip=flip,
        threshold=threshold,
        fars=sorted({*(far or []), *(save_threshold or [])}, reverse=True) or None,
        resolutions=[Resolution(pixels, blur, jpeg) for pixels in resolution or []],
        cache=cache_dir() / "embeddings",
        paths=paths,
        latency=report is not None,
        errors=show_faces,
        weight_by_norm=weight_by_norm,
        weight_by_detector_score=weight_by_detector_score,
        media_pooling=media_pooling,
    )
    result["made"]["command"] = " ".join(["facedistill", *sys.argv[1:]])
    print(render_table(result))
    _write_json(json_, result)
    if save_threshold:
        save_thresholds(model, thresholds_of(result, models, save_threshold))
    if report is not None:
        from facedistill.evaluation.run import faces
        from facedistill.report import write_report

        write_report(result, report, faces=faces(result, sets) if show_faces else None)
        print(f"{report}: open it in a browser")


@app.command(sort_key=8)
def compare(
    runs: Annotated[list[Path], Many],
    /,
    *,
    to: Annotated[list[str] | None, Many] = None,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    report: Path | None = None,
) -> None:
    """Put the results of several runs side by side.

    First one table of what each recipe reaches and costs, the mean over its seeds; then every run. In the order given:
    nothing is ranked.

    Examples:

    `facedistill compare runs/scratch runs/proxylesskd --report comparison.html`

    `facedistill compare runs --to l2kd proxylesskd`

    Parameters
    ----------
    runs:
        Finished runs, folders of runs, files that `evaluate --json` wrote, or published figures.
    to:
        Recipes (runs of several seeds count as one, by their name without the seed) or methods: how all others differ
        from them, with paired intervals of the mean over seeds.
    json_:
        Also write all of it to this file.
    report:
        Also write it as a page to read: one HTML file with plots, training curves among them.
    """
    from facedistill.evaluation import render_comparison
    from facedistill.evaluation.across_runs import differences_to, over_seeds
    from facedistill.evaluation.stored import load_evaluations, load_logs, without_resamples
    from facedistill.report import require as require_report

    if report is not None:
        require_report()
    evaluations = load_evaluations(runs)
    across, recipes = differences_to(evaluations, to or []), without_resamples(over_seeds(evaluations))
    evaluations = without_resamples(evaluations)
    print(render_comparison(evaluations, across, recipes))
    content = {"schema": 1, "evaluations": evaluations, "recipes": recipes}
    _write_json(json_, content | ({"differences": across} if to else {}))
    if report is not None:
        from facedistill.report import write_comparison

        write_comparison(evaluations, report, logs=load_logs(runs), across=across, recipes=recipes)
        print(f"{report}: open it in a browser")


@app.command(sort_key=9)
def embed(model: Path, images: str, /, *, out: Path) -> None:
    """Embed every image of a data set into one table.

    Both the image and its mirror image are embedded.

    Example: `facedistill embed teacher photos --out photos.npz`

    Parameters
    ----------
    model:
        A model folder, a run, or an .onnx.
    images:
        A data set.
    out:
        The .npz to write: keys, class_names, labels, and vectors (N, 2, d) as the network gives them, not normalised.
    """
    from facedistill.data.dataset import open_dataset
    from facedistill.embed import embed_dataset
    from facedistill.model import load_model

    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: expected a name that ends in .npz")
    dataset = open_dataset(images)
    embeddings = embed_dataset(load_model(model), dataset)
    embeddings.save(out)
    left = f", {len(dataset.unreadable)} unreadable left out" if dataset.unreadable else ""
    print(f"{out}: {len(embeddings):,} images of {len(embeddings.class_names):,} classes{left}")


@app.command(sort_key=10)
def show(path: str, /) -> None:
    """Say what a model, run, data set or table of embeddings is.

    Example: `facedistill show run`

    Parameters
    ----------
    path:
        A model folder, a run, an .onnx, an .npz of embeddings, or whatever holds images.
    """
    from facedistill.show import describe

    print(describe(path))


@app.command(name="list", sort_key=11)
def list_(what: str, /) -> None:
    """Name the methods, terms, backbones, margins or recipes.

    Example: `facedistill list methods`

    Parameters
    ----------
    what:
        methods, terms, backbones, margins or recipes.
    """
    from facedistill.listing import listing

    print(listing(what))


def _train(recipe: "Recipe", out: Path) -> None:
    """Train, with the demo's teacher where the recipe names none, and print the result."""
    from facedistill.engine import train as run

    _with_teachers(recipe)
    run(recipe, out)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        show(str(out))


def _with_teachers(recipe: "Recipe") -> None:
    """Let the demo's teacher stand in where the recipe names none.

    Raises UsageError where it names others than its method asks for.
    """
    from facedistill.methods import missing_teachers
    from facedistill.recipe import TeacherSpec

    if missing := missing_teachers(recipe):
        if given := list(recipe.teachers):
            raise UsageError(
                f"teachers.{given[0]}{closest(given[0], missing)}: method {recipe.method.name} asks for "
                f"{', '.join(missing)} too; the recipe has: {', '.join(given)}"
            )
        from facedistill.demo import demo_teacher

        recipe.teachers = {name: TeacherSpec(str(demo_teacher())) for name in missing}


def _write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    from facedistill.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: `arguments`, or those of the process. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes; stderr does so by itself
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as e:
        print(f"facedistill: {_explain(e)}", file=sys.stderr)
        raise SystemExit(2) from None
    except UserError as e:
        print(f"facedistill: {' '.join(str(e).split())}", file=sys.stderr)  # one line, whatever a library wrote
        raise SystemExit(e.exit_code) from None
    except OSError as e:
        print(f"facedistill: {e.filename or 'a file'}: {e.strerror or e}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("facedistill: stopped", file=sys.stderr)
        raise SystemExit(130) from None


def _explain(error: CycloptsError) -> str:
    """One line for a command line that cannot be parsed, with what to do."""
    verb = " ".join(["facedistill", *(error.command_chain or ())])
    text = " ".join(str(error).split()).rstrip(".?")
    if error.unused_tokens and not isinstance(error, UnknownOptionError):
        first, known = error.unused_tokens[0], [name for name in app if not name.startswith("-")]
        unknown = f"unknown verb '{first}'{closest(first, known)}; expected one of {', '.join(known)}"
        text = f"unexpected argument '{first}'" if error.command_chain else unknown
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        text = f"{error.argument.name} needs a value"
    return f"{text}; `{verb} --help` shows an example"


if __name__ == "__main__":
    main()
