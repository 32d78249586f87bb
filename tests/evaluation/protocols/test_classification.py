"""Classification by the rows of W against scikit-learn, and what it does with ties."""

import json

import numpy as np
import pytest
from sklearn.metrics import recall_score, top_k_accuracy_score

from facedistill.evaluation.protocols import identification
from facedistill.evaluation.protocols.classification import classify
from facedistill.evaluation.statistics import draws


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def example(classes: int = 40, dim: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """W, 12 labels that are rows of it in any order, the last without an image; classes of unequal size."""
    rng = np.random.default_rng(0)
    weight, rows = unit(rng.normal(size=(classes, dim))), rng.permutation(classes)[:12]
    labels = rng.integers(0, rng.integers(1, 12, 300))
    return unit(weight[rows[labels]] + 0.3 * rng.normal(size=(300, dim))), labels, weight, rows


@pytest.mark.parametrize("tile", [(7, 5), (1024, 4096)])
def test_accuracies_are_those_of_sklearn(tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identification, "TILE", tile)
    probe, labels, weight, rows = example()
    found = classify(probe, labels, weight, rows, resamples=0)
    score, own = probe @ weight.T, rows[labels]
    predicted = score.argmax(axis=1)
    recalls = recall_score(own, predicted, labels=np.unique(own), average="macro")
    assert found.top5 is not None
    assert found.top1.value == (predicted == own).mean()
    assert found.top5.value == top_k_accuracy_score(own, score, k=5, labels=np.arange(len(weight)))
    assert found.per_class.value == pytest.approx(recalls, abs=1e-12)
    assert 0.5 < found.top1.value < found.top5.value < 1
    assert found.per_class.value != pytest.approx(found.top1.value, abs=1e-3)
    assert found.classes == 40


def test_intervals_repeat_the_drawn_classes() -> None:
    probe, labels, weight, rows = example()
    found = classify(probe, labels, weight, rows, resamples=20)
    right = (probe @ weight.T).argmax(axis=1) == rows[labels]
    classes = np.unique(labels)
    for r, draw in enumerate(draws(len(classes), 20)):
        drawn = [right[labels == c] for c, times in zip(classes, draw, strict=True) for _ in range(times)]
        assert found.top1.resampled[r] == pytest.approx(np.concatenate(drawn).mean(), abs=1e-12)
        assert found.per_class.resampled[r] == pytest.approx(np.mean([part.mean() for part in drawn]), abs=1e-12)


def test_a_row_that_ties_counts_against() -> None:
    weight = unit(np.random.default_rng(0).normal(size=(9, 128)))
    weight[8] = weight[2]
    found = classify(weight[:4], np.arange(4), weight, np.arange(9), resamples=0)
    assert found.top1.value == 0.75
    collapsed = np.repeat(weight[:1], 9, axis=0)
    found = classify(collapsed, np.arange(9), collapsed, np.arange(9), resamples=0)
    assert [estimate.value for estimate in found.estimates().values()] == [0, 0, 0]


def test_json_has_every_estimate_and_no_top5_of_five_classes() -> None:
    found = classify(*example(), resamples=10)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(written) == ["top1", "top5", "per_class", "classes"]
    for name, estimate in found.estimates().items():
        assert written[name] == {"value": estimate.value, "ci95": estimate.ci95}
    weight = unit(np.eye(5))
    few = classify(weight, np.arange(5), weight, np.arange(5), resamples=0).to_json()
    assert few == {"top1": {"value": 1.0}, "per_class": {"value": 1.0}, "classes": 5}


def test_one_class_of_one_row() -> None:
    x = unit(np.random.default_rng(0).normal(size=(3, 4)))
    found = classify(x, np.zeros(3, np.int64), x[:1], np.zeros(1, np.int64), resamples=3).to_json()
    assert found["top1"] == {"value": 1.0, "ci95": [1.0, 1.0]}
