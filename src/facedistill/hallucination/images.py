"""Image files in a folder: real faces of low resolution to learn from, and faces to hallucinate."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from facedistill.data import IMAGE_SUFFIXES, decode_image, is_hidden
from facedistill.errors import UserError, printable
from facedistill.files import atomic_write, fingerprint, require_own
from facedistill.hallucination.adversaries import scale_of
from facedistill.hallucination.fhn import FHN
from facedistill.hallucination.measures import rounded
from facedistill.hallucination.pairs import enlarged, to_network
from facedistill.hallucination.sheet import WARNING
from facedistill.progress import say, track


class LowImages:
    """Real faces of low resolution, each enlarged to `size` (bicubic), with its scale: how far it was enlarged.

    Raises:
        UserError: no folder, no images in it, or one that cannot be read.
    """

    def __init__(self, folder: Path, size: int) -> None:
        files = image_files(folder, "hallucination.low")
        self.pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
        self.scales = torch.empty(len(files), dtype=torch.int64)
        for i, file in enumerate(track(files, "reading low images", len(files))):
            image = read(file)
            self.scales[i] = scale_of(min(image.shape[-2:]), size)
            self.pixels[i] = enlarged(image, size)[0].round().to(torch.uint8)
        self.fingerprint = fingerprint("low images", self.pixels.numpy(), self.scales.numpy())

    def draw(self, count: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Return images uint8 (count, 3, size, size) and scales (count,), a function of the arguments alone."""
        places = np.random.default_rng([seed, step, 1]).integers(len(self.pixels), size=count)
        return self.pixels[places], self.scales[places]


def image_files(folder: Path, what: str) -> list[Path]:
    """Return the image files in a folder and below, in order. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"{what} {folder}: no such folder; expected a folder of images")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(str(file.relative_to(folder))) and file.is_file()
    )
    if not files:
        raise UserError(f"{what} {folder}: no images in it; expected files such as .jpg or .png")
    return files


def read(file: Path) -> Tensor:
    """Return an image as uint8 (1, 3, H, W). Raises UserError if it cannot be read."""
    try:
        pixels = decode_image(file.read_bytes())
    except (OSError, ValueError) as e:
        raise UserError(f"{file}: cannot be read: {e}; repair or remove it") from e
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


@torch.inference_mode()
def hallucinate(network: FHN, size: int, images: Path, out: Path) -> int:
    """Write the hallucinated face of every image in a folder as a PNG of the same name; return their number.

    Every PNG says in its own header that it is an invention. Images that cannot be read are named and left out.

    Raises UserError if there are no images, or none can be read, or `out` is inside `images`.
    """
    require_own(out, out, images, "hallucinate")
    device = next(network.parameters()).device
    written, refused = 0, list[str]()
    files = image_files(images, "IMAGES")
    for file in track(files, "hallucinating", len(files)):
        try:
            low = enlarged(read(file), size)
        except UserError as e:
            refused.append(str(e))
            continue
        face = rounded(network(to_network(low).to(device)))[0].permute(1, 2, 0).cpu().numpy()
        target = out / _name(file, files).relative_to(images)
        note = PngImagePlugin.PngInfo()
        note.add_text("Warning", WARNING)
        with atomic_write(target) as temporary:
            Image.fromarray(face).save(temporary, "PNG", pnginfo=note)
        written += 1
    for line in refused:
        say(f"left out: {printable(line)}")
    if not written:
        raise UserError(f"{images}: none of its {len(refused):,} images can be read")
    return written


def _name(file: Path, files: list[Path]) -> Path:
    """Return the name with .png in place of its ending, or after it if another file has the same name otherwise."""
    alone = sum(other.with_suffix("") == file.with_suffix("") for other in files) == 1
    return file.with_suffix(".png") if alone else file.with_name(f"{file.name}.png")
