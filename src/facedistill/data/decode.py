"""Encoded image -> RGB pixels: fast simplejpeg for the files that it accepts, Pillow for the rest."""

import io

import numpy as np
import simplejpeg
from PIL import Image

# Messages of libjpeg about a file whose pixels are lost. Pillow silently fills such places with grey.
DAMAGE = ("remature end", "bad Huffman", "instead of RST", "bad progression")


def decode(data: bytes) -> np.ndarray:
    """Decode an image file to RGB uint8 (H, W, 3): grey is repeated, alpha dropped, EXIF rotation ignored.

    Raises ValueError with the reason if the data is not an image, is truncated or is damaged.
    """
    if not data:
        raise ValueError("the file is empty")
    if data[:2] == b"\xff\xd8":
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError as e:
            if any(words in str(e) for words in DAMAGE):
                raise
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _rgb(image)
    except Image.UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except Exception as e:  # broken bytes make Pillow's plugins raise almost anything
        raise ValueError(str(e) or type(e).__name__) from e


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey at 255 instead of scaling it
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def resize(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (H, W, 3) = `shape` + (3,): bilinear, with antialias when shrinking."""
    if pixels.shape[:2] == shape:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
