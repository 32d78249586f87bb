"""Pairs of a clean face and the same face at low resolution, with the priors of the clean one."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch, ImageBatch, View
from facedistill.hallucination.priors import Priors, mirrored
from facedistill.models import resized

MIDDLE = 127.5


@dataclass
class Pairs:
    """A step's images, float32 -1..1.

    Attributes:
        low, high: (B, 3, S, S), pixel over pixel the same face; `low` was shrunk, degraded and enlarged again.
        landmarks: (B, 68, 2), in pixels of `high`; None without priors.
        parsing: int64 (B, S, S); None without priors.
    """

    low: Tensor
    high: Tensor
    landmarks: Tensor | None = None
    parsing: Tensor | None = None


@dataclass
class Geometry:
    """How much faces are moved, so that the network needs no exact alignment: up to `rotate` degrees, and up to the
    share `shift` of the side."""

    rotate: float
    shift: float


def to_network(pixels: Tensor) -> Tensor:
    """Return RGB pixels 0..255 as the network's -1..1, float32."""
    return pixels.float() / MIDDLE - 1


def to_pixels(images: Tensor) -> Tensor:
    """Return the network's images as RGB pixels 0..255, float32, with gradient."""
    return (images + 1) * MIDDLE


def make_pairs(
    images: ImageBatch, priors: Priors | None, size: int, geometry: Geometry, view: View, seed: int, step: int
) -> Pairs:
    """Return the images of a step as pairs; they depend on the arguments alone, so a resumed run sees the same.

    High and low resolution are moved together, and the priors with them.

    Args:
        view: makes the low images of the clean ones.
    """
    pixels = resized(images.images, size) if images.images.shape[-1] != size else images.images.float()
    landmarks = parsing = None
    if priors is not None:
        points, classes = priors.of(images.index[:, 0].numpy())
        points, classes = mirrored(points, classes, images.index[:, 1].numpy().astype(bool))
        landmarks, parsing = torch.from_numpy(points), torch.from_numpy(classes)
    pixels, landmarks, parsing = moved(pixels, landmarks, parsing, geometry, np.random.default_rng([seed, step]))
    clean = pixels.round().clamp(0, 255).to(torch.uint8)
    # A view draws from the seed, the image and the progress of training: the step's own number is as good.
    batch = Batch(clean, clean, [], images.index, step / 2**40, images.labels)
    low = view(batch, seed).images
    return Pairs(to_network(low), to_network(clean), landmarks, None if parsing is None else parsing.long())


def moved(
    pixels: Tensor, landmarks: Tensor | None, parsing: Tensor | None, geometry: Geometry, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Turn and shift every face of a batch; what comes in from outside repeats the edge.

    Classes keep their values (nearest pixel). Shapes: (B, 3, S, S), (B, 68, 2), (B, S, S) -> the same.
    """
    count, size = len(pixels), pixels.shape[-1]
    angles = np.deg2rad(rng.uniform(-geometry.rotate, geometry.rotate, count))
    shifts = rng.uniform(-geometry.shift, geometry.shift, (count, 2)) * 2  # -1..1 is the side
    if not (geometry.rotate or geometry.shift):
        return pixels, landmarks, parsing
    cos, sin = np.cos(angles), np.sin(angles)
    turn = torch.tensor(np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1), dtype=torch.float32)
    shift = torch.tensor(shifts, dtype=torch.float32)[:, :, None]
    grid = F.affine_grid(torch.cat([turn, shift], 2), [count, 1, size, size], align_corners=False)
    pixels = F.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)
    if landmarks is not None:  # the grid says where an output pixel comes from; a point goes the other way
        points = (2 * landmarks + 1) / size - 1
        points = (turn.transpose(1, 2) @ (points.transpose(1, 2) - shift)).transpose(1, 2)
        landmarks = ((points + 1) * size - 1) / 2
    if parsing is not None:
        maps = F.grid_sample(parsing[:, None].float(), grid, "nearest", "border", align_corners=False)
        parsing = maps[:, 0].to(parsing.dtype)
    return pixels, landmarks, parsing


def enlarged(pixels: Tensor, size: int) -> Tensor:
    """Return a batch of RGB pixels of any one size as float32 (B, 3, size, size), bicubic, 0..255."""
    return F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True).clamp(0, 255)
