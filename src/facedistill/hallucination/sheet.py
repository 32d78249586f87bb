"""The contact sheet: for a few faces low, bicubic, coarse, fine, truth, heat maps and parsing, side by side."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from facedistill.files import atomic_write
from facedistill.hallucination.measures import Look, Truth, looked_at, probes, rounded, shrunk

COLUMNS = ("low", "bicubic", "coarse", "fine", "truth", "heat maps", "parsing")
FACES, HEAD, GAP, LETTER = 6, 16, 2, 7  # rows; pixels
WARNING = "A hallucinated face is an invention, and no evidence of anything"
# The colours of the 13 classes.
PALETTE = [(0, 0, 0), (110, 70, 30), (235, 195, 165), (210, 30, 40), (140, 10, 30), (30, 60, 230), (40, 170, 240)]
PALETTE += [(230, 60, 230), (150, 30, 150), (250, 220, 60), (255, 255, 255), (60, 200, 80), (20, 110, 40)]


def draw_sheet(look: Look, truth: Truth) -> Image.Image:
    """Return the sheet of the first faces, each from another number of pixels."""
    size, rows = truth.images.shape[-1], min(FACES, len(truth.images))
    sides = probes(size)[:-1]
    width = max(len(COLUMNS) * (size + GAP), LETTER * len(WARNING))
    sheet = Image.new("RGB", (width, 2 * HEAD + rows * (size + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(COLUMNS):
        draw.text((column * (size + GAP) + 2, 2), name, "black")
    for row in range(rows):
        side, one = sides[row % len(sides)], truth.images[row : row + 1]
        for column, cell in enumerate(_cells(look, one, side)):
            sheet.paste(Image.fromarray(cell), (column * (size + GAP), HEAD + row * (size + GAP)))
        draw.text((2, HEAD + row * (size + GAP) + 2), f"{side} px", "red")
    draw.text((2, 2 + sheet.height - HEAD), WARNING, "red")
    return sheet


def _cells(look: Look, image: Tensor, side: int) -> list[np.ndarray]:
    size, low = image.shape[-1], shrunk(image, side)
    found = looked_at(look, low)
    small = Image.fromarray(_array(image)).resize((side, side), Image.Resampling.BICUBIC)
    pictures = [_array(x) for x in (low, rounded(found.coarse), rounded(found.fine), image)]
    heat = found.landmarks[0].amax(0).clamp_min(0)
    heat = heat / heat.max().clamp_min(1e-6)  # early in training, the peaks are low
    heat = torch.stack([heat, heat * 0.6, 1 - heat]).mul(255).to(torch.uint8)[None]
    parsing = np.array(PALETTE, np.uint8)[found.parsing[0].argmax(0).numpy()]
    return [np.asarray(small.resize((size, size), Image.Resampling.NEAREST)), *pictures, _array(heat), parsing]


def _array(images: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images[0].permute(1, 2, 0).numpy())


def write_sheet(look: Look, truth: Truth, file: Path) -> None:
    """Write the sheet as a PNG."""
    with atomic_write(file) as temporary:
        draw_sheet(look, truth).save(temporary, "PNG")
