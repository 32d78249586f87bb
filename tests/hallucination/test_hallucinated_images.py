"""Folders of images: real low ones to learn from, and faces to write; and the file of a network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from facedistill.errors import UserError
from facedistill.hallucination.adversaries import SCALES
from facedistill.hallucination.fhn import FHN, create_fhn
from facedistill.hallucination.images import LowImages, hallucinate, image_files
from facedistill.hallucination.report import table, text_of, told
from facedistill.hallucination.starts import network_of
from facedistill.hallucination.storing import load_fhn, save_fhn


@pytest.fixture(scope="module")
def network() -> FHN:
    torch.manual_seed(0)
    return create_fhn("tiny").eval()


def write(folder: Path, name: str, side: int, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return pixels


def test_low_images_know_their_scale(tmp_path: Path) -> None:
    for name, side in (("a.png", 4), ("b/c.png", 9), ("d.png", 20), ("e.png", 64)):
        write(tmp_path, name, side)
    write(tmp_path, ".hidden/f.png", 4)
    (tmp_path / "notes.txt").write_text("no image")
    low = LowImages(tmp_path, 32)
    assert low.pixels.shape == (4, 3, 32, 32) and [SCALES[i] for i in low.scales] == [8, 4, 2, 2]
    images, scales = low.draw(6, seed=1, step=5)
    again, _ = low.draw(6, seed=1, step=5)
    assert torch.equal(images, again) and not torch.equal(images, low.draw(6, seed=1, step=6)[0])
    for image, scale in zip(images, scales):
        assert any(torch.equal(image, p) and scale == s for p, s in zip(low.pixels, low.scales))


def test_faces_are_written_with_their_warning(network: FHN, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for name, side in (("ann/1.png", 8), ("ann/1.jpg", 8), ("bob/2.bmp", 40)):
        write(images, name, side, seed=side)
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert hallucinate(network, 32, images, out) == 3
    assert "left out: " in capsys.readouterr().err
    names = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert names == {"ann/1.png.png", "ann/1.jpg.png", "bob/2.png"}
    with Image.open(out / "bob" / "2.png") as image:
        assert image.size == (32, 32) and "no evidence" in image.info["Warning"]
        found = np.asarray(image)
    expected = Image.open(images / "bob" / "2.bmp").resize((32, 32), Image.Resampling.BICUBIC)
    # A new network leaves the face nearly as it is: what is written is that face, not another or a turned one.
    assert np.corrcoef(found.ravel(), np.asarray(expected).ravel())[0, 1] > 0.9


def test_folders_without_images(network: FHN, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"IMAGES .*none: no such folder; expected a folder of images"):
        hallucinate(network, 32, tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match=r"IMAGES .*: no images in it"):
        image_files(tmp_path, "IMAGES")
    (tmp_path / "x.png").write_bytes(b"none")
    with pytest.raises(UserError, match=r"is inside .*, which stays as it is; choose another --out"):
        hallucinate(network, 32, tmp_path, tmp_path)
    with pytest.raises(UserError, match="none of its 1 images can be read"):
        hallucinate(network, 32, tmp_path, tmp_path.parent / "other")


def test_the_file_of_a_network(network: FHN, tmp_path: Path) -> None:
    file = tmp_path / "fhn.safetensors"
    save_fhn(network, 48, file)
    again, size = load_fhn(file)
    assert size == 48 and again.preset == "tiny" and not again.training
    x = torch.randn(1, 3, 48, 48)
    assert torch.equal(again(x), network(x))
    for path in (file, tmp_path):
        assert network_of(path)[1] == 48
    first = file.read_bytes()
    save_fhn(again, 48, file)
    assert file.read_bytes() == first


def test_files_that_are_none(network: FHN, tmp_path: Path) -> None:
    file = tmp_path / "fhn.safetensors"
    with pytest.raises(UserError, match=r"fhn.safetensors: cannot be read .*; expected a hallucination network"):
        network_of(tmp_path)
    save_fhn(network, 32, file)
    tensors = load_file(file)
    header = {"kind": "fhn 1", "preset": "tiny", "size": 32}
    for change in ({"preset": "huge"}, {"size": 33}, {"size": "32"}, {"kind": "x"}):
        save_file(tensors, file, {"facedistill": json.dumps(header | change)})
        with pytest.raises(
            UserError, match=r"no hallucination network; expected fhn\.safetensors, which `hallucinate tr"
        ):
            load_fhn(file)
    save_file(tensors, file, {"facedistill": "{"})
    with pytest.raises(UserError, match="no hallucination network"):
        load_fhn(file)
    name = "decoder.0.0.1.weight"
    for broken in (tensors[name][:1].clone(), torch.full_like(tensors[name], float("nan"))):
        save_file(tensors | {name: broken}, file, {"facedistill": json.dumps(header)})
        with pytest.raises(UserError, match=f"'{name}' is missing, damaged or of another size"):
            load_fhn(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_fhn(file)


def test_figures_in_words() -> None:
    rows = [
        {"pixels": 8, "psnr": 20.0, "psnr_bicubic": 19.0},
        {"pixels": 16, "psnr": 25.123, "psnr_bicubic": 24.0, "identity": 0.5, "identity_bicubic": 0.25},
        {"pixels": 64, "psnr": 30.0},
    ]
    assert told(rows) == "at 16 pixels psnr 25.123 dB (bicubic 24.000), identity 0.500 (bicubic 0.250)"
    assert table(rows)[0] == ["pixels", "psnr", "psnr bicubic", "identity", "identity bicubic"]
    assert table(rows)[3] == ["64", "30.00", "", "", ""]
    text = text_of({"stage": "pairs", "faces": 3, "measured": "held-out faces", "rows": rows})
    assert text.splitlines()[0] == "stage pairs, 3 held-out faces" and "is an invention, and no evidence" in text
