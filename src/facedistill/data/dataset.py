"""Any Source as batches of pixels: open, decode, resize, flip, keep in memory, count unreadable images."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from facedistill.data.decode import decode, resize
from facedistill.data.sources.open import open_source, open_union
from facedistill.data.sources.source import Source, classes_with_images
from facedistill.errors import UserError
from facedistill.files import fingerprint
from facedistill.progress import track

__all__ = ["Dataset", "ImageBatch", "UnreadableImage", "open_dataset", "open_source"]

LOOKED_AT = 32  # the number of images whose median shape becomes that of all
MOST_PIXELS = 1 << 20  # of an image in a batch: networks take a twentieth of it, photos have 12 times as many


class UnreadableImage(UserError):
    """One image is truncated, damaged or no image at all; the message names it."""


@dataclass
class ImageBatch:
    """The images of a Dataset at a list of indices; unreadable ones are left out of all three tensors.

    images: uint8 (B, 3, H, W), RGB, mirrored where flipped; or features, float32 (B, d). labels: int64 (B,).
    index: int64 (B, 2): the sample's place in its Dataset, and 1 where flipped. unreadable: names.
    shown: the images as a view shows them to the student; None if it sees `images`.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    unreadable: list[str] = field(default_factory=list)
    shown: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(torch.utils.data.Dataset):
    """Images of a Source with class indexes.

    `indices` picks images; classes without images are dropped and the others are renumbered but keep their names.
    `size` makes every image (size, size); None takes the median height and width of the first 32 readable images,
    shrunk to a million pixels (1024 x 1024) if they are larger: a batch of photos would not fit into memory.
    Unreadable images are skipped and listed in `unreadable`. If they exceed the share `max_unreadable` of the images
    read so far, a UserError is raised. `whole` is the data set that this one is a subset of, or None.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int] | np.ndarray | None = None,
        size: int | None = None,
        max_unreadable: float = 0.01,
    ) -> None:
        self.source, self.size, self.max_unreadable = source, size, max_unreadable
        self.unreadable: list[str] = []
        self.whole: Dataset | None = None
        self._met = self._failed = 0
        self.fingerprint = source.fingerprint if size is None else fingerprint(source.fingerprint, "size", size)
        if indices is None:
            self.indices, labels = np.arange(len(source), dtype=np.int64), source.labels
        else:
            self.indices = np.asarray(indices, dtype=np.int64)
            labels = source.labels[self.indices]
            self.fingerprint = fingerprint(self.fingerprint, self.indices)
        self.labels, self.class_names = classes_with_images(labels, source.class_names)
        self.label_columns = np.arange(len(source.label_names))
        if not len(self.indices):
            raise UserError(f"{source.path}: no images; a data set needs at least one")

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def keys(self) -> list[str]:
        """The key of every image in its source."""
        return [self.source.keys[i] for i in self.indices]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample in a batch: (3, height, width), or (features,)."""
        return (3, *self.shape) if self.source.features is None else (self.source.features,)

    @property
    def sample_bytes(self) -> int:
        return math.prod(self.sample_shape) * (1 if self.source.features is None else 4)

    def require_images(self) -> None:
        """Raise UserError if the samples are vectors of features."""
        if self.source.features is not None:
            raise UserError(f"{self.source.path}: its samples are vectors of features; this works on images only")

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(height, width) of every image that this data set returns. Raises UserError if it has no images."""
        self.require_images()
        if self.size is not None:
            return self.size, self.size
        shapes: list[tuple[int, ...]] = []
        for i in range(min(len(self), 100)):
            try:
                shapes.append(self._pixels(i).shape)
            except UnreadableImage as e:
                error = e
            if len(shapes) == LOOKED_AT:
                break
        if not shapes:
            raise UserError(f"{self.source.path}: none of the first images can be read: {error}")
        height, width, _ = (sorted(sides)[len(shapes) // 2] for sides in zip(*shapes, strict=True))
        if height * width <= MOST_PIXELS:
            return height, width
        smaller = math.sqrt(MOST_PIXELS / (height * width))
        return max(1, int(height * smaller)), max(1, min(int(width * smaller), MOST_PIXELS))

    @cached_property
    def unlabelled(self) -> np.ndarray:
        """True where an image shows an unknown person and is a class of its own; bool (N,)."""
        return np.zeros(len(self), bool) if self.source.unlabelled is None else self.source.unlabelled[self.indices]

    @cached_property
    def extra(self) -> np.ndarray:
        """True where an image only adds to the training, so that nobody is held out of them; bool (N,)."""
        return np.zeros(len(self), bool) if self.source.extra is None else self.source.extra[self.indices]

    @cached_property
    def weights(self) -> np.ndarray | None:
        """How often each image comes in an epoch, float (N,); None: once."""
        return None if self.source.weights is None else self.source.weights[self.indices]

    @cached_property
    def multi_hot(self) -> np.ndarray | None:
        """Which of `label_names` each image has, bool (N, L); None if an image has one class."""
        found = self.source.multi_hot
        return None if found is None else found[self.indices][:, self.label_columns]

    @property
    def label_names(self) -> list[str]:
        return [self.source.label_names[i] for i in self.label_columns.tolist()]

    @property
    def targets(self) -> list[str]:
        """The names that a classifier of this data has rows for: labels if an image may have several, else classes."""
        return self.class_names if self.multi_hot is None else self.label_names

    @property
    def target_counts(self) -> np.ndarray:
        """The number of images of each of `targets`, int64."""
        if self.multi_hot is not None:
            return self.multi_hot.sum(0)
        return np.bincount(self.labels, minlength=len(self.class_names))

    def labels_of(self, keys: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return which of the labels `names` the images `keys` have, bool (len(keys), len(names))."""
        assert self.multi_hot is not None, "images of one class each"
        place = {key: i for i, key in enumerate(self.keys)}
        columns = [self.label_names.index(name) for name in names]
        return self.multi_hot[[place[key] for key in keys]][:, columns]

    @property
    def is_in_memory(self) -> bool:
        """True if batches are copied from decoded pixels, so that no worker processes are needed."""
        return isinstance(self.source, MemorySource) and self.sample_shape == tuple(self.source.pixels.shape[1:])

    def image(self, i: int) -> np.ndarray:
        """Return image `i` as RGB uint8 (H, W, 3). Raises UnreadableImage naming its key."""
        return resize(self._pixels(i), self.shape)

    def sample(self, i: int) -> np.ndarray:
        """Return sample `i` as `sample_shape` says."""
        return self._pixels(i) if self.source.features is not None else self.image(i).transpose(2, 0, 1)

    def _room(self, count: int) -> np.ndarray:
        """Return an array for so many samples."""
        return np.empty((count, *self.sample_shape), dtype=np.uint8 if self.source.features is None else np.float32)

    def _pixels(self, i: int) -> np.ndarray:
        try:
            data = self.source.read(int(self.indices[i]))
            return data if isinstance(data, np.ndarray) else decode(data)
        except (ValueError, OSError) as e:
            key = self.source.keys[self.indices[i]]
            raise UnreadableImage(f"{self.source.path}: image {key} cannot be read: {e}") from e

    def batch(
        self, indices: Sequence[int] | np.ndarray, flips: Sequence[bool] | np.ndarray | None = None
    ) -> ImageBatch:
        """Return the readable images at `indices`, mirrored where `flips` is true (default: nowhere)."""
        return self.count(self.read(indices, np.zeros(len(indices), dtype=bool) if flips is None else flips))

    def read(self, indices: Sequence[int] | np.ndarray, flips: Sequence[bool] | np.ndarray) -> ImageBatch:
        """Return what `batch` does without counting it, e.g. in another process."""
        indices, flips = np.asarray(indices, dtype=np.int64), np.asarray(flips, dtype=bool)
        unreadable: list[str] = []
        if isinstance(self.source, MemorySource) and self.is_in_memory:
            pixels = self.source.pixels[self.indices[indices]]  # numpy copies whole images: faster than torch here
        else:
            pixels, kept = self._decode(indices, unreadable)
            indices, flips = indices[kept], flips[kept]
        if self.source.features is None:  # features have no mirror image
            pixels[flips] = pixels[flips][..., ::-1]
        index = torch.from_numpy(np.stack([indices, flips.astype(np.int64)], axis=1))
        return ImageBatch(torch.from_numpy(pixels), torch.from_numpy(self.labels[indices]), index, unreadable)

    def _decode(self, indices: np.ndarray, unreadable: list[str]) -> tuple[np.ndarray, list[int]]:
        pixels = self._room(len(indices))
        kept: list[int] = []
        for place, i in enumerate(indices.tolist()):
            try:
                pixels[len(kept)] = self.sample(i)
                kept.append(place)
            except UnreadableImage:
                unreadable.append(self.source.keys[self.indices[i]])
        return pixels[: len(kept)], kept

    def __getitems__(self, items: list[tuple[int, bool]]) -> "ImageBatch | UserError":
        """Return a batch, or its error as a value: torch would wrap it in a traceback. Runs in worker processes."""
        try:
            return self.read([i for i, _ in items], [f for _, f in items])
        except UserError as e:
            return e

    def count(self, batch: ImageBatch) -> ImageBatch:
        """Add a batch, perhaps from a worker, to the counts of images read and unreadable; return it."""
        self.count_images(len(batch), batch.unreadable)
        return batch

    def count_images(self, readable: int, unreadable: list[str]) -> None:
        """Add a number of readable images and the names of unreadable ones to the counts."""
        self._met += readable + len(unreadable)
        self._failed += len(unreadable)
        self.unreadable += [name for name in unreadable if name not in self.unreadable]
        if self._met >= min(100, len(self)):
            self.check_unreadable()

    def check_unreadable(self) -> None:
        """Raise UserError if more than the allowed share of the images so far could not be read."""
        if self._failed > self.max_unreadable * self._met:
            raise UserError(
                f"{self.source.path}: {self._failed} of {self._met} images cannot be read, more than the allowed "
                f"share of {self.max_unreadable:g}: {_some(self.unreadable)}; repair or remove them, or allow more"
            )

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Dataset":
        """Return the data set of the images at `indices`, with the classes that remain."""
        indices = np.asarray(indices, dtype=np.int64)
        part = Dataset(self.source, self.indices[indices], self.size, self.max_unreadable)
        part.unreadable = list(self.unreadable)
        part.whole = self.whole or self
        if self.source.features is None:
            part.__dict__["shape"] = self.shape  # not the shape of the subset's own first images
        part.fingerprint = fingerprint(self.fingerprint, indices)
        part.label_columns = self.label_columns
        return part

    def with_labels(self, names: Sequence[str]) -> "Dataset":
        """Return the images of these classes alone; with labels, those that have any of these, or none at all.

        An image without any label says what each of them does not look like, whichever subset they are.
        """
        if self.multi_hot is None:
            return self.subset(np.flatnonzero(np.isin(self.labels, [self.class_names.index(n) for n in names])))
        columns = [self.label_names.index(name) for name in names]
        part = self.subset(np.flatnonzero(self.multi_hot[:, columns].any(1) | ~self.multi_hot.any(1)))
        part.label_columns = self.label_columns[columns]
        part.fingerprint = fingerprint(part.fingerprint, "\0".join(names))
        return part

    def in_memory(self, threads: int | None = None) -> "Dataset":
        """Decode every image once and return a data set of the readable ones' pixels.

        The classes and the fingerprint stay the same unless an image had to be dropped.
        """
        if self.is_in_memory:
            return self
        pixels = self._room(len(self))
        kept = np.ones(len(self), dtype=bool)
        chunks = np.array_split(np.arange(len(self)), max(1, len(self) // 64))
        with ThreadPoolExecutor(threads) as pool:
            done = pool.map(lambda chunk: self._fill(pixels, chunk), chunks)
            for chunk, good in track(zip(chunks, done, strict=True), "decoding", len(self), size=lambda x: len(x[0])):
                kept[chunk] = good
        names = [self.source.keys[self.indices[i]] for i in np.flatnonzero(~kept)]
        self._met, self._failed, self.unreadable = len(self), len(names), names
        self.check_unreadable()
        part = Dataset(MemorySource(self, pixels, kept), max_unreadable=self.max_unreadable)
        part.unreadable = list(names)
        return part

    def _fill(self, pixels: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        good = np.ones(len(chunk), dtype=bool)
        for place, i in enumerate(chunk.tolist()):
            try:
                pixels[i] = self.sample(i)
            except UnreadableImage:
                good[place] = False
        return good


class MemorySource(Source):
    """The decoded samples of a Dataset, `pixels` (N, *sample_shape), without those that are not `kept`."""

    def __init__(self, dataset: Dataset, pixels: np.ndarray, kept: np.ndarray) -> None:
        self.path, self.class_names = dataset.source.path, dataset.class_names
        self.fingerprint = dataset.fingerprint if kept.all() else fingerprint(dataset.fingerprint, kept)
        self.stamp = dataset.source.stamp
        self.pixels = pixels if kept.all() else pixels[kept]
        self.labels = dataset.labels[kept]
        self.keys = [key for key, good in zip(dataset.keys, kept, strict=True) if good]
        self.unlabelled, self.extra = dataset.unlabelled[kept], dataset.extra[kept]
        self.weights = None if dataset.weights is None else dataset.weights[kept]
        self.multi_hot = None if dataset.multi_hot is None else dataset.multi_hot[kept]
        self.label_names, self.label_groups = dataset.label_names, dataset.source.label_groups
        self.features = dataset.source.features

    def read(self, i: int) -> np.ndarray:
        return self.pixels[i] if self.features is not None else self.pixels[i].transpose(1, 2, 0)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def open_dataset(
    spec: str | Path | Sequence[str | Path],
    size: int | None = None,
    max_unreadable: float = 0.01,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Open the data that `spec` names (see `open_source`) as a Dataset; several as one, see `open_union`."""
    source = open_source(spec, columns) if isinstance(spec, str | Path) else open_union(spec, columns)
    return Dataset(source, size=size, max_unreadable=max_unreadable)
