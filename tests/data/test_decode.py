import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedistill.data import decode as decode_module
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
        ("GIF", "P"),
        ("TIFF", "RGB"),
        ("TIFF", "CMYK"),
        ("TIFF", "P"),
        ("PPM", "RGB"),
        ("PPM", "L"),
        ("PPM", "1"),
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


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """A TIFF with one strip of `values`, made from the format's definition: 258 bits, 262 photometric, 339 type."""
    type_of_sample = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = {256: values.shape[1], 257: values.shape[0], 258: 8 * values.itemsize, 259: 1, 262: 1}
    entries |= {273: 0, 277: 1, 278: values.shape[0], 279: values.nbytes, 339: type_of_sample}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items())) + bytes(4)
    return head + values.tobytes()


def pgm(values: np.ndarray, most: int) -> bytes:
    return b"P5\n16 16\n%d\n" % most + values.tobytes()


def png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


DEEP = {
    "PNG, 16 bits": png(GREY.astype(np.uint16) * 257),
    "PGM, 16 bits": pgm(GREY.astype(">u2") * 257, 65535),
    "PGM, 10 bits": pgm((GREY.astype(float) * 1023 / 255).round().astype(">u2"), 1023),
    "PGM, as text": b"P2\n16 16\n65535\n" + b" ".join(b"%d" % (257 * int(v)) for v in GREY.ravel()),
    "TIFF, 16 bits": tiff(GREY.astype("<u2") * 257),
    "TIFF, 16 bits, white is zero": tiff((255 - GREY).astype("<u2") * 257, t262=0),
    "TIFF, 16 bits, signed": tiff((GREY.astype(float) * 32767 / 255).astype("<i2")),
    "TIFF, 32 bits with 0..255": tiff(GREY.astype("<i4")),
    "TIFF, 32 bits with 0..65535": tiff(GREY.astype("<i4") * 257),
    "TIFF, 32 bits, signed": tiff((GREY.astype(float) * (2**31 - 1) / 255).astype("<i4")),
    "TIFF, 32 bits, unsigned": tiff((GREY.astype(float) * (2**32 - 1) / 255).astype("<u4")),
    "TIFF, floats 0..1": tiff((GREY / 255).astype("<f4")),
    "TIFF, floats 0..255": tiff(GREY.astype("<f4")),
    "TIFF, floats 0..65535": tiff(GREY.astype("<f4") * 257),
}


@pytest.mark.parametrize("data", DEEP.values(), ids=DEEP)
def test_grey_of_more_than_8_bits_is_scaled_not_clipped(data: bytes) -> None:
    found = decode(data)
    assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - GREY[..., None]).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 1e12])
def test_grey_without_a_known_range_is_refused(value: float) -> None:
    values = (GREY / 255).astype("<f4")
    values[3, 3] = value
    with pytest.raises(ValueError, match="grey values"):
        decode(tiff(values))


def test_the_first_frame_of_an_animation() -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    for form in ("GIF", "WEBP"):
        out = io.BytesIO()
        first.save(out, form, save_all=True, append_images=[second], lossless=True)
        assert np.abs(decode(out.getvalue()).astype(int) - (255, 0, 0)).max() <= 2


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n16 16 scale\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("data", [EPS, b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 12, len(EPS)) + EPS])
def test_nothing_starts_a_program(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **_: started.append(a))
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode(data)
    assert not started


@pytest.mark.parametrize("form", ["ICO", "TGA", "PCX", "SGI", "ICNS", "JPEG2000", "DDS", "PDF"])
def test_formats_that_pillow_writes_and_we_do_not_open(form: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, form)
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode(out.getvalue())


def test_formats_of_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    box = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(ValueError, match="HEIF is opened by the package pillow-heif; run: pip install pillow-heif"):
        decode(box)
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode(b"\0\0\0\x14ftypisom\0\0\0\0mp41")
    Image.init()
    if "AVIF" in Image.OPEN:
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 30, 90)).save(out, "AVIF", quality=100)
        assert np.abs(decode(out.getvalue())[8, 8].astype(int) - (200, 30, 90)).max() <= 5
        monkeypatch.delitem(Image.OPEN, "AVIF")
    with pytest.raises(ValueError, match="AVIF is opened by the package pillow-avif-plugin"):
        decode(b"\0\0\0\x14ftypavif\0\0\0\0avif")


def test_heic_is_opened_upright_where_its_plug_in_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = pytest.importorskip("pillow_heif", reason="the extra 'heic' is not installed")
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32] = (200, 30, 90)  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    out = io.BytesIO()
    plugin.from_pillow(Image.fromarray(pixels)).save(out, quality=100, exif=exif.tobytes())
    data = out.getvalue()
    found = decode(data, upright=True)
    assert found.shape == (64, 48, 3)
    np.testing.assert_allclose(found[16, 24], (200, 30, 90), atol=12)
    np.testing.assert_allclose(found[48, 24], (0, 0, 0), atol=12)
    for damaged in (data[: len(data) // 2], data[:60]):
        with pytest.raises(ValueError):
            decode(damaged)


def large(form: str, side: int = 65500) -> bytes:
    """A small file whose header says side x side, or as much as the format can say."""
    out = io.BytesIO()
    Image.new("L" if form != "WEBP" else "RGB", (16, 16)).save(out, form)
    data = bytearray(out.getvalue())
    if form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif form == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif form == "BMP":
        data[18:26] = struct.pack("<II", side, side)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif form == "PPM":
        return b"P5 %d %d 255 " % (side, side) + bytes(100)
    elif form == "TIFF":
        return tiff(GREY, t256=side, t257=side)
    return bytes(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF"])
def test_a_size_in_a_header_takes_no_memory(form: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"pixels|exceeds limit"):
        decode(large(form))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 << 20


def test_the_limit_of_pixels_can_be_raised(image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("JPEG", "PNG"):
        monkeypatch.setattr(decode_module, "MAX_PIXELS", 63)
        with pytest.raises(ValueError, match="8 x 8 pixels, more than the 63 allowed"):
            decode(image(0, 8, form))
        monkeypatch.setattr(decode_module, "MAX_PIXELS", 64)
        assert decode(image(0, 8, form)).shape == (8, 8, 3)


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


def test_a_bomb_is_one_line_and_pillow_does_not_warn(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(large("PNG"))
    (tmp_path / "large.png").write_bytes(large("PNG", 11_000))  # more than Pillow's limit, less than ours
    code = """import sys; from facedistill.data import decode_image
for name in sys.argv[1:]:
    try: decode_image(open(name, 'rb').read())
    except ValueError as e: print(e)"""
    files = [str(tmp_path / "bomb.png"), str(tmp_path / "large.png")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("more than the 134,217,728 pixels allowed; make the image smaller")
    assert second and done.stderr == ""
