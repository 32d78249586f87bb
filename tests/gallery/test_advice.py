"""Which way to upgrade is good enough, in worlds where the answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from check_toys import SIZE, Patterns, RedEye, red_eye
from facedistill.data.dataset import Dataset
from facedistill.errors import UserError
from facedistill.gallery import Gallery
from facedistill.gallery.advice import judge_upgrade
from facedistill.models.model import Model

PEOPLE = Dataset(Patterns(people=200))
SHARP = {"a": red_eye(space="a"), "b": red_eye(backbone=RedEye(seed=1), space="b")}


class Blurred(RedEye):
    """A worse model of the same space: it adds noise to what it sees, the same for the same image."""

    def forward(self, x: Tensor) -> Tensor:
        clean, noise = super().forward(x), torch.empty(len(x), 16)
        for row, image in zip(noise, x):
            row.normal_(generator=torch.Generator().manual_seed(int(image.double().abs().sum() * 1000) % 2**31))
        return clean + 0.35 * noise


BLURRED = red_eye(backbone=Blurred(), space="a")


def _gallery(tmp_path: Path, old: Model) -> Gallery:
    found = Gallery.create(tmp_path / "g.gallery", space=old.space or "", dim=16)
    found.add("Ada", np.ones(16), made_by=old.fingerprint())
    return found


def test_a_better_model_of_the_same_space_needs_nothing(tmp_path: Path) -> None:
    report = judge_upgrade(SHARP["a"], BLURRED, _gallery(tmp_path, BLURRED), PEOPLE)
    assert report.passed and report.values["good_enough"] == ["a", "b", "c"]
    assert "(a) is good enough: the old vectors as they are, which costs nothing" in report.text()


def test_a_better_model_of_another_space_needs_a_map(tmp_path: Path) -> None:
    """As they are, the old vectors are at chance; mapped, they serve the new model better than they served the old."""
    report = judge_upgrade(SHARP["b"], BLURRED, _gallery(tmp_path, BLURRED), PEOPLE)
    assert report.values["good_enough"] == ["b", "c"] and "(a) is refused" in report.warnings["a"]
    rates = {way: report.values[way]["tar_at_far"]["1e-2"]["value"] for way in ("a", "b", "c")}
    before = report.values["old_old"]["tar_at_far"]["1e-2"]["value"]
    assert rates["a"] < 0.1 < before < rates["b"] < rates["c"]
    assert report.values["b"]["criterion"]["compatible"] is True
    assert "enrolling again would find" in report.values["advice"]


def test_a_worse_model_is_advised_against(tmp_path: Path) -> None:
    report = judge_upgrade(BLURRED, SHARP["a"], _gallery(tmp_path, SHARP["a"]), PEOPLE)
    assert not report.passed and report.values["good_enough"] == [] and "stay with the old model" in report.text()


def test_other_dimensions_cannot_be_compared_but_mapped(tmp_path: Path) -> None:
    wide = red_eye(backbone=RedEye(seed=1), space="c", projection=nn.Linear(16, 24, bias=False))
    report = judge_upgrade(wide, BLURRED, _gallery(tmp_path, BLURRED), PEOPLE)
    assert "a" not in report.values and "b" in report.values["good_enough"]


def test_too_few_images_for_a_map_leave_that_way_out(tmp_path: Path) -> None:
    report = judge_upgrade(SHARP["a"], BLURRED, _gallery(tmp_path, BLURRED), Dataset(Patterns(people=60)))
    assert "b" not in report.values and "c" in report.values


def test_a_gallery_of_another_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds vectors of space a, but the old model is of space b"):
        judge_upgrade(SHARP["a"], SHARP["b"], _gallery(tmp_path, SHARP["a"]), PEOPLE)
    assert SIZE == 16
