"""Model + data -> Embeddings: each image once, decoding ahead of the network, cached."""

import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facedistill.data import ArrayWriter, Dataset, Embeddings, decoded, load_array
from facedistill.errors import UserError
from facedistill.files import atomic_write, fingerprint
from facedistill.models.model import Model
from facedistill.progress import say, track

CPU_BATCH, GPU_BATCH = 64, 256  # on a CPU, maps of larger batches leave the cache and cost page faults
READ = 4096  # stored embeddings at a time


def embed_dataset(
    model: Model, dataset: Dataset, flips: bool = True, batch: int | None = None, cache: Path | None = None
) -> Embeddings:
    """Embed every image of `dataset`, and its mirror image if `flips`.

    Unreadable images have no row; they are counted and listed in `dataset.unreadable`. The model runs in eval mode,
    on the device of its parameters; its modes are restored.

    Args:
        batch: images at a time; None picks a fast number for the model's device.
        cache: a folder for embeddings. Those of the same model (weights, preprocessing, offset) and data (fingerprint,
            and times of its files), or of a data set that this one is a subset of, are read from it, if they are whole
            and of these images; else they are made anew, and one line says so, as it does if the folder cannot be
            written. Only its owner may read what is written.

    Raises:
        UserError: more images than allowed are unreadable, or an embedding is not finite.
    """
    made_by = model.fingerprint()
    if cache and (
        cached := _cached(cache, model, made_by, dataset, flips) or _part(cache, model, made_by, dataset, flips)
    ):
        read = set(cached.keys)
        dataset.count_images(len(cached), [key for key in dataset.keys if key not in read])
        return cached
    vectors = np.empty((len(dataset), 2 if flips else 1, model.embedding_dim), dtype=np.float32)
    rows: list[int] = []
    for kept, found in _embedded(model, dataset, flips, batch):
        vectors[len(rows) : len(rows) + len(kept)] = found
        rows += kept
    embeddings = Embeddings(
        keys=[dataset.keys[i] for i in rows],
        class_names=list(dataset.class_names),
        labels=np.asarray(dataset.labels)[rows],
        vectors=vectors[: len(rows)],
        space=model.space or "",
        model=made_by,
        data=dataset.fingerprint,
    )
    if cache:
        try:
            embeddings.save(_place(cache, made_by, dataset, flips))
        except UserError as e:
            _say_not_kept(e)
    return embeddings


def embed_blocks(
    model: Model, dataset: Dataset, flips: bool = True, batch: int | None = None, cache: Path | None = None
) -> Generator[np.ndarray, None, None]:
    """Yield the raw embeddings of all readable images, float32 (n, F, d), in order, for sets too large to hold.

    With `cache`, each block is also written to a plain .npy, from which the next call reads blocks, never the whole. It
    has a row for every image, NaN for those that cannot be read: they are counted and named again.
    """
    place = cache and _place(cache, model.fingerprint(), dataset, flips).with_suffix(".npy")
    shape = (len(dataset), 2 if flips else 1, model.embedding_dim)
    if place and (stored := _stored(place, shape)) is not None:
        for start in range(0, len(stored), READ):
            block = np.array(stored[start : start + READ])
            read = ~np.isnan(block[:, 0, 0])
            missing = (start + np.flatnonzero(~read)).tolist()
            dataset.count_images(int(read.sum()), [dataset.keys[i] for i in missing])
            yield block[read]
        return
    blocks = _embedded(model, dataset, flips, batch)
    if not place:
        yield from (found for _, found in blocks)
        return
    try:
        with atomic_write(place, private=True) as temporary, open(temporary, "wb") as file:
            writer = ArrayWriter(file, shape, "<f4", place.name)
            for kept, found in blocks:
                yield found  # first, because writing may fail
                writer.add(kept, found)
            writer.end()
    except UserError as e:
        if str(place) not in str(e):  # the error is not from writing
            raise
        _say_not_kept(e)
        yield from (found for _, found in blocks)


def _embedded(model: Model, dataset: Dataset, flips: bool, batch: int | None) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield (places in the data set, raw embeddings float32 (n, F, d)) of the readable images, batch by batch."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    batch = batch or (CPU_BATCH if model.device.type == "cpu" else GPU_BATCH)
    try:
        batches = track(decoded(dataset, batch), "embedding", len(dataset), size=lambda b: len(b) + len(b.unreadable))
        for images in batches:
            found = _forward(model, images.images.to(model.device, non_blocking=True), 2 if flips else 1)
            kept = images.index[:, 0].tolist()
            _stop_if_not_finite(found, [dataset.keys[i] for i in kept])
            yield kept, found
    finally:
        for module, mode in modes.items():
            module.training = mode


def _place(cache: Path, made_by: str, dataset: Dataset, flips: bool) -> Path:
    return cache / f"{fingerprint(made_by, dataset.fingerprint, dataset.source.stamp, flips)}.npz"


def _stored(place: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Return the array at `place`, memory-mapped, or None. A damaged one is named in a line."""
    if not os.path.isfile(place):  # Path.is_file would raise if the folder may not be searched
        return None
    try:
        return load_array(place, shape, "<f4")
    except (OSError, ValueError) as e:
        _say_made_anew(place, e)
        return None


def _say_made_anew(place: Path, error: Exception) -> None:
    text = f"{place}: the cached embeddings are not used ({error}); they are made anew"
    say(" ".join(text.split()))


def _say_not_kept(error: UserError) -> None:
    """Say that the cache could not be written (`error` of `atomic_write`), so the next command must embed again."""
    reason = str(error).partition(";")[0]
    text = f"the embeddings are not cached: {reason}; correct that, or set FACEDISTILL_CACHE to another folder"
    say(text)


def _cached(cache: Path, model: Model, made_by: str, dataset: Dataset, flips: bool) -> Embeddings | None:
    """Return what an earlier call stored, or None. Without mirror images, a table that has them serves too."""
    for stored in {flips, True}:
        path = _place(cache, made_by, dataset, stored)
        if os.path.isfile(path):
            try:
                found = Embeddings.load(path, saved=True)
                _require_same(found, made_by, dataset, (2 if stored else 1, model.embedding_dim))
            except UserError as e:
                _say_made_anew(path, e)
                continue
            found.vectors = found.vectors[:, : 2 if flips else 1]
            return found
    return None


def _part(cache: Path, model: Model, made_by: str, dataset: Dataset, flips: bool) -> Embeddings | None:
    """Return the rows of these images in the table of the data set that this one is a subset of, or None."""
    whole = dataset.whole and _cached(cache, model, made_by, dataset.whole, flips)
    if not whole or len(set(whole.keys)) < len(whole.keys):  # a key would not tell which image is meant
        return None
    places = {key: place for place, key in enumerate(whole.keys)}
    rows = [row for row, key in enumerate(dataset.keys) if key in places]  # unreadable images have none
    keys = [dataset.keys[row] for row in rows]
    return replace(
        whole,
        keys=keys,
        class_names=list(dataset.class_names),
        labels=np.asarray(dataset.labels)[rows],
        vectors=whole.vectors[[places[key] for key in keys]],
        data=dataset.fingerprint,
    )


def _require_same(found: Embeddings, made_by: str, dataset: Dataset, shape: tuple[int, int]) -> None:
    """Raise UserError unless the table is of this model and these images, in their order, with finite numbers."""
    if (found.model, found.data) != (made_by, dataset.fingerprint) or found.vectors.shape[1:] != shape:
        raise UserError("of another model or other data")
    keys, rows, row = dataset.keys, [], 0
    for key in found.keys:  # unreadable images have no row
        while row < len(keys) and keys[row] != key:
            row += 1
        rows.append(row)
        row += 1
    if row > len(keys) or not np.array_equal(np.asarray(dataset.labels)[rows], found.labels):
        raise UserError("its rows are not these images")
    if found.class_names != list(dataset.class_names) or not np.isfinite(found.vectors).all():
        raise UserError("its class names or numbers are damaged")


@torch.inference_mode()
def _forward(model: Model, pixels: Tensor, views: int) -> np.ndarray:
    """Return raw embeddings, float32 (B, views, d)."""
    outputs = [model(pixels)] if views == 1 else [model(pixels), model(model.mirrored(pixels))]
    return torch.stack(outputs, dim=1).float().cpu().numpy()


def _stop_if_not_finite(vectors: np.ndarray, keys: list[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=(1, 2)))
    if len(bad):
        raise UserError(
            f"the model's embedding of image {keys[bad[0]]} is not finite; the model is damaged or takes other pixels "
            "than RGB 0..255"
        )
