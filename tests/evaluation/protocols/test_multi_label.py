"""Images with several labels: every figure against scikit-learn or its formula."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from facedistill.errors import UserError
from facedistill.evaluation.protocols.multi_label import MultiLabelResult, multi_label
from facedistill.evaluation.statistics import draws

NAMES = ["a", "b", "c", "d", "never"]
COUNTS = np.array([300, 100, 50, 20, 0])


def toy() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.random((120, 5)) < (0.5, 0.3, 0.2, 0.1, 0.0)
    return (rng.normal(size=(120, 5)) + 1.5 * labels - 0.7).astype(np.float32), labels


def measured(**options: object) -> MultiLabelResult:
    logits, labels = toy()
    return multi_label(logits, labels, NAMES, COUNTS, **({"resamples": 20} | options))  # type: ignore[arg-type]


def test_against_scikit_learn() -> None:
    logits, labels = toy()
    known, said = range(4), logits > 0
    ap = [average_precision_score(labels[:, k], logits[:, k]) for k in known]
    value = {name: estimate.value for name, estimate in measured().figures.items()}
    assert value["map"] == pytest.approx(np.mean(ap))
    assert value["many_map"] == pytest.approx(np.mean(ap[:2]))
    assert value["medium_map"] == pytest.approx(ap[2]) and value["few_map"] == pytest.approx(ap[3])
    assert value["label_auc"] == pytest.approx(np.mean([roc_auc_score(labels[:, k], logits[:, k]) for k in known]))
    assert value["macro_f1"] == pytest.approx(np.mean([f1_score(labels[:, k], said[:, k]) for k in known]))
    balanced = [balanced_accuracy_score(labels[:, k], said[:, k]) for k in known]
    assert value["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    p, y = 1 / (1 + np.exp(-logits.astype(float).ravel())), labels.ravel()
    bins = np.ceil(p * 15).astype(int)
    ece = sum(abs((y[bins == b] - p[bins == b]).sum()) for b in range(1, 16)) / len(p)
    assert value["ece"] == pytest.approx(ece)


def test_the_table_of_labels() -> None:
    found = measured()
    assert (found.labels, found.positives) == (5, int(toy()[1].sum()))
    assert [row["class"] for row in found.of_classes] == NAMES
    assert found.of_classes[4] == {"class": "never", "images": 0, "training_images": 0}
    assert set(found.of_classes[0]) == {
        *("class", "images", "training_images", "average_precision", "auc", "recall", "precision", "f1"),
        "balanced_accuracy",
    }


def test_groups_are_resampled_whole() -> None:
    logits, labels = toy()
    groups = np.arange(120) // 4
    resampled = measured(groups=groups, resamples=3, seed=5).figures["map"].resampled
    for value, draw in zip(resampled, draws(30, 3, 5), strict=True):
        weight = draw[groups]
        ap = [average_precision_score(labels[:, k], logits[:, k], sample_weight=weight) for k in range(4)]
        assert value == pytest.approx(np.mean(ap))
    alone = measured(resamples=200).figures["map"].resampled.std()
    repeated = multi_label(
        np.repeat(logits, 4, 0), np.repeat(labels, 4, 0), NAMES, groups=np.repeat(np.arange(120), 4), resamples=200
    )
    assert repeated.figures["map"].resampled.std() == pytest.approx(alone)


def test_without_probabilities_or_counts() -> None:
    logits, labels = toy()
    found = multi_label(logits, labels, NAMES, sure=False, resamples=2)
    assert list(found.figures) == ["map", "label_auc"] and "f1" not in found.of_classes[0]


def test_edges() -> None:
    one = multi_label(np.array([[3.0, -1.0]]), np.array([[True, False]]), ["a", "b"], resamples=2)
    assert list(one.figures) == ["ece"]  # each label is on all images, or on none
    with pytest.raises(UserError, match="no images"):
        multi_label(np.zeros((0, 2)), np.zeros((0, 2), bool), ["a", "b"])
