"""The losses of the hallucination network (RIM, arXiv 1905.10777, as in the authors' HFN_GAN.py and train_FHN.py).

Their faults are mended: heat maps are 68, not the sum of them; the pixel loss is active in the supervised stage; and
without pairs, nothing is compared across two pictures. The authors' feature losses compare a face with the
hallucination of another person's; here a face is compared with what comes back of itself after both networks.

Images are -1..1. Every function returns a scalar, the mean over the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.hallucination.fhn import Hallucinated

SIGMA = 2 / 112  # of a landmark's Gaussian, as a share of the image's side
Maps = Sequence[Tensor]


def heat_maps(landmarks: Tensor, size: int) -> Tensor:
    """Return a Gaussian of height 1 at every landmark, sigma 2 pixels at 112: (B, 68, 2) -> (B, 68, size, size).

    `landmarks` are (x, y) in pixels; (0, 0) is the centre of the first pixel. One outside the image leaves its map as
    empty as it lies far away.
    """
    line = torch.arange(size, dtype=landmarks.dtype, device=landmarks.device)
    across, down = (torch.exp(-(((line - landmarks[..., i, None]) / (SIGMA * size)) ** 2) / 2) for i in (0, 1))
    return down[..., :, None] * across[..., None, :]


def landmark_loss(maps: Tensor, landmarks: Tensor) -> Tensor:
    """Return the mean squared error of the 68 maps (B, 68, S, S) to those of `landmarks` (B, 68, 2)."""
    return F.mse_loss(maps, heat_maps(landmarks, maps.shape[-1]))


def parsing_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the mean cross-entropy of the logits (B, 13, S, S) to the classes (B, S, S), int64."""
    return F.cross_entropy(logits, classes)


def feature_loss(found: Maps, true: Maps) -> Tensor:
    """Return the sum over the maps of a recogniser, weight 1 each, of the mean squared error."""
    return torch.stack([F.mse_loss(a, b.detach()) for a, b in zip(found, true, strict=True)]).sum()


def prior_losses(found: Hallucinated, landmarks: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """Return the losses of both priors, by name."""
    return {
        "landmark": landmark_loss(found.landmarks, landmarks),
        "parsing": parsing_loss(found.parsing, classes),
    }


def pixel_loss(found: Hallucinated, true: Tensor) -> Tensor:
    """Return the mean squared error of the coarse image, plus that of the fine one."""
    return F.mse_loss(found.coarse, true) + F.mse_loss(found.fine, true)


def is_real(logits: Tensor) -> Tensor:
    """Return the binary cross-entropy of a discriminator's logits to 1."""
    return F.softplus(-logits).mean()


def is_fake(logits: Tensor) -> Tensor:
    """Return the binary cross-entropy of a discriminator's logits to 0."""
    return F.softplus(logits).mean()


def clean_discriminator_loss(real: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
    """Return BCE(d(hr), 1) + BCE(d(coarse(lr)), 0) + BCE(d(SR(lr)), 0), from logits."""
    return is_real(real) + is_fake(coarse) + is_fake(fine)


def low_discriminator_loss(real: Tensor, fake: Tensor, scale_logits: Tensor, scales: Tensor) -> Tensor:
    """Return BCE(d(lr), 1) + BCE(d(g(hr, c)), 0) + CE(classifier(lr), scale of lr), from logits."""
    return is_real(real) + is_fake(fake) + F.cross_entropy(scale_logits, scales)
