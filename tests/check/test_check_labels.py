"""The check of a teacher on images with several labels, with a network that reads the labels off the pixels."""

import numpy as np
import pytest
import torch

from facedistill.backbones import Backbone
from facedistill.check.labels import check_labels, require_labels_fit
from facedistill.cli.show import describe
from facedistill.data import Dataset, Source
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier
from facedistill.models.model import InputSpec, Model

NAMES = ["red", "green", "blue"]


class Colours(Source):
    """Images whose red, green and blue are bright if they have that label."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.path, self.fingerprint = "colours", "0123456789abcdef"
        self.hot = rng.random((40, 3)) < 0.5
        self.multi_hot, self.label_names = self.hot, NAMES
        self.keys = self.class_names = [f"image {i}" for i in range(40)]
        self.labels, self.unlabelled = np.arange(40), np.ones(40, dtype=bool)
        self.noise = rng.integers(0, 60, (40, 3))

    def read(self, i: int) -> np.ndarray:
        colour = (120 * self.hot[i] + self.noise[i] + 40).astype(np.uint8)
        return np.tile(colour, (32, 32, 1))


class MeanColour(Backbone):
    has_features = False

    def __init__(self) -> None:
        super().__init__(3, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def teacher(names: list[str] = NAMES) -> Model:
    """Its rows are the colours; `names` may be wrong."""
    model = Model(MeanColour(), input=InputSpec(size=32))
    model.classifier = Classifier(torch.eye(3), names)
    return model.eval()


def test_a_teacher_that_fits() -> None:
    report = check_labels(teacher(), Dataset(Colours()))
    assert report.passed and not report.warnings
    assert set(report.values["auc"]) == set(NAMES) and min(report.values["auc"].values()) > 0.9
    require_labels_fit(teacher(), teacher().classifier, Dataset(Colours()))  # type: ignore[arg-type]


def test_swapped_names_and_a_part_of_the_labels() -> None:
    report = check_labels(teacher(["green", "blue", "red"]), Dataset(Colours()))
    assert "hardly better than by chance" in report.faults["own_class"]
    swapped = teacher(["green", "blue", "red"])
    with pytest.raises(UserError, match="hardly better than by chance"):
        require_labels_fit(swapped, swapped.classifier, Dataset(Colours()))  # type: ignore[arg-type]
    part = teacher(["red", "green", "other"])
    report = check_labels(part, Dataset(Colours()))
    assert report.passed and "lacks 1 of the labels (blue)" in report.warnings["classes"]


def test_without_a_classifier_or_with_other_names() -> None:
    model = teacher(["x", "y", "z"])
    assert "none of the data's labels" in check_labels(model, Dataset(Colours())).faults["classes"]
    model.classifier = None
    assert "brings no classifier" in check_labels(model, Dataset(Colours())).faults["classes"]


def test_show_names_labels_and_groups() -> None:
    printed = describe("synthetic:identities=40,images=2,size=16,task=attributes")
    assert "80 images with any of 17 labels (smile, glasses, long hair, ...)" in printed
    assert "in 40 groups (id000000, id000001, id000002, ...)" in printed and "largest: " in printed
