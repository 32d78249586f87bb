"""PSNR and SSIM against their definitions in float64, and what the figures say of networks that are known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from facedistill.data import open_dataset
from facedistill.hallucination.fhn import Hallucinated, create_fhn
from facedistill.hallucination.losses import heat_maps
from facedistill.hallucination.measures import (
    Truth,
    feature_distance,
    measure,
    probes,
    psnr,
    rounded,
    shrunk,
    ssim,
)
from facedistill.hallucination.pairs import to_network
from facedistill.hallucination.sheet import COLUMNS, FACES, draw_sheet
from facedistill.models import load_model
from tiny_world import Tiny


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def truth() -> Truth:
    """Four rendered faces of 64 x 64 with their priors."""
    dataset = open_dataset("synthetic:identities=4,images=1,size=64,seed=5")
    found = [dataset.source.priors(i) for i in range(4)]
    points, classes = (torch.from_numpy(np.stack(x)) for x in zip(*found))
    return Truth(dataset.batch(range(4)).images, points, classes)


def same(x: Tensor) -> Hallucinated:
    """A network that leaves images as they are."""
    return Hallucinated(x, x, torch.zeros(len(x), 68, *x.shape[2:]), torch.zeros(len(x), 13, *x.shape[2:]))


def test_psnr_is_its_definition() -> None:
    a, b = draw(0, 3, 3, 20, 24), draw(1, 3, 3, 20, 24)
    for i in range(3):
        x, y = (t[i].numpy().astype(np.float64) for t in (a, b))
        expected = 20 * np.log10(255) - 10 * np.log10(((x - y) ** 2).mean())
        assert psnr(a, b)[i].item() == pytest.approx(expected, rel=1e-12)
    one = a.clone()
    one[:] = 0
    assert psnr(one, one + 1)[0].item() == pytest.approx(48.1308036)  # the classical figure of an error of one


def test_ssim_is_its_definition() -> None:
    """Window by window, with an 11 x 11 Gaussian of sigma 1.5 that sums to 1."""
    a = draw(0, 1, 3, 14, 15)
    b = (a.double() * 0.7 + draw(1, 1, 3, 14, 15).double() * 0.3).round().to(torch.uint8)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line)
    window /= window.sum()
    c1, c2, values = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for channel in range(3):
        x, y = (t[0, channel].numpy().astype(np.float64) for t in (a, b))
        for row in range(4):
            for column in range(5):
                p, q = (t[row : row + 11, column : column + 11] for t in (x, y))
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                covariance = (window * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * covariance + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b).item() == pytest.approx(np.mean(values), rel=1e-9)
    assert ssim(a, a).item() == pytest.approx(1)


def test_feature_distance_ignores_the_length_of_features() -> None:
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    expected = []
    for i in range(2):
        cosines = [float(torch.cosine_similarity(a[i, :, r, c], b[i, :, r, c], 0)) for r in range(3) for c in range(3)]
        expected.append(np.mean([2 - 2 * value for value in cosines]))
    assert feature_distance([a], [b]).tolist() == pytest.approx(expected, rel=1e-5)
    assert feature_distance([a, 3 * a], [2 * a, a]).tolist() == pytest.approx([0, 0], abs=1e-10)


def test_probe_sizes() -> None:
    assert probes(112) == [8, 12, 16, 20, 28, 56, 112] and probes(28) == [8, 12, 16, 20, 28]


def test_shrinking_is_bicubic_there_and_back(truth: Truth) -> None:
    low = shrunk(truth.images, 8)
    image = Image.fromarray(truth.images[1].permute(1, 2, 0).numpy())
    expected = image.resize((8, 8), Image.Resampling.BICUBIC).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(low[1].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert torch.equal(shrunk(truth.images, 64), truth.images)


def test_a_network_that_does_nothing_is_as_good_as_bicubic(truth: Truth, tiny: Tiny) -> None:
    teacher = load_model(tiny.teacher)
    rows = measure(same, Truth(truth.images), teacher, teacher)
    assert [row["pixels"] for row in rows] == [8, 12, 16, 20, 28, 56, 64]
    for row in rows[:-1]:
        for name in ("psnr", "ssim", "identity", "features"):
            assert row[name] == row[f"{name}_bicubic"]
    assert all(a["psnr"] < b["psnr"] and a["ssim"] < b["ssim"] for a, b in pairwise(rows))
    assert rows[-1]["identity"] == pytest.approx(1) and rows[-1]["ssim"] == pytest.approx(1)
    assert "psnr_bicubic" not in rows[-1] and rows[0]["identity"] < 1 and rows[0]["features"] > rows[-2]["features"]


def test_a_network_that_knows_the_priors(truth: Truth) -> None:
    landmarks, classes = truth.landmarks, truth.classes
    assert landmarks is not None and classes is not None
    maps = heat_maps(landmarks, 64)
    logits = torch.nn.functional.one_hot(classes.long(), 13).permute(0, 3, 1, 2).float()
    rows = measure(lambda x: Hallucinated(x, x, maps, logits), truth, pictures=False)
    assert all(row["parsing_accuracy"] == 1 and row["landmark_error"] < 0.75 / 64 and "psnr" not in row for row in rows)
    row = measure(lambda x: Hallucinated(x, x, maps.roll(16, 3), logits.roll(1, 1)), truth, pictures=False)[0]
    assert row["parsing_accuracy"] == 0 and row["landmark_error"] > 0.2


def test_rounding_keeps_to_pixels() -> None:
    assert rounded(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 128, 255, 255]
    assert torch.equal(rounded(to_network(draw(0, 2, 3, 4, 4))), draw(0, 2, 3, 4, 4))


def test_the_contact_sheet(truth: Truth) -> None:
    network = create_fhn("tiny").eval()
    many = Truth(truth.images.repeat(3, 1, 1, 1))
    sheet = np.asarray(draw_sheet(network.with_priors, many))
    assert sheet.shape == (2 * 16 + FACES * 66, len(COLUMNS) * 66, 3)
    cells = [sheet[16 : 16 + 64, c * 66 : c * 66 + 64] for c in range(len(COLUMNS))]
    assert np.array_equal(cells[4][20:], truth.images[0].permute(1, 2, 0).numpy()[20:])
    assert np.array_equal(cells[1][20:], shrunk(truth.images[:1], 8)[0].permute(1, 2, 0).numpy()[20:])
    assert len(np.unique(cells[0][20:].reshape(-1, 3), axis=0)) <= 64  # eight pixels a side, enlarged as they are
    assert (sheet[-14:, :, 1] < 128).any() and sheet[-14:, :, 0].min() > 200  # the warning, in red
