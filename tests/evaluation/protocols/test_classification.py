"""Classification by the rows of W and by centres against scikit-learn, and what it does with ties."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics
from sklearn.neighbors import NearestCentroid

from facedistill.evaluation.protocols import classification
from facedistill.evaluation.protocols.classification import Classification, Head, calibration_error, classify
from facedistill.evaluation.statistics import draws

NAMES = [f"class {i}" for i in range(12)]


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def example(classes: int = 40, dim: int = 16) -> tuple[np.ndarray, np.ndarray, Head]:
    """12 labels that are rows of W in any order, the last without an image; classes of unequal size."""
    rng = np.random.default_rng(0)
    weight, rows = unit(rng.normal(size=(classes, dim))), rng.permutation(classes)[:12]
    labels = rng.integers(0, rng.integers(1, 12, 300))
    probe = unit(weight[rows[labels]] + 0.3 * rng.normal(size=(300, dim)))
    return probe, labels, Head(weight, rows, np.array([500, 100, 99, 50, 21, 20, 5, 4, 3, 2, 1, 1]), 8.0)


def measured(resamples: int = 0, **changed: object) -> Classification:
    probe, labels, head = example()
    return classify(probe, probe, labels, NAMES, replace(head, **changed), resamples=resamples)  # type: ignore[arg-type]


@pytest.mark.parametrize("held", [4 * 300 * 12, 300 * 12, 3 * 40])
def test_figures_are_those_of_sklearn(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "HELD_SCORES", held)
    probe, labels, head = example()
    found = {name: estimate.value for name, estimate in measured().figures.items()}
    score, own = probe @ head.weight.T, head.rows[labels]
    there = np.unique(own)
    answer = score.argmax(axis=1)
    each = dict(zip(there, metrics.recall_score(own, answer, labels=there, average=None), strict=True))
    expected = {
        "top1": (answer == own).mean(),
        "top5": metrics.top_k_accuracy_score(own, score, k=5, labels=np.arange(len(head.weight))),
        "per_class": metrics.recall_score(own, answer, labels=there, average="macro"),
        "macro_f1": metrics.f1_score(own, answer, labels=there, average="macro"),
        "many_shots": np.mean([each[r] for r in head.rows[:2]]),
        "medium_shots": np.mean([each[r] for r in head.rows[2:5]]),
        "few_shots": np.mean([each[r] for r in head.rows[5:11]]),
    }
    if held >= 300 * 12:
        expected["map"] = np.mean([metrics.average_precision_score(own == r, score[:, r]) for r in there])
        expected["class_auc"] = np.mean([metrics.roc_auc_score(own == r, score[:, r]) for r in there])
    p = np.exp(8.0 * score.astype(np.float64))
    sure = (p / p.sum(1, keepdims=True)).max(1)
    gaps = 0.0
    for low in np.arange(15) / 15:
        inside = (sure > low) & (sure <= low + 1 / 15)
        gaps += abs(((answer == own)[inside] - sure[inside]).sum()) / 300
    expected["ece"] = gaps
    centre = found.pop("centre_top1")
    assert found == pytest.approx(expected, abs=1e-7)
    assert 0.5 < found["top1"] < found["top5"] < 1 and 0.3 < centre < 1
    assert found["per_class"] != pytest.approx(found["top1"], abs=1e-3)


def test_centres_leave_the_image_itself_out() -> None:
    """Every image against scikit-learn's nearest centroid of all other images; the centroids' norms are left out."""
    rng = np.random.default_rng(1)
    labels = np.append(rng.integers(0, 4, 40), 4)
    gallery = unit(rng.normal(size=(5, 8))[labels] + rng.normal(size=(41, 8)))
    probe = unit(gallery + 0.2 * rng.normal(size=(41, 8)))
    right = []
    for i in range(40):
        others = np.arange(41) != i
        nearest = NearestCentroid().fit(gallery[others], labels[others])
        cos = probe[i] @ unit(nearest.centroids_).T
        right.append(nearest.classes_[cos.argmax()] == labels[i])
    found = classify(probe, gallery, labels, NAMES, None, resamples=0)
    assert found.to_json()["centre_top1"] == {"value": pytest.approx(np.mean(right))}
    assert list(found.figures) == ["centre_top1"] and found.classes == 5
    assert found.of_classes[4] == {"class": "class 4", "images": 1}


def test_intervals_repeat_the_drawn_images() -> None:
    probe, labels, head = example()
    found = measured(resamples=10)
    score, own = probe @ head.weight.T, head.rows[labels]
    answer = score.argmax(1)
    for r, draw in enumerate(draws(300, 10)):
        drawn = np.repeat(np.arange(300), draw)
        there = np.unique(own[drawn])
        one = {name: estimate.resampled[r] for name, estimate in found.figures.items()}
        assert one["top1"] == pytest.approx((answer == own)[drawn].mean(), abs=1e-12)
        recalls = metrics.recall_score(own[drawn], answer[drawn], labels=there, average="macro")
        assert one["per_class"] == pytest.approx(recalls, abs=1e-12)
        f1 = metrics.f1_score(own[drawn], answer[drawn], labels=there, average="macro")
        assert one["macro_f1"] == pytest.approx(f1, abs=1e-12)
        areas = [metrics.average_precision_score(own[drawn] == c, score[drawn][:, c]) for c in there]
        assert one["map"] == pytest.approx(np.mean(areas), abs=1e-9)


def test_the_table_of_classes() -> None:
    probe, labels, head = example()
    table = measured().of_classes
    own, answer = head.rows[labels], (probe @ head.weight.T).argmax(1)
    assert [row["class"] for row in table] == NAMES[:11] and sum(row["images"] for row in table) == 300
    assert [row["training_images"] for row in table[:3]] == [500, 100, 99]
    for k, row in enumerate(table):
        true, said = own == head.rows[k], answer == head.rows[k]
        assert row["top1"] == pytest.approx(metrics.recall_score(true, said))
        assert row["precision"] == pytest.approx(metrics.precision_score(true, said))
        assert row["f1"] == pytest.approx(metrics.f1_score(true, said))


def test_what_is_unknown_is_absent() -> None:
    found = measured(counts=None, scale=None)
    assert not {"many_shots", "medium_shots", "few_shots", "ece"} & set(found.figures)
    assert "training_images" not in found.of_classes[0]


def test_a_row_that_ties_counts_against() -> None:
    weight = unit(np.random.default_rng(0).normal(size=(9, 128)))
    weight[8] = weight[2]
    found = classify(weight[:4], weight[:4], np.arange(4), NAMES, Head(weight, np.arange(9)), resamples=0)
    assert found.figures["top1"].value == 0.75
    collapsed = np.repeat(weight[:1], 9, axis=0)
    labels = np.arange(9)
    found = classify(collapsed, collapsed, labels, NAMES, Head(collapsed, labels), resamples=0)
    assert [found.figures[name].value for name in ("top1", "top5", "per_class", "macro_f1")] == [0, 0, 0, 0]
    pairs = np.repeat(collapsed[:2], 2, axis=0)
    found = classify(pairs, pairs, np.array([0, 0, 1, 1]), NAMES, None, resamples=0)
    assert found.figures["centre_top1"].value == 0


def test_json_has_every_estimate_and_no_top5_of_five_classes() -> None:
    found = measured(resamples=10)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    for name, estimate in found.estimates().items():
        assert written.pop(name) == {"value": estimate.value, "ci95": estimate.ci95}
    assert list(written) == ["classes", "of_classes"] and written["classes"] == 40
    weight = unit(np.eye(5))
    few = classify(weight, weight, np.arange(5), NAMES, Head(weight, np.arange(5)), resamples=0).to_json()
    assert few["top1"] == {"value": 1.0} and "top5" not in few and "centre_top1" not in few


def test_one_class_of_one_row() -> None:
    x = unit(np.random.default_rng(0).normal(size=(3, 4)))
    found = classify(x, x, np.zeros(3, np.int64), NAMES, Head(x[:1], np.zeros(1, np.int64)), resamples=3).to_json()
    assert found["top1"] == {"value": 1.0, "ci95": [1.0, 1.0]} and "class_auc" not in found


def test_calibration_error_of_two_bins() -> None:
    sure, right = np.array([0.5, 0.52, 1.0, 1.0]), np.array([True, False, True, False])
    # 0.5 and 0.52 lie in (7/15, 8/15], both 1.0 in the last bin
    assert calibration_error(sure, right, np.ones(4)) == pytest.approx((abs(1 - 1.02) + abs(1 - 2)) / 4)
    assert calibration_error(sure, right, np.array([2, 0, 0, 1])) == pytest.approx((2 * 0.5 + 1) / 3)
