"""How near a hallucinated face is to the true one: PSNR, SSIM, features and identity, each beside bicubic's.

Images are uint8 (N, 3, H, W), RGB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import shrink
from facedistill.hallucination.fhn import Hallucinated
from facedistill.hallucination.losses import Maps
from facedistill.hallucination.pairs import to_network, to_pixels
from facedistill.models import Model

PROBES = (8, 12, 16, 20, 28, 56)  # sides in pixels
AT_ONCE = 8  # images through a network
WINDOW, SPREAD = 11, 1.5  # of SSIM
Look = Callable[[Tensor], Hallucinated]


@dataclass
class Truth:
    """The faces that a network is measured on.

    Attributes:
        images: uint8 (N, 3, S, S).
        landmarks, classes: their priors, float32 (N, 68, 2) and uint8 (N, S, S); None if they are not known.
    """

    images: Tensor
    landmarks: Tensor | None = None
    classes: Tensor | None = None


def psnr(found: Tensor, true: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of every image in dB, float64 (N,): 10 log10(255^2 / MSE), over RGB."""
    error = (found.double() - true.double()).square().mean((1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def ssim(found: Tensor, true: Tensor) -> Tensor:
    """Return the structural similarity of every image, float64 (N,) (Wang et al., IEEE TIP 13(4), 2004).

    Windows of 11 x 11, Gaussian of sigma 1.5, inside the image; K1 = 0.01, K2 = 0.03; the mean over windows and RGB.
    """
    x, y = found.double(), true.double()
    mx, my = _blurred(x), _blurred(y)
    vx, vy, covariance = _blurred(x * x) - mx * mx, _blurred(y * y) - my * my, _blurred(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return value.mean((1, 2, 3))


def _blurred(x: Tensor) -> Tensor:
    line = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    taps = torch.exp(-((line / SPREAD) ** 2) / 2)
    taps = taps / taps.sum()
    rows = F.conv2d(x.flatten(0, 1)[:, None], taps[None, None, None])
    return F.conv2d(rows, taps[None, None, :, None]).unflatten(0, x.shape[:2])[:, :, 0]


def feature_distance(found: Maps, true: Maps) -> Tensor:
    """Return the distance of every image's features, (N,): of maps with channels of unit length, the squared distance
    at a place, its mean over places, and over maps (as LPIPS, arXiv 1801.03924, without its learnt weights)."""
    parts = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2)) for a, b in zip(found, true)]
    return torch.stack(parts).mean(0)


def probes(size: int) -> list[int]:
    """Return the sides at which faces of size x size are measured, the whole size last."""
    return [p for p in PROBES if p < size] + [size]


def shrunk(images: Tensor, side: int) -> Tensor:
    """Return images as a camera far away gives them: `side` x `side` pixels, enlarged again, bicubic."""
    if side >= images.shape[-1]:
        return images
    small = [shrink(Image.fromarray(i), side) for i in images.permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)


@torch.no_grad()
def looked_at(look: Look, images: Tensor) -> Hallucinated:
    """Return what a network gives for images, a few at a time."""
    parts = [[maps.cpu() for maps in look(to_network(part))] for part in images.split(AT_ONCE)]
    return Hallucinated(*(torch.cat(maps) for maps in zip(*parts)))


def rounded(images: Tensor) -> Tensor:
    """Return the network's images as uint8 pixels."""
    return to_pixels(images).round().clamp(0, 255).to(torch.uint8)


def measure(
    look: Look, truth: Truth, teacher: Model | None = None, features: Model | None = None, pictures: bool = True
) -> list[dict[str, float]]:
    """Return the figures of each probe size: "pixels", and by name the means over the images.

    psnr, ssim: higher is better. identity: the cosine of the teacher's embedding of the hallucinated face to that of
    the true one. features: see `feature_distance`; lower is better. NAME_bicubic is the same of the enlarged image
    alone. landmark_error is the mean distance of a heat map's peak to its landmark, as a share of the image's side;
    parsing_accuracy the share of pixels. What needs a teacher, its features or priors is absent without them.

    Args:
        pictures: False if the network gives priors alone.
    """
    rows = []
    for side in probes(truth.images.shape[-1]):
        low = shrunk(truth.images, side)
        found = looked_at(look, low)
        row: dict[str, float] = {"pixels": side}
        for name, images in (("", rounded(found.fine)), ("_bicubic", low)) if pictures else ():
            if name and side == truth.images.shape[-1]:
                continue  # the image itself
            row |= {key + name: value for key, value in _image_figures(images, truth, teacher, features).items()}
        rows.append(row | _prior_figures(found, truth))
    return rows


@torch.no_grad()
def _image_figures(images: Tensor, truth: Truth, teacher: Model | None, features: Model | None) -> Mapping[str, float]:
    figures = {"psnr": psnr(images, truth.images), "ssim": ssim(images, truth.images)}
    if teacher is not None:
        one, other = (teacher.embed(x, flip="none").cpu() for x in (images, truth.images))
        figures["identity"] = (one * other).sum(1)
    if features is not None:
        maps = (features.outputs(x.to(features.device)).features for x in (images, truth.images))
        figures["features"] = feature_distance(*maps)
    return {name: value.double().mean().item() for name, value in figures.items()}


def _prior_figures(found: Hallucinated, truth: Truth) -> dict[str, float]:
    if truth.landmarks is None or truth.classes is None:
        return {}
    size = truth.images.shape[-1]
    peaks = found.landmarks.flatten(2).argmax(2)
    points = torch.stack([peaks % size, peaks // size], 2)
    error = (points - truth.landmarks).norm(dim=2).mean() / size
    right = (found.parsing.argmax(1) == truth.classes).double().mean()
    return {"landmark_error": error.item(), "parsing_accuracy": right.item()}
