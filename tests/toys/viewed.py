"""Faces of coarse squares, and what a view makes of them."""

import numpy as np
import torch

from facedistill.data.dataset import ImageBatch
from facedistill.data.view import View, seen


def squares(count: int = 6, side: int = 64) -> ImageBatch:
    """Images of 8 x 8 squares of random colours."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = coarse.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    index = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.long)], 1)
    return ImageBatch(images, torch.arange(count), index)


def look(view: View, images: ImageBatch, seed: int = 0, epoch: int = 0, turn: int = 0) -> ImageBatch:
    """The batch as a view shows it, every image for the same time in the epoch."""
    return seen(view, images, seed, epoch, np.full(len(images), turn))
