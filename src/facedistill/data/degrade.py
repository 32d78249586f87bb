"""Simulated low resolution: images shrunk to a few pixels and enlarged again."""

import copy
import io

import numpy as np
from PIL import Image, ImageFilter

from facedistill.data.dataset import Dataset
from facedistill.data.decode import decode
from facedistill.data.sources.source import Source
from facedistill.data.sources.verification import VerificationSet
from facedistill.errors import UsageError
from facedistill.files import fingerprint

BICUBIC = Image.Resampling.BICUBIC


def shrink(
    image: Image.Image, pixels: int | None, blur: float = 0, jpeg: int | None = None, noise: np.ndarray | None = None
) -> np.ndarray:
    """Return the image, uint8 (H, W, 3), shrunk to `pixels` x `pixels` and enlarged to its own size again, bicubic.

    Shrinking averages (antialias), as Pillow does.

    Args:
        pixels: None keeps the image's size.
        blur: sigma of a Gaussian blur before shrinking, in pixels of the original image; 0 for none.
        jpeg: JPEG quality of the small image, 1 to 100; None for no compression.
        noise: added to the small image, in its shape, before it is compressed.
    """
    small = image.filter(ImageFilter.GaussianBlur(blur)) if blur else image
    small = small.resize((pixels, pixels) if pixels else image.size, BICUBIC)
    if noise is not None:
        small = Image.fromarray((np.asarray(small) + noise).round().clip(0, 255).astype(np.uint8))
    if jpeg is not None:
        stored = io.BytesIO()
        small.save(stored, "JPEG", quality=jpeg)
        small = Image.fromarray(decode(stored.getvalue()))
    return np.array(small.resize(image.size, BICUBIC))


class DegradedSource(Source):
    """The images of `source`, each shrunk to `pixels` x `pixels` and enlarged to its own size again, bicubic.

    Shrinking averages (antialias), as Pillow does. Keys, labels and class names are those of `source`.

    Args:
        blur: sigma of a Gaussian blur before shrinking, in pixels of the original image; 0 for none.
        jpeg: JPEG quality of the small image, 1 to 100; None for no compression.

    Raises:
        UsageError: a number of pixels, blur or quality that is out of range; from `read`, an image smaller than
            `pixels` on a side.
    """

    def __init__(self, source: Source, pixels: int, blur: float = 0, jpeg: int | None = None) -> None:
        if pixels < 1:
            raise UsageError(f"resolution {pixels}: expected a number of pixels, 1 or more")
        if blur < 0:
            raise UsageError(f"blur {blur:g}: expected the sigma of a Gaussian in pixels, 0 or more")
        if jpeg is not None and not 1 <= jpeg <= 100:
            raise UsageError(f"JPEG quality {jpeg}: expected 1 to 100")
        self.source, self.pixels, self.blur, self.jpeg = source, pixels, float(blur), jpeg
        self.path, self.keys = source.path, source.keys
        self.labels, self.class_names = source.labels, source.class_names
        self.fingerprint, self.stamp = self.changed(source.fingerprint), source.stamp

    def changed(self, original: str) -> str:
        """Return the fingerprint of the degraded data, given that of the `original`."""
        return fingerprint("degraded", original, self.pixels, self.blur, self.jpeg)

    def read(self, i: int) -> np.ndarray:
        data = self.source.read(i)
        image = Image.fromarray(decode(data) if isinstance(data, bytes) else data)
        if self.pixels > min(image.size):
            width, height = image.size
            raise UsageError(
                f"{self.path}: image {self.keys[i]} has {width} x {height} pixels; expected a resolution up to "
                f"{min(image.size)}, not {self.pixels}"
            )
        return shrink(image, self.pixels, self.blur, self.jpeg)


class DegradedPairs(DegradedSource, VerificationSet):
    """A verification set whose images are degraded: the same pairs, in the same order."""

    def __init__(self, source: VerificationSet, pixels: int, blur: float = 0, jpeg: int | None = None) -> None:
        super().__init__(source, pixels, blur, jpeg)
        self.name, self.pairs, self.same, self.identities = source.name, source.pairs, source.same, source.identities


def degraded(dataset: Dataset, pixels: int, blur: float = 0, jpeg: int | None = None) -> Dataset:
    """Return `dataset` with degraded images (see DegradedSource); a verification set keeps its pairs.

    Images are degraded at the size that their source stores, then resized to the data set's size.
    """
    dataset.require_images()
    source, options = dataset.source, (pixels, blur, jpeg)
    changed = (
        DegradedPairs(source, *options) if isinstance(source, VerificationSet) else DegradedSource(source, *options)
    )
    part = copy.copy(dataset)
    part.source, part.fingerprint = changed, changed.changed(dataset.fingerprint)
    part.unreadable = list(dataset.unreadable)
    return part
