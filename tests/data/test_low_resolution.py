"""The view `degrade`: what it does to an image."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedistill.data import low_resolution
from facedistill.data.degrade import shrink
from facedistill.data.low_resolution import Degrade
from facedistill.data.views import make_view
from facedistill.errors import UsageError
from viewed import look, squares

PLAIN: dict[str, Any] = {"blur": 0.0, "noise": 0.0, "jpeg": None, "shift": 0.0, "rotate": 0.0, "clean": 0.0}


def test_it_is_what_the_evaluation_does() -> None:
    batch = squares()
    shown = look(Degrade(smallest=16, largest=16, **PLAIN), batch).shown
    assert shown is not None
    for before, after in zip(batch.images, shown):
        expected = shrink(Image.fromarray(before.permute(1, 2, 0).numpy()), 16)
        assert np.array_equal(after.permute(1, 2, 0).numpy(), expected)


def test_sizes_are_log_uniform_and_the_clean_share_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def watched(image: Image.Image, side: int, *_: Any) -> np.ndarray:
        sides.append(side)
        return np.asarray(image)

    monkeypatch.setattr(low_resolution, "shrink", watched)
    image, view = squares(1).images[0].permute(1, 2, 0).numpy(), Degrade(clean=0.25, smallest=8, largest=32)
    for i in range(2000):
        view.image(image, np.random.default_rng(i))
    assert len(sides) / 2000 == pytest.approx(0.75, abs=0.03)
    assert min(sides) == 8 and max(sides) == 32
    assert np.mean(np.array(sides) < 16) == pytest.approx(0.5, abs=0.05)  # half of the sizes below the geometric mean


def test_small_images_are_not_enlarged_first() -> None:
    shown = look(Degrade(smallest=8, largest=112, **PLAIN), squares(4, 16)).shown
    assert shown is not None and shown.shape == (4, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest": 60}, "smallest 60 is above largest 56"),
        ({"clean": 1.5}, "option 'clean'"),
        ({"jpeg": 0}, "option 'jpeg'"),
        ({"teacher": "dirty"}, "option 'teacher'"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_view("degrade", **options)
