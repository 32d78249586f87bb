"""The losses against their formulas, written out in float64 numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from facedistill.hallucination.fhn import Hallucinated
from facedistill.hallucination.losses import (
    clean_discriminator_loss,
    feature_loss,
    heat_maps,
    is_fake,
    is_real,
    landmark_loss,
    low_discriminator_loss,
    parsing_loss,
    pixel_loss,
    prior_losses,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bce(logits: Tensor, target: float) -> float:
    p = 1 / (1 + np.exp(-logits.numpy()))
    return float(np.mean(-(target * np.log(p) + (1 - target) * np.log(1 - p))))


def cross_entropy(logits: np.ndarray, target: int) -> float:
    return float(-logits[target] + np.log(np.exp(logits).sum()))


def test_a_heat_map_is_a_gaussian_of_two_pixels_at_112() -> None:
    points = torch.tensor([[[30.5, 60.0], [-3.0, 111.0]]], dtype=torch.float64)
    maps = heat_maps(points, 112)[0].numpy()
    for (x, y), one in zip(points[0].tolist(), maps):
        for row, column in ((60, 30), (58, 33), (111, 0), (0, 0)):
            assert one[row, column] == pytest.approx(
                np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 2**2)), abs=1e-12
            )
    assert maps[1].max() == pytest.approx(np.exp(-9 / 8))  # a point outside leaves its tail
    half = heat_maps((points + 0.5) / 2 - 0.5, 56)[0].numpy()
    assert half[0, 30, 15] == pytest.approx(np.exp(-(0.0**2 + 0.25**2) / 2), abs=1e-12)  # 30.5 is 15 at half the size


def test_landmarks_and_parsing() -> None:
    points, maps = draw(2, 68, 2).abs() * 8, draw(2, 68, 16, 16, seed=1)
    logits, classes = draw(2, 13, 16, 16, seed=2), torch.randint(13, (2, 16, 16))
    true = np.empty((2, 68, 16, 16))
    for b, k in np.ndindex(2, 68):
        x, y = points[b, k].tolist()
        rows, columns = np.mgrid[:16, :16]
        true[b, k] = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (2 * 16 / 112) ** 2))
    expected = np.mean((maps.numpy() - true) ** 2)
    assert landmark_loss(maps, points).item() == pytest.approx(expected, rel=1e-10)
    places = [(b, i, j) for b in range(2) for i in range(16) for j in range(16)]
    entropy = np.mean([cross_entropy(logits[b, :, i, j].numpy(), int(classes[b, i, j])) for b, i, j in places])
    assert parsing_loss(logits, classes).item() == pytest.approx(entropy, rel=1e-10)
    found = prior_losses(Hallucinated(maps, maps, maps, logits), points, classes)
    assert found["landmark"].item() == pytest.approx(expected) and found["parsing"].item() == pytest.approx(entropy)


def test_sixty_eight_maps_are_not_their_sum() -> None:
    """The published code compares the sum of all channels with one map, so an exchange of points costs nothing."""
    points = torch.full((1, 68, 2), 4.0)
    points[0, 1] = 11.0
    maps = heat_maps(points, 16)
    exchanged = maps[:, [1, 0, *range(2, 68)]]
    assert torch.equal(exchanged.sum(1), maps.sum(1)) and landmark_loss(maps, points) == 0
    assert landmark_loss(exchanged, points) > 1e-4


def test_pixels_and_features() -> None:
    coarse, fine, true = (draw(2, 3, 4, 4, seed=i) for i in range(3))
    expected = np.mean((coarse - true).numpy() ** 2) + np.mean((fine - true).numpy() ** 2)
    assert pixel_loss(Hallucinated(coarse, fine, coarse, coarse), true).item() == pytest.approx(expected)
    ours, theirs = ([draw(2, c, s, s, seed=c + k) for c, s in ((4, 6), (8, 3))] for k in (0, 50))
    expected = sum(np.mean((a - b).numpy() ** 2) for a, b in zip(ours, theirs))
    assert feature_loss(ours, theirs).item() == pytest.approx(expected)


def test_the_true_face_gets_no_gradient_from_features() -> None:
    ours, theirs = draw(1, 2, 3, 3).requires_grad_(), draw(1, 2, 3, 3, seed=1).requires_grad_()
    feature_loss([ours], [theirs]).backward()
    assert ours.grad is not None and theirs.grad is None


def test_discriminators() -> None:
    real, coarse, fine = (draw(2, 1, 3, 3, seed=i) for i in range(3))
    assert is_real(real).item() == pytest.approx(bce(real, 1)) and is_fake(real).item() == pytest.approx(bce(real, 0))
    expected = bce(real, 1) + bce(coarse, 0) + bce(fine, 0)
    assert clean_discriminator_loss(real, coarse, fine).item() == pytest.approx(expected)
    logits, scales = draw(2, 3, seed=7), torch.tensor([2, 0])
    entropy = np.mean([cross_entropy(logits[i].numpy(), int(scales[i])) for i in range(2)])
    expected = bce(real, 1) + bce(fine, 0) + float(entropy)
    assert low_discriminator_loss(real, fine, logits, scales).item() == pytest.approx(expected)


def test_sure_discriminators_stay_finite() -> None:
    assert is_real(torch.tensor([-1e4])).item() == 1e4 and is_fake(torch.tensor([1e4])).item() == 1e4


def test_gradients() -> None:
    points = draw(1, 68, 2).abs() * 4
    maps = draw(1, 68, 4, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: landmark_loss(m, points), maps)
    real, fake = draw(1, 1, 2, 2).requires_grad_(), draw(1, 1, 2, 2, seed=1).requires_grad_()
    logits = draw(1, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r, f, s: low_discriminator_loss(r, f, s, torch.tensor([1])), (real, fake, logits)
    )
