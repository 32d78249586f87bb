"""The command line: thin verbs that parse, call and print. Nothing heavy is imported before a verb runs."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from facedistill import __version__
from facedistill.errors import UsageError, UserError, closest

if TYPE_CHECKING:
    from facedistill.margins import Margin
    from facedistill.model import Model
    from facedistill.recipe import Recipe

app = App(
    name="facedistill",
    version=__version__,
    help="Distil a strong face-recognition teacher into a small student that lives in the teacher's embedding space.",
    help_format="markdown",
)

Many = Parameter(consume_multiple=True, negative="")
Flag = Parameter(negative="")


@app.command
def demo(*, out: Path = Path("demo-run"), quick: Annotated[bool, Flag] = False) -> None:
    """Run the whole story on synthetic faces: a teacher, three students, one table. Minutes on a laptop's CPU.

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


@app.command(name="import")
def import_(
    file: Path,
    /,
    *,
    out: Path,
    from_: Annotated[str, Parameter(name="--from")] = "auto",
    classes: str | None = None,
    classifier: Annotated[list[Path] | None, Many] = None,
    colour: str | None = None,
    mean: Annotated[list[float] | None, Many] = None,
    std: Annotated[list[float] | None, Many] = None,
    centre: str | None = None,
    fit_classifier: str | None = None,
    margin: str = "arcface",
    scale: float = 64.0,
) -> None:
    """Make a model folder of another tool's checkpoint, an ONNX file or a table of embeddings.

    Examples:

    `facedistill import backbone.pth --classifier softmax_fc_gpu_*.pt --out teacher`

    `facedistill import dlib.onnx --centre photos --fit-classifier photos --out teacher`

    Parameters
    ----------
    file:
        arcface_torch state dict or run folder (.pt, .pth), .onnx, or .npz of embeddings.
    out:
        The model folder that is written.
    from_:
        auto, arcface_torch, onnx or embeddings.
    classes:
        The name of every row of W, in order: a text file with one name a line, or a data set.
    classifier:
        File or per-rank shards that hold W, where they are not found beside the backbone.
    colour:
        rgb or bgr: the order that the network expects.
    mean:
        Subtracted from pixels 0..255; one number or three.
    std:
        Divided by; one number or three.
    centre:
        Data whose mean embedding becomes the origin of the space: for teachers whose embeddings lie in a narrow cone.
    fit_classifier:
        Data on whose embeddings a classifier is trained, the teacher frozen. Minutes.
    margin:
        Margin softmax of --fit-classifier.
    scale:
        Its scale.
    """
    from facedistill import starts
    from facedistill.data.dataset import open_dataset
    from facedistill.embed import embed_dataset
    from facedistill.files import cache_dir
    from facedistill.importers import import_model
    from facedistill.model import save_model
    from facedistill.terms.margin_softmax import make_margin

    names: Any = classes
    if classes is not None and not Path(classes).is_file():
        names = open_dataset(classes).class_names
    paths: Any = classifier[0] if classifier and len(classifier) == 1 else classifier
    model = import_model(file, from_, names, paths, colour, mean, std)
    cache = cache_dir() / "embeddings"
    if centre is not None:
        import torch

        embeddings = embed_dataset(model, open_dataset(centre), cache=cache)
        model.subtract_mean(torch.from_numpy(embeddings.vectors.mean((0, 1))))
    if fit_classifier is not None:
        embeddings = embed_dataset(model, open_dataset(fit_classifier), cache=cache)
        model.classifier = starts.fit_classifier(embeddings, make_margin(margin), scale)
    save_model(model, out)
    _print_model(out)


@app.command
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
    """Before training: does a teacher's classifier belong to this data? Before use: may a student probe that gallery?

    Exit code 1 when the check fails.

    Examples:

    `facedistill check teacher --data photos`

    `facedistill check student --against teacher --data photos`

    Parameters
    ----------
    model:
        The teacher, or with --against the student.
    data:
        A data set with class names.
    against:
        The teacher whose gallery the student is to probe.
    margin:
        Margin that the student would be trained with.
    scale:
        Scale that the student would be trained with.
    json_:
        Write the measurements here.
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


@app.command
def train(recipe: str, /, *overrides: str, out: Path) -> None:
    """Train a teacher or distil a student as a recipe says. Run again with the same recipe, it goes on where it stopped.

    Examples:

    `facedistill train proxylesskd --out run`

    `facedistill train recipe.yaml --out run schedule.epochs=20 method.terms.margin_softmax.scale=32`

    `torchrun --nproc-per-node=4 -m facedistill train recipe.yaml --out run`

    Parameters
    ----------
    recipe:
        A YAML file, or the name of a shipped recipe (`facedistill list recipes`).
    overrides:
        key=value, as in the recipe.
    out:
        The run's folder: recipe, log, checkpoints, model, evaluation.
    """
    from facedistill.recipe import load_recipe

    _train(load_recipe(recipe, overrides), out)


@app.command
def distill(
    *overrides: str, teacher: Path, data: str, student: str = "mobilefacenet", out: Path, method: str = "proxylesskd"
) -> None:
    """Distil a student from a teacher: check that they fit, write the recipe, train, evaluate.

    A tenth of the identities is held out for the evaluation (data.hold_out). A teacher that brings no classifier for
    these classes gets one made of class centres; the result says so.

    Example: `facedistill distill --teacher teacher.onnx --data photos --out run student.options.width=0.5`

    Parameters
    ----------
    overrides:
        key=value, as in a recipe.
    teacher:
        Model folder, run or .onnx.
    data:
        Training images with class names.
    student:
        A backbone (`facedistill list backbones`).
    out:
        The run's folder.
    method:
        A method (`facedistill list methods`).
    """
    from facedistill.check import check_teacher
    from facedistill.data.dataset import open_dataset
    from facedistill.files import cache_dir
    from facedistill.methods import resolve
    from facedistill.model import load_model
    from facedistill.recipe import make_recipe

    raw = {"data": {"train": data, "hold_out": 0.1}, "student": student, "teacher": str(teacher), "method": method}
    recipe = make_recipe(raw, overrides)
    if (start := resolve(recipe.method).classifier.start) not in (None, "random"):
        model, dataset = load_model(teacher), open_dataset(data)
        own = model.classifier.class_names if model.classifier else []
        if start == "teacher" and recipe.method.classifier.start is None and not set(dataset.class_names) <= set(own):
            print("the teacher has no classifier for these classes: W starts from class centres")
            recipe.method.classifier.start = "centres"
        if not (out / "recipe.yaml").exists():
            least, cache = recipe.check.own_class, cache_dir() / "embeddings"
            report = check_teacher(model, dataset, *_softmax(recipe), least, images=600, cache=cache)
            print(report.text())
            if not report.passed:
                raise UserError(f"{teacher} does not fit {data}; mend it, or lower check.own_class if you know better")
    _train(recipe, out)


@app.command
def evaluate(
    model: Path,
    /,
    *,
    on: Annotated[list[str], Many],
    against: Path | None = None,
    flip: Literal["sum", "concat", "none"] = "sum",
    threshold: Literal["grid", "exact"] = "grid",
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Measure a model, and with --against also as the probe of a gallery that the other model enrolled.

    Example: `facedistill evaluate student --on lfw.bin --against teacher.onnx --json result.json`

    Parameters
    ----------
    model:
        The model, run or .onnx.
    on:
        Verification .bin files or labelled data sets.
    against:
        The teacher.
    flip:
        What to do with the mirrored image's embedding: add, join or ignore it.
    threshold:
        Of the ten folds: insightface's grid of 0.01 in squared distance, or every distinct one.
    json_:
        Write the results here.
    """
    from facedistill.evaluation import evaluate as run
    from facedistill.evaluation import render_table
    from facedistill.files import cache_dir
    from facedistill.model import load_model

    paths = {"model": model} if against is None else {"student": model, "teacher": against}
    models = {name: load_model(path) for name, path in paths.items()}
    result = run(models, on, flip=flip, threshold=threshold, cache=cache_dir() / "embeddings", paths=paths)
    print(render_table(result))
    _write_json(json_, result)


@app.command
def embed(model: Path, images: str, /, *, out: Path) -> None:
    """Embed every image of a data set, and its mirror image, into one table.

    Example: `facedistill embed teacher photos --out photos.npz`

    Parameters
    ----------
    model:
        The model, run or .onnx.
    images:
        A data set.
    out:
        The .npz: keys, class names, labels, vectors (N, 2, d).
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


@app.command
def show(path: str, /) -> None:
    """Say what a model, a run or a data set is.

    Example: `facedistill show run`

    Parameters
    ----------
    path:
        Model folder, run, .onnx, or anything that holds images.
    """
    folder = Path(path)
    if (folder / "evaluation.json").is_file():
        from facedistill.evaluation import render_table

        print(render_table(json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))))
    if (folder / "config.json").is_file() or (folder / "model").is_dir() or folder.suffix == ".onnx":
        _print_model(folder)
        return
    from facedistill.data.dataset import open_dataset

    dataset = open_dataset(path)
    height, width = dataset.shape
    names = ", ".join(dataset.class_names[:3])
    print(f"{path}: {len(dataset):,} images of {len(dataset.class_names):,} classes ({names}, ...)")
    print(f"first image {width} x {height}; fingerprint {dataset.fingerprint}")


@app.command(name="list")
def list_(what: str, /) -> None:
    """Name what there is: methods, terms, backbones, margins or recipes.

    Example: `facedistill list methods`

    Parameters
    ----------
    what:
        methods, terms, backbones, margins or recipes.
    """
    kinds = {"methods": _methods, "terms": _terms, "backbones": _backbones, "margins": _margins, "recipes": _recipes}
    if what not in kinds:
        raise UsageError(f"list '{what}'{closest(what, kinds)}: expected one of {', '.join(kinds)}")
    for line in kinds[what]():
        print(line)


def _methods() -> list[str]:
    from facedistill.methods import METHODS

    rows = []
    for name, row in METHODS.items():
        w = f"{row.classifier.start} / {row.classifier.moved_by}" if row.classifier.start else "none"
        rows.append(f"{name:22} W: {w:20} terms: {', '.join(row.terms)}")
    return rows


def _terms() -> list[str]:
    from facedistill.terms import TERMS

    return [f"{name:18} {_summary(term)}" for name, term in TERMS.items()]


def _margins() -> list[str]:
    from facedistill.margins import MARGINS

    return [f"{name:18} {_summary(margin)}" for name, margin in MARGINS.items()]


def _backbones() -> list[str]:
    from facedistill.backbones import BACKBONES, count_parameters, create_backbone

    return [
        f"{name:20} {count_parameters(create_backbone(name)) / 1e6:6.2f} M parameters at 512-d" for name in BACKBONES
    ]


def _recipes() -> list[str]:
    from facedistill.recipe import shipped_recipes

    return shipped_recipes()


def _summary(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _train(recipe: "Recipe", out: Path) -> None:
    """Train, with the demo's teacher where the recipe names none, and print the result."""
    from facedistill.engine import train as run
    from facedistill.methods import missing_teachers
    from facedistill.recipe import TeacherSpec

    if missing_teachers(recipe):
        from facedistill.demo import demo_teacher

        recipe.teachers = {name: TeacherSpec(str(demo_teacher())) for name in missing_teachers(recipe)}
    run(recipe, out)
    show(str(out))


def _softmax(recipe: "Recipe") -> "tuple[Margin, float]":
    """The margin and scale that the recipe trains with."""
    from facedistill.methods import build_terms, resolve
    from facedistill.terms import MarginSoftmax

    terms = [term for term, _, _ in build_terms(resolve(recipe.method)).values() if isinstance(term, MarginSoftmax)]
    term = terms[0] if terms else MarginSoftmax()
    return term.margin, term.scale


def _print_model(path: Path) -> None:
    from facedistill.model import load_model

    model: Model = load_model(path)
    parameters, macs = model.parameters_count(), model.macs()
    size = f"{model.input_size} x {model.input_size} pixels -> {model.embedding_dim} dimensions"
    network = "embeddings only, no network" if model.backbone is None else f"{parameters or 0:,} parameters"
    print(f"{path}: {size}, {network}" + (f", {macs / 1e6:,.1f} M MACs" if macs else ""))
    print(f"space {model.space}")
    if model.classifier is not None:
        print(f"classifier: {len(model.classifier):,} classes ({model.classifier.origin})")


def _write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    from facedistill.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    try:
        app()
    except UserError as e:
        print(f"facedistill: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        print("facedistill: stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
