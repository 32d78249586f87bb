import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from facedistill.data.decode import decode, resize


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "LA"),
        ("BMP", "RGB"),
        ("WEBP", "RGB"),
    ],
)
def test_every_format_becomes_rgb(image: Callable[..., bytes], form: str, mode: str) -> None:
    pixels = decode(image(1, 16, form, mode))
    expected = np.asarray(Image.open(io.BytesIO(image(1, 16, form, mode))).convert("RGB"))
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_colours_are_in_rgb_order() -> None:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 90)).save(out, "JPEG", quality=100)
    assert np.abs(decode(out.getvalue())[8, 8].astype(int) - (200, 30, 90)).max() <= 3


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16)).save(out, "PNG")
    assert (decode(out.getvalue()) == 0x80).all()


def test_exif_rotation_is_ignored() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    Image.new("RGB", (8, 16)).save(out, "JPEG", exif=exif)
    assert decode(out.getvalue()).shape == (16, 8, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_images_are_refused(image: Callable[..., bytes], form: str, share: float) -> None:
    data = image(2, 64, form)
    with pytest.raises(ValueError):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_cut_anywhere_in_its_pixels_is_refused(image: Callable[..., bytes], mode: str) -> None:
    data = image(3, 64, "JPEG", mode)
    for cut in range(data.index(b"\xff\xda"), len(data) - 8):
        with pytest.raises(ValueError):
            decode(data[:cut])


def test_a_jpeg_with_a_zeroed_end_is_refused(image: Callable[..., bytes]) -> None:
    data = image(4, 64)
    with pytest.raises(ValueError, match=r"remature|orrupt"):
        decode(data[: len(data) - 200] + bytes(200))


def test_text_is_no_image() -> None:
    with pytest.raises(ValueError, match="not an image"):
        decode(b"<html>404</html>")


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[::2] = 200
    assert np.abs(resize(stripes, (16, 8))[2:-2].astype(int) - 100).max() <= 2
    assert resize(stripes, (16, 8)).shape == (16, 8, 3)
    assert resize(stripes, (64, 64)) is stripes
