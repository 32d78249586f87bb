"""Describe a model, run, data set, gallery or table of embeddings in words."""

from pathlib import Path

import numpy as np

from facedistill.backbones import OnnxBackbone
from facedistill.data import Dataset, Embeddings, is_path, open_dataset
from facedistill.data.sources import VerificationSet
from facedistill.errors import some
from facedistill.gallery import Gallery, summary
from facedistill.models import facts_of, is_hub_address, load_model
from facedistill.recipe import load_recipe
from facedistill.results import load_evaluations, render_table
from facedistill.run import LOG, read_log


def describe(path: str) -> str:
    """Describe what is at `path`: a model folder, here or on the hub, a run, an .onnx, an .npz of embeddings, a
    gallery, or a data set.

    Raises UserError for anything else.
    """
    if is_hub_address(path):
        return describe_model(path)
    if not is_path(path):
        return _data(path)
    folder = Path(path)
    if is_gallery(folder):
        with Gallery.open(folder) as gallery:
            return summary(gallery).text()
    is_run = (folder / "recipe.yaml").is_file()
    found = [_run(folder)] if is_run else []
    if (folder / "config.json").is_file() or (folder / "model").is_dir() or folder.suffix == ".onnx":
        found.append(describe_model(folder))
    elif folder.suffix == ".npz":
        found.append(_embeddings(folder))
    elif not is_run:
        found.append(_data(path))
    return "\n".join(found)


def is_gallery(path: Path) -> bool:
    """Return whether a file is a gallery: it begins as SQLite's files do, or its name ends in .gallery."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0" or path.suffix == ".gallery"


def describe_model(path: str | Path) -> str:
    """Describe a model: its input and output, size, space and classifier."""
    model = load_model(path)
    if model.backbone is None:
        what = f"embeddings of {model.embedding_dim} dimensions, no network: students inherit from it; it cannot run"
    else:
        side = model.input_size
        takes = f"{side} features" if model.takes_features else f"{side} x {side} pixels"
        size = f"{takes} -> {model.embedding_dim} dimensions"
        what = f"{size}, {model.parameters_count():,} parameters, {(model.macs() or 0) / 1e6:,.1f} M MACs"
    offset = "" if model.offset is None else ", after a mean embedding is subtracted"
    lines = [f"{path}: {what}", f"space {model.space}{offset}"]
    if model.classifier is not None:
        origin = "trained with it" if model.classifier.origin == "teacher" else model.classifier.origin
        lines.append(f"classifier: {len(model.classifier):,} classes ({origin}; {some(model.classifier.class_names)})")
    if isinstance(model.backbone, OnnxBackbone) and (facts := facts_of(model.backbone.metadata, Path(path))):
        lines.append(facts.text())
    return "\n".join(lines)


def _run(run: Path) -> str:
    """Return the evaluation of a finished run, or how far an unfinished one has come."""
    if (run / "evaluation.json").is_file():
        (result,) = load_evaluations([run]).values()
        return f"{run}: {result['method']}\n\n{render_table(result)}"
    recipe = load_recipe(str(run / "recipe.yaml"))
    log = read_log(run / LOG)
    at = f"in epoch {log[-1]['epoch'] + 1} of {recipe.schedule.epochs}" if log else "at its beginning"
    again = f"`facedistill train {run}/recipe.yaml --out {run}` resumes it"
    return f"{run}: {recipe.method.name}, not finished, {at}; {again}"


def _embeddings(path: Path) -> str:
    table = Embeddings.load(path)
    views = "image and mirror image" if table.vectors.shape[1] == 2 else "image"
    return (
        f"{path}: {len(table):,} embeddings ({views}) of {table.vectors.shape[2]} dimensions\n"
        f"{len(table.class_names):,} classes ({some(table.class_names)}); space {table.space or 'unknown'}"
    )


def _largest_and_smallest(dataset: Dataset) -> str:
    """Name the classes, or labels, with the most and the fewest images: a folder that is no person is often there."""
    counts, names = dataset.target_counts, dataset.targets
    order = np.argsort(-counts, kind="stable").tolist()
    largest, smallest = (
        ", ".join(f"{names[label]} ({counts[label]:,})" for label in labels) for labels in (order[:3], order[:-4:-1])
    )
    return f"largest: {largest}; smallest: {smallest}"


def _data(path: str) -> str:
    dataset = open_dataset(path)
    source, lines = dataset.source, []
    if isinstance(source, VerificationSet):
        named = (
            "the people are known" if source.identities else f"{len(dataset):,} images; nobody is named, so pairs only"
        )
        lines = [f"{path}: {len(source.same):,} pairs, {int(source.same.sum()):,} of them genuine; {named}"]
    if not isinstance(source, VerificationSet) or source.identities:
        names, several = dataset.targets, dataset.multi_hot is not None
        what = f"with any of {len(names):,} labels" if several else f"of {len(names):,} classes"
        samples = "images" if source.features is None else "samples"
        lines.append(f"{path}: {len(dataset):,} {samples} {what} ({some(names)})")
        if several and not dataset.unlabelled.all():
            lines.append(f"in {len(dataset.class_names):,} groups ({some(dataset.class_names)})")
        lines.append(_largest_and_smallest(dataset))
    if source.features is None:
        height, width = dataset.shape
        size = f"first image {width} x {height}"
    else:
        size = f"{source.features} features each"
    return "\n".join([*lines, f"{size}; fingerprint {dataset.fingerprint}"])
