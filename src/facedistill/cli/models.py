"""The verbs about one model or data set: import, check, embed, show, list."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from facedistill.cli.app import File, Flag, Folder, Json, Many, Repeated, Report, answer, app
from facedistill.errors import UsageError


@app.command(name="import", sort_key=2)
def import_(
    file: Path,
    /,
    *,
    out: Folder,
    from_: Annotated[Literal["auto", "arcface_torch", "onnx", "embeddings"], Parameter(name="--from")] = "auto",
    classes: str | None = None,
    classifier: Annotated[list[Path] | None, Many] = None,
    colour: Literal["rgb", "bgr"] | None = None,
    mean: Annotated[list[float] | None, Many] = None,
    std: Annotated[list[float] | None, Many] = None,
    size: int | None = None,
    output: str | None = None,
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
        The format of FILE, if its name does not show it.
    classes:
        The name of every row of the classifier, in order: a text file with one name a line, or the teacher's own data
        set. Without it the rows are called 0, 1, 2, ...
    classifier:
        The file or the per-rank shards that hold the classifier, if they are not beside the network.
    colour:
        The channel order that the network was trained with. [default: rgb]
    mean:
        The value subtracted from pixels 0..255: one number, or three.
    std:
        The divisor after that: one number, or three. [default: 127.5 and 127.5 for arcface_torch, 0 and 1 for ONNX]
    size:
        The height and width of the images, for an ONNX graph that leaves them open. [default: 112]
    output:
        The name of the embedding, for an ONNX graph with several outputs.
    centre:
        A data set whose mean embedding becomes the origin of the space. Use it if `check` says that the teacher's
        embeddings lie in a narrow cone.
    fit_classifier:
        A data set. A classifier is trained on its embeddings in minutes; the network does not change.
    margin:
        The margin of --fit-classifier (`facedistill list margins`).
    scale:
        The scale of --fit-classifier.
    """
    from facedistill.cli.show import describe_model
    from facedistill.files import cache_dir
    from facedistill.models import import_model, save_model

    paths: Any = classifier[0] if classifier and len(classifier) == 1 else classifier
    options: Any = {"centre": centre, "fit_classifier": fit_classifier, "margin": margin, "scale": scale}
    options |= {"size": size, "output": output}
    cache = cache_dir() / "embeddings"
    model = import_model(file, from_, classes, paths, colour, mean, std, **options, cache=cache)
    save_model(model, out)
    answer(describe_model(out))


@app.command(sort_key=2.5)
def fuse(
    models: Annotated[list[Path], Many],
    /,
    *,
    out: Folder,
    dim: int | None = None,
    data: Annotated[list[str] | None, Repeated] = None,
    adaptor: Annotated[bool, Flag] = False,
    margin: str = "arcface",
    scale: float = 64.0,
) -> None:
    """Make one teacher of several: the cosine of two images is the mean of the models' cosines.

    The product is a model folder in a space of its own. It serves as a teacher and enrols galleries as any other model.
    Without --adaptor it has no classifier, so students inherit class centres or instances.

    Examples:

    `facedistill fuse first.onnx second.onnx --out teacher`

    `facedistill fuse first.onnx second.onnx --dim 256 --data photos --out teacher`

    `facedistill fuse first.onnx second.onnx --dim 256 --data photos --adaptor --out teacher`

    Parameters
    ----------
    models:
        Two or more model folders, runs or .onnx files, of any embedding and input sizes.
    out:
        The model folder to write.
    dim:
        The number of dimensions that are kept, the leading ones on --data. [default: all, side by side]
    data:
        With --dim: the images that decide which dimensions are kept, best those that a student will be trained on.
        Several data sets, `--data A --data B`, become one.
    adaptor:
        With --dim: let the labels of --data train the projection and a classifier, which students inherit.
    margin:
        The margin that trains the adaptor (`facedistill list margins`).
    scale:
        The scale that trains the adaptor.
    """
    from facedistill.cli.show import describe_model
    from facedistill.data import open_dataset
    from facedistill.files import cache_dir
    from facedistill.models import fuse_models, load_model, save_model

    loaded = [load_model(path, classifier=False) for path in models]
    dataset = None if data is None else open_dataset(data)
    fusion = fuse_models(loaded, dim, dataset, cache_dir() / "embeddings", adaptor, margin, scale)
    save_model(fusion.model, out)
    kept = "" if dim is None else f"\n{dim} dimensions keep {fusion.kept:.1%} of the embeddings' mean squared length"
    answer(describe_model(out) + kept)


@app.command(sort_key=3)
def check(
    model: Path,
    /,
    *,
    data: Annotated[list[str], Repeated],
    against: Path | None = None,
    gallery: Path | None = None,
    margin: str = "arcface",
    scale: float = 64.0,
    json_: Json = None,
) -> None:
    """Check that a teacher fits the data, or that a student may probe a teacher's gallery.

    Before training: do the classifier, its class order, the colour order and the pixel scale fit this data? With
    --against, before use: is the student in the teacher's space? The exit code is 1 if the check fails.

    Examples:

    `facedistill check teacher --data photos`

    `facedistill check student --against teacher --data photos`

    `facedistill check new --against old --data photos --gallery people.gallery`

    Parameters
    ----------
    model:
        The teacher; with --against the student, or a new model.
    data:
        The images that a student will be trained on, or any others with class names. Several data sets,
        `--data A --data B`, become one.
    against:
        The teacher whose gallery the student will probe.
    gallery:
        A gallery that the model of --against enrolled: measure the ways in which the new model could search it.
    margin:
        The margin that the student will be trained with (`facedistill list margins`).
    scale:
        The scale that the student will be trained with.
    json_:
        Also write all measurements to this file.
    """
    from facedistill.check import check_labels, check_student, check_teacher
    from facedistill.data import open_dataset
    from facedistill.files import cache_dir
    from facedistill.gallery import Gallery, judge_upgrade
    from facedistill.head import make_margin
    from facedistill.models import load_model

    if gallery is not None and against is None:
        raise UsageError("check --gallery: give the model that enrolled it, too: --against OLD")
    dataset = open_dataset(data)
    if gallery is not None and against is not None:
        with Gallery.open(gallery) as opened:
            report = judge_upgrade(load_model(model), load_model(against), opened, dataset)
    elif against is not None:
        report = check_student(load_model(model), load_model(against), dataset)
    elif dataset.multi_hot is not None:
        report = check_labels(load_model(model), dataset, cache_dir() / "embeddings")
    else:
        cache = cache_dir() / "embeddings"
        report = check_teacher(load_model(model), dataset, make_margin(margin), scale, cache=cache)
    answer(report.text(), json_, report.to_json())
    if not report.passed:
        raise SystemExit(1)


@app.command(sort_key=9)
def embed(model: Path, images: str, /, *, out: File) -> None:
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
        The .npz file to write: keys, class_names, labels, and vectors (N, 2, d), not normalised.
    """
    from facedistill.data import open_dataset
    from facedistill.models import embed_dataset, load_model

    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: expected a name that ends in .npz")
    dataset = open_dataset(images)
    embeddings = embed_dataset(load_model(model), dataset)
    embeddings.save(out)
    left = f", {len(dataset.unreadable)} unreadable left out" if dataset.unreadable else ""
    answer(f"{out}: {len(embeddings):,} images of {len(embeddings.class_names):,} classes{left}")


@app.command(sort_key=10)
def show(
    path: str,
    /,
    *,
    report: Report = None,
    salvage: Report = None,
    photos: str | None = None,
) -> None:
    """Describe a model, run, data set, gallery or table of embeddings.

    Examples:

    `facedistill show run`

    `facedistill show door.gallery --report gallery.html`

    `facedistill show door.gallery --salvage rescued.gallery`

    Parameters
    ----------
    path:
        A model folder, a run, an .onnx, an .npz of embeddings, a gallery, or a data set.
    report:
        Of a gallery: also write how its scores lie and who looks alike, as one HTML file.
    salvage:
        Of a damaged gallery: write a new gallery of what is readable to this file.
    photos:
        The data set that was enrolled: the report shows its images. Without it, the report shows no face.
    """
    from facedistill.cli.show import describe

    if photos is not None and report is None:
        raise UsageError("show: --photos puts images into the report; add --report gallery.html")
    if salvage is not None:
        from facedistill.gallery import salvage as salvage_gallery

        answer(salvage_gallery(path, salvage))
        return
    answer(describe(path))
    if report is not None:
        from facedistill.gallery import Gallery, write_page

        with Gallery.open(path) as gallery:
            write_page(gallery, report, photos)
        answer(f"{report}: open it in a browser")


@app.command(sort_key=12)
def cache(*, limit: float | None = None, clear: Annotated[bool, Flag] = False) -> None:
    """Show, limit or clear the cache: embeddings and other results that are computed again when they are needed.

    Embeddings of people are biometric data: clear them when you no longer need them. Only you may read the files.

    Example: `facedistill cache --limit 10`

    Parameters
    ----------
    limit:
        Remove the files that were not written for longest, until the rest takes at most so many GB.
    clear:
        Remove everything.
    """
    from facedistill.cli.cache import summary, trim

    if clear and limit is not None:
        raise UsageError("cache: --clear removes everything; leave out --limit")
    if limit is not None and not limit >= 0:
        raise UsageError(f"cache: --limit {limit}: expected 0 GB or more")
    if clear or limit is not None:
        answer(trim(0 if limit is None else round(limit * 1e9)))
    answer(summary())


@app.command(name="list", sort_key=11)
def list_(what: str, /) -> None:
    """List the methods, terms, backbones, margins, views, protocols or recipes.

    Example: `facedistill list methods`

    Parameters
    ----------
    what:
        methods, terms, backbones, margins, views, protocols or recipes.
    """
    from facedistill.cli.listing import listing

    answer(listing(what))
