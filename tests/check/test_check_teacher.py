"""check_teacher: each single fault on a teacher that sees one colour, with centres and with a W of its own."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from check_toys import Patterns, red_eye
from facedistill.check import CheckReport, check_teacher, teacher as module
from facedistill.data.dataset import Dataset
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier
from facedistill.head.margins import ArcFace
from facedistill.head.starts import centres, fit_classifier
from facedistill.models.embed import embed_dataset
from facedistill.models.model import Model

DATA = Dataset(Patterns(people=60, photos=6))


def check(model: Model, data: Dataset = DATA, scale: float = 16.0, **options: Any) -> CheckReport:
    return check_teacher(model, data, ArcFace(0.1), scale, images=300, **options)


def with_w(origin: str, roll: int = 0, **options: Any) -> Model:
    """A teacher with W, the rows moved on by `roll` under the same names."""
    table = embed_dataset(red_eye(), DATA)
    own = centres(table) if origin == "centres" else fit_classifier(table, ArcFace(0.1), 16, epochs=5)
    moved = Classifier(own.weight.roll(roll, 0), own.class_names, own.origin)
    return red_eye(**options, classifier=moved)


@pytest.mark.parametrize("model", [red_eye(), with_w("centres"), with_w("fitted")], ids=["no W", "centres", "fitted"])
def test_a_teacher_that_fits_passes_without_a_warning(model: Model) -> None:
    report = check(model)
    assert report.passed and not report.warnings, report.text()
    assert report.text().endswith("check passed")
    assert report.values["fit"]["own_class"] > 0.9


def test_without_w_it_says_that_class_order_cannot_be_told() -> None:
    assert "a wrong class order is impossible" in check(red_eye()).text()
    assert "cannot be told" not in check(with_w("centres")).text()


@pytest.mark.parametrize("origin", ["centres", "fitted"])
def test_permuted_class_names_fail_and_w_is_blamed(origin: str) -> None:
    report = check(with_w(origin, roll=1))
    assert list(report.faults) == ["own_class"]
    assert "to their own class's centre: the class names or their order do not fit W" in report.faults["own_class"]


@pytest.mark.parametrize("origin", ["centres", "fitted"])
def test_two_exchanged_names_are_a_warning_that_names_them(origin: str) -> None:
    model = with_w(origin)
    own = model.classifier
    assert own is not None
    names = list(own.class_names)
    names[3], names[7] = names[7], names[3]
    model.classifier = Classifier(own.weight, names, own.origin)
    report = check(model)
    assert report.passed and "person003, person007" in report.warnings["names"]


@pytest.mark.parametrize("origin", ["no W", "centres", "fitted"])
@pytest.mark.parametrize(("colour", "mean", "std"), [("bgr", 127.5, 127.5), ("rgb", 0.0, 1.0)])
def test_a_wrong_input_fails_and_names_the_right_one(origin: str, colour: str, mean: float, std: float) -> None:
    wrong: dict[str, Any] = {"colour": colour, "mean": mean, "std": std}
    report = check(red_eye(**wrong) if origin == "no W" else with_w(origin, **wrong))
    # / 127.5 - 1 and / 128 are one to this network, and it must say so; the other colour order alone comes first.
    right = report.values["right_input"]
    assert {"RGB /127.5 - 1", "RGB (x - 127.5) / 128"} <= set(right) and not any(c.startswith("BGR") for c in right)
    assert colour == "rgb" or right[0] == "RGB /127.5 - 1"
    assert f"with {right[0]} genuine pairs" in report.faults["input"] and right[1] in report.faults["input"]


@pytest.mark.parametrize("w_from", ["no W", "clean", "the faulty labels"])
def test_swapped_labels_are_a_warning_even_where_w_learnt_them(w_from: str) -> None:
    source = Patterns(people=60, photos=6)
    moved = np.random.default_rng(0).choice(len(source), len(source) // 10, replace=False)
    source.labels = source.labels.copy()
    source.labels[moved] = source.labels[np.roll(moved, 1)]
    data = Dataset(source)
    model = red_eye() if w_from == "no W" else with_w("fitted")
    if w_from == "the faulty labels":
        model = red_eye(classifier=fit_classifier(embed_dataset(red_eye(), data), ArcFace(0.1), 16, epochs=20))
    report = check(model, data)
    assert "labels" in report.warnings, report.text()


def test_classes_that_w_lacks_are_one_clear_line_and_the_rest_is_still_measured() -> None:
    model = with_w("fitted")
    assert model.classifier is not None
    model.classifier = model.classifier.select(model.classifier.class_names[:50])
    report = check(model)
    assert list(report.faults) == ["classes"]
    assert "10 of 60 classes of the data have no row in W (person050" in report.faults["classes"]
    assert "W: has 50 classes, the data 60" in report.lines
    assert report.values["conventions"] and report.values["fit_by_centres"]


def test_a_class_whose_images_are_all_unreadable_is_not_missed_in_w() -> None:
    class Torn(Patterns):
        def read(self, i: int) -> np.ndarray:
            if self.labels[i] == 3:
                raise ValueError("torn")
            return super().read(i)

    model = with_w("centres")
    assert model.classifier is not None
    names = model.classifier.class_names
    model.classifier = model.classifier.select([*names[:3], *names[4:]])
    report = check(model, Dataset(Torn(people=60, photos=6), max_unreadable=0.1))
    assert report.passed and report.values["fit"]["classes"] == 59


def test_w_may_have_more_classes_than_the_data() -> None:
    report = check(with_w("fitted"), DATA.subset(np.arange(180)))
    assert report.passed and "W: has 60 classes, the data 30" in report.lines
    assert report.values["fit"]["classes"] == 30


def test_too_hard_a_margin_softmax_warns_with_a_way_out() -> None:
    report = check_teacher(red_eye(), DATA, ArcFace(1.5), 128, images=300)
    assert (
        report.passed and "exceeds log C = 4.09" in report.warnings["loss"] and "try margin" in report.warnings["loss"]
    )


def test_a_narrow_cone_warns() -> None:
    report = check(red_eye(offset=torch.full((16,), -5.0)))
    assert "import the teacher with --centre" in report.warnings["crowded"]


def test_an_untrained_network_is_told() -> None:
    grey = Patterns(people=60, photos=6)
    data = Dataset(grey)
    grey.pixels = np.random.default_rng(0).integers(0, 255, grey.pixels.shape, dtype=np.uint8)
    report = check(red_eye(), data)
    assert not report.passed and "no input convention separates people" in report.warnings["input"]


def test_the_bar_can_be_lowered() -> None:
    model = with_w("fitted", roll=1)
    assert not check(model, least=0.5).passed
    assert check(model, least=0.0).passed


def test_large_data_is_sampled_by_whole_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 100)
    report = check(with_w("fitted"))
    assert "measured on 96 of 360 images, whole classes drawn at random" in report.lines
    assert report.values["fit"]["classes"] == 60 and report.values["fit_by_centres"]["classes"] == 16
    monkeypatch.setattr(module, "MOST_IMAGES", 5)  # fewer than a class has
    assert len(module._whole_classes(DATA)) == 5


def test_the_numbers_go_into_json() -> None:
    found = json.loads(json.dumps(check(with_w("fitted", roll=1)).to_json()))
    assert found["passed"] is False and found["faults"].keys() == {"own_class"}
    assert len(found["conventions"]) == 10 and found["fit"]["chance_loss"] == pytest.approx(np.log(60))


def test_a_teacher_without_a_network_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="no network"):
        check(Model(None, classifier=with_w("centres").classifier))
