"""Average precision and AUC against scikit-learn, with ties and weights."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from facedistill.evaluation.ranking import Ranking


@pytest.mark.parametrize("ties", [False, True])
def test_each_class_against_the_rest(ties: bool) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 5)), rng.integers(0, 5, 200)
    scores[np.arange(200), labels] += 0.7
    if ties:
        scores = np.round(scores)
    for weight in (np.ones(200), rng.integers(0, 4, 200)):
        precision, area = Ranking(scores, labels).measured(weight)
        for k in range(5):
            of = {"y_true": labels == k, "y_score": scores[:, k], "sample_weight": weight}
            assert precision[k] == pytest.approx(average_precision_score(**of), abs=1e-12)
            assert area[k] == pytest.approx(roc_auc_score(**of), abs=1e-12)


def test_a_class_without_images_or_without_others_has_no_value() -> None:
    precision, area = Ranking(np.eye(3), np.array([0, 0, 1])).measured(np.array([1, 1, 0]))
    assert precision[0] == 1 and np.isnan(precision[1:]).all() and np.isnan(area).all()
