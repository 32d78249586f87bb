"""Encoded image -> RGB pixels: fast simplejpeg for the files that it accepts, Pillow for the rest."""

import base64
import importlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image

# Messages of libjpeg about a file whose pixels are lost. Pillow silently fills such places with grey.
DAMAGE = ("remature end", "bad Huffman", "instead of RST", "bad progression")
ORIENTATION = 0x0112  # the tag of EXIF
MAX_PIXELS = 1 << 27  # of one image, about 134 million; a larger size in a header is refused before memory is taken
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's own limit is lower

# The formats that are opened, by the bytes at a file's head. Pillow reads more; some of its readers start programs.
MAGIC: list[tuple[bytes, str]] = [
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % kind, "PPM") for kind in range(1, 7)),
]
# Formats of the ISO container, by its brands: Pillow's name, and the package and module that may teach it to Pillow.
BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), ("AVIF", "pillow-avif-plugin", "pillow_avif")),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), ("HEIF", "pillow-heif", "pillow_heif")),
}
# The largest values of the depths in use. Deep grey is scaled by the first of them that its values do not exceed.
RANGES = (255, 65535, 2**31 - 1, 2**32 - 1)


def decode(data: bytes, upright: bool = False, at_least: int | None = None) -> np.ndarray:
    """Decode an image file to RGB uint8 (H, W, 3): grey is repeated, alpha dropped.

    JPEG, PNG, WebP, BMP, GIF (the first frame), TIFF, PPM and PGM, whatever the file is called; AVIF and HEIC if Pillow
    or a plug-in reads them. Grey of more than 8 bits is scaled by its own range.

    Args:
        upright: turn the image as its EXIF orientation says. A photo wants it; an aligned crop has none.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size, if its longer side keeps so many
            pixels. That is many times faster for a large photo.

    Raises ValueError with the reason if the data is no such image, is truncated, is damaged or has too many pixels.
    """
    if not data:
        raise ValueError("the file is empty")
    form = _form(data)
    try:
        if form == "JPEG":
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            _stop_if_large(width, height)
            least = {"min_width" if width > height else "min_height": at_least} if at_least else {}
            pixels = simplejpeg.decode_jpeg(data, min_factor=1, **least)
            return turned(pixels, _orientation(data)) if upright else pixels
    except TooLarge:
        raise
    except ValueError as e:
        if any(words in str(e) for words in DAMAGE):
            raise
    try:
        with Image.open(io.BytesIO(data), formats=[form]) as image:
            _stop_if_large(*image.size)
            if form == "JPEG" and at_least:
                width, height = (max(1, side * at_least // max(image.size)) for side in image.size)
                image.draft(None, (width, height))
            pixels = _rgb(image)
            return turned(pixels, image.getexif().get(ORIENTATION, 1)) if upright else pixels
    except Image.DecompressionBombError as e:
        raise ValueError(f"more than the {MAX_PIXELS:,} pixels allowed; make the image smaller ({e})") from e
    except Image.UnidentifiedImageError:
        raise ValueError(f"a damaged {form} file") from None
    except Exception as e:  # broken bytes make Pillow's plugins raise almost anything
        raise ValueError(str(e) or type(e).__name__) from e


def reduced(photo: bytes, at_least: int) -> tuple[np.ndarray, float]:
    """Decode a photo upright, a JPEG as small as `at_least` allows; return its pixels, and their part of its width.

    Raises ValueError as `decode` does.
    """
    pixels = decode(photo, upright=True, at_least=at_least)
    if _form(photo) != "JPEG":
        return pixels, 1.0
    return pixels, max(pixels.shape[:2]) / max(_jpeg_size(photo))


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    try:
        return simplejpeg.decode_jpeg_header(jpeg)[:2]
    except ValueError:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            return image.size


def thumbnail(pixels: np.ndarray, side: int) -> str:
    """Return an image, RGB uint8 (H, W, 3), as a data: address: a JPEG whose longer side has at most `side` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _orientation(jpeg: bytes) -> int:
    """Return the EXIF orientation of a JPEG, 1 where it has none."""
    if b"Exif\0\0" not in jpeg[:65536]:
        return 1
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            return image.getexif().get(ORIENTATION, 1)
    except Exception:  # as in decode; pixels without a readable note are upright
        return 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the image (H, W, 3) as it is to be seen, for an EXIF orientation of 1 to 8; others change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


class TooLarge(ValueError):
    """The size in an image's header is more than MAX_PIXELS."""


def _stop_if_large(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(f"{width} x {height} pixels, more than the {MAX_PIXELS:,} allowed; make the image smaller")


def _form(data: bytes) -> str:
    """Return Pillow's name of the format that the content has. Raises ValueError for any other content."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        for form, package, module in filter(None, map(BRANDS.get, _brands(data))):
            if _opens(form, module):
                return form
            raise ValueError(f"{form} is opened by the package {package}; run: pip install {package}")
    for start, form in MAGIC:
        if data.startswith(start):
            return form
    raise ValueError("not an image of a known format (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, PGM)")


def _brands(data: bytes) -> Iterator[bytes]:
    """Yield the major brand and the compatible ones of an ISO container's first box."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return (data[i : i + 4] for i in (8, *range(16, end - 3, 4)))


def _opens(form: str, module: str) -> bool:
    """Return whether Pillow opens `form`, itself or by the plug-in `module` if it is installed."""
    Image.init()
    if form not in Image.OPEN:
        try:
            plugin = importlib.import_module(module)
        except ImportError:
            return False
        if hasattr(plugin, "register_heif_opener"):
            plugin.register_heif_opener()
    return form in Image.OPEN


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # Pillow would clip these at 255
        return np.repeat(_grey(image)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _grey(image: Image.Image) -> np.ndarray:
    """Return the uint8 values of grey of 12, 16 or 32 bits, or of floats 0..1. Raises ValueError if no range fits."""
    values = np.asarray(image)
    tags = dict(getattr(image, "tag_v2", {}))  # of a TIFF: 258 bits of a sample, 339 its type (1: unsigned)
    if image.mode == "I" and tags.get(339, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow has no mode for them
    least, largest = values.min(), values.max()
    if not (np.isfinite(least) and np.isfinite(largest) and least >= 0):
        raise ValueError(f"grey values from {least} to {largest}; expected none below 0")
    if image.mode.startswith("I;16") or image.format in ("PPM", "PNG"):
        full = 4095 if tags.get(258) == (12,) else 65535
    elif tags.get(258) == (16,):
        full = 32767  # signed
    else:
        ranges = (1, *RANGES) if image.mode == "F" else RANGES
        full = next((end for end in ranges if largest <= end), 0)
    if largest > full:
        raise ValueError(f"grey values up to {largest}; expected at most {full or RANGES[-1]}")
    grey = np.rint(values * (255 / full)).astype(np.uint8)
    return 255 - grey if tags.get(262) == 0 else grey  # 262: 0 = white is zero


def resize(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (H, W, 3) = `shape` + (3,): bilinear, with antialias when shrinking."""
    if pixels.shape[:2] == shape:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
