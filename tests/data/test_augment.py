"""The view `augment`: one number for its strength, every change it promises, and its published rivals."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facedistill.data import augment, published_views
from facedistill.data.augment import CHANCE, Augment
from facedistill.data.dataset import ImageBatch
from facedistill.data.published_views import shrunk, windowed
from facedistill.data.synthetic.faces import SyntheticFaces
from facedistill.data.views import make_view
from facedistill.errors import UsageError
from viewed import look, squares


@pytest.fixture(scope="module")
def faces() -> ImageBatch:
    source = SyntheticFaces(identities=20, images=2, size=48, seed=1)
    pixels = np.stack([source.read(i) for i in range(40)]).transpose(0, 3, 1, 2)
    index = torch.stack([torch.arange(40), torch.zeros(40, dtype=torch.long)], 1)
    return ImageBatch(torch.from_numpy(pixels.copy()), torch.from_numpy(source.labels), index)


def _changed(view: Augment, faces: ImageBatch, epochs: int = 4) -> np.ndarray:
    """The mean difference from the clean face of each image, in 0..255."""
    clean, found = faces.images.numpy().astype(int), []
    for epoch in range(epochs):
        shown = look(view, faces, epoch=epoch).shown
        assert shown is not None
        found.append(np.abs(shown.numpy() - clean).mean((1, 2, 3)))
    return np.concatenate(found)


def test_strength_0_is_the_image_itself_and_more_changes_more(faces: ImageBatch) -> None:
    changes = [_changed(Augment(strength), faces).mean() for strength in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert changes[0] == 0 and changes == sorted(changes) and changes[1] < 0.35 * changes[-1]
    assert changes[-1] > 10


@pytest.mark.parametrize("name", CHANCE)
def test_each_change_alone_changes_the_image_as_often_as_it_says(
    name: str, faces: ImageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment, "CHANCE", {other: CHANCE[other] if other == name else 0.0 for other in CHANCE})
    happened = (_changed(Augment(1.0), faces, 10) > 0).mean()
    assert happened == pytest.approx(CHANCE[name], abs=0.07)


def test_every_change_stays_within_its_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pure functions are asked for, at half strength, against the table of the documentation."""
    asked: dict[str, list[float]] = {"turn": [], "scale": [], "across": [], "share": [], "bright": [], "gain": []}
    sides: list[float] = []
    blurs: list[float] = []
    jpegs: list[float] = []

    def moved(image: np.ndarray, *where: float) -> Image.Image:
        for name, value in zip(("turn", "scale", "across", "across"), where):
            asked[name].append(value)
        return Image.fromarray(image)

    def recoloured(picture: Image.Image, *factors: Any, saturation: float = 1.0) -> Image.Image:
        asked["bright"] += [f for f in factors[:3] if f]
        asked["gain"] += factors[3] if len(factors) > 3 else []
        return picture

    def blurred(picture: Image.Image, sigma: float) -> Image.Image:
        blurs.append(sigma)
        return picture

    def covered(image: np.ndarray, share: float, *_: object) -> np.ndarray:
        asked["share"].append(share)
        return image

    def shrink(picture: Image.Image, side: int | None, blur: float, jpeg: int | None, grain: object) -> np.ndarray:
        for values, value in ((sides, side or 112), (jpegs, jpeg or 100)):
            values.append(value)
        return np.asarray(picture)

    for function in (moved, recoloured, covered, blurred, shrink):
        monkeypatch.setattr(augment, function.__name__, function)
    image, view = np.zeros((112, 112, 3), np.uint8), Augment(0.5)
    for i in range(3000):
        view.image(image, np.random.default_rng(i))
    ranges = {"turn": (-10, 10), "scale": (1.25**-0.5, 1.25**0.5), "across": (-5.6, 5.6), "share": (0, 0.15)}
    ranges |= {"bright": (0.75, 1.25), "gain": (0.9, 1.1)}
    for name, (low, high) in ranges.items():
        assert low - 1e-9 <= min(asked[name]) < low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) < max(asked[name]) <= high + 1e-9, name
    assert min(sides) == round(112 / 7**0.5) and 1.3 < max(blurs) <= 1.4 and min(jpegs) in (60, 61, 62)


def test_grey_images_are_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "CHANCE", {name: float(name == "grey") for name in CHANCE})
    shown = look(Augment(1.0), squares(8)).shown
    assert shown is not None and (shown.int().amax(1) - shown.int().amin(1)).max() == 0


@pytest.mark.parametrize("strength", [-0.1, 1.5, "much"])
def test_a_strength_outside_0_to_1_is_one_line(strength: object) -> None:
    with pytest.raises(UsageError, match="view 'augment': option 'strength': Input should be"):
        make_view("augment", strength=strength)


def test_a_window_leaves_black_around_it_and_the_rest_in_place() -> None:
    rng, shares = np.random.default_rng(0), []
    white = Image.new("RGB", (64, 64), (255, 200, 100))
    for _ in range(300):
        found = np.asarray(windowed(white, rng))
        rows, columns = np.nonzero(found[..., 0])
        high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert high * wide == len(rows) and 0.72 < wide / high < 1.4
        shares.append(len(rows) / 64**2)
    assert min(shares) == pytest.approx(0.2, abs=0.03) and max(shares) > 0.85


def test_low_resolution_keeps_the_size_and_smooths(faces: ImageBatch) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    rough = [np.asarray(shrunk(picture, np.random.default_rng(i))).astype(float).std() for i in range(60)]
    assert shrunk(picture, np.random.default_rng(0)).size == (64, 64)
    assert min(rough) < 35 and max(rough) < 90  # of 74: a Lanczos filter may overshoot


def test_the_published_ones_change_as_many_images_as_published(faces: ImageBatch) -> None:
    ada, cvl = (make_view(name) for name in ("adaface", "cvlface"))
    assert (_changed(ada, faces, 10) > 0).mean() == pytest.approx(1 - 0.8**3, abs=0.06)  # type: ignore[arg-type]
    assert (_changed(cvl, faces, 2) > 0).mean() > 0.97  # type: ignore[arg-type]


def test_rare_changes_of_cvlface_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equalised or grey: two of seven choices, drawn three times over: (2/7)^3."""
    equalised = Image.new("RGB", (8, 8))
    monkeypatch.setattr(published_views.ImageOps, "equalize", lambda _: equalised)
    picture = Image.new("RGB", (8, 8), (9, 9, 9))
    found = [published_views._rand_augmented(picture, np.random.default_rng(i)) for i in range(4000)]
    assert sum(one is equalised for one in found) / 4000 == pytest.approx((2 / 7) ** 2 / 7, abs=0.004)
