"""Evaluation-oriented distillation against numpy: thresholds, soft ranks, the hardest negatives."""

from itertools import combinations

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output
from facedistill.terms.ekd import EKD, soft_rank, thresholds
from term_toys import batch_of, draw, loss_and_gradient, rotation, unit

LABELS = [0, 0, 0, 1, 1, 2, 3, 4]


def _cosines(x: torch.Tensor, same: bool) -> np.ndarray:
    rows = unit(x)
    pairs = combinations(range(len(rows)), 2)
    return np.array([rows[i] @ rows[j] for i, j in pairs if (LABELS[i] == LABELS[j]) == same])


def _anchors(negatives: np.ndarray) -> np.ndarray:
    ranked = np.sort(negatives)[::-1]
    return np.array([ranked[int(len(ranked) / n)] for n in (1e1, 1e2, 1e3, 1e4, 1e5, 1e6)])


def _rank(scores: np.ndarray, anchors: np.ndarray, temperature: float) -> np.ndarray:
    return np.array([sum(1 / (1 + np.exp(-(x - a) / temperature)) for a in anchors) for x in scores])


def _expected(s: torch.Tensor, t: torch.Tensor, hardest: int, temperature: float, anchors: list[np.ndarray]) -> float:
    gaps = []
    for same, most in ((True, None), (False, hardest)):
        own, other = _cosines(s, same), _cosines(t, same)
        chosen = np.argsort(own)[::-1][:most]
        ranks = [_rank(x[chosen], a, temperature) for x, a in zip((own, other), anchors)]
        gaps.append(np.mean((ranks[0] - ranks[1]) ** 2))
    return float(0.02 * gaps[0] + 0.01 * gaps[1])


@pytest.mark.parametrize(("hardest", "temperature"), [(5, 0.1), (2000, 0.1), (5, 0.01)])
def test_formula_of_the_first_batch(hardest: int, temperature: float) -> None:
    s, t = draw(8, 5, 0), draw(8, 6, 1)
    anchors = [_anchors(_cosines(x, False)) for x in (s, t)]
    term = EKD(hardest=hardest, temperature=temperature)
    loss, gradient = loss_and_gradient(term, s.float(), t.float(), LABELS)
    assert loss == pytest.approx(_expected(s, t, hardest, temperature, anchors), rel=1e-3)
    assert gradient.any()


def test_thresholds_and_soft_ranks() -> None:
    scores = torch.linspace(0, 1, 1001).double()
    # Of 1001 negatives 100 lie above 0.9, 10 above 0.99 and one above 0.999; for rarer rates the highest stands.
    assert thresholds(scores).tolist() == pytest.approx([0.9, 0.99, 0.999, 1, 1, 1])
    anchors = torch.tensor([0.1, 0.2, 0.3]).double()
    assert soft_rank(torch.tensor([0.0, 0.15, 0.9]).double(), anchors, 1e-3).tolist() == pytest.approx([0, 1, 3])
    assert soft_rank(torch.tensor([0.2]).double(), anchors, 1e-3).item() == pytest.approx(1.5)


def test_thresholds_are_means_at_first_then_running_and_still_in_eval_mode() -> None:
    batches = [(draw(8, 5, i), draw(8, 6, 10 + i)) for i in range(4)]
    found = [[_anchors(_cosines(x, False)) for x in pair] for pair in batches]
    term = EKD(momentum=0.4, temperature=0.1)
    for s, t in batches:
        term(Output(s.float()), Output(t.float()), batch_of(LABELS))
    expected = [np.mean([anchors[i] for anchors in found[:2]], axis=0) for i in (0, 1)]  # shares 1, 1/2
    for anchors in found[2:]:  # 1/3 is below the momentum
        expected = [0.6 * e + 0.4 * a for e, a in zip(expected, anchors)]
    np.testing.assert_allclose(term.student_anchors, expected[0], atol=1e-6)
    np.testing.assert_allclose(term.teacher_anchors, expected[1], atol=1e-6)
    assert set(term.state_dict()) == {"student_anchors", "teacher_anchors", "updates"}
    s, t = batches[0]
    loss = term.eval()(Output(s.float()), Output(t.float()), batch_of(LABELS)).item()
    assert term.updates.item() == 4
    assert loss == pytest.approx(_expected(s, t, 2000, 0.1, expected), rel=1e-3)


def test_zero_where_the_student_is_the_teacher_turned_and_scaled() -> None:
    t = draw(8, 5, 0)
    loss, gradient = loss_and_gradient(EKD(), t.float(), t.float(), LABELS)
    assert loss == 0 and not gradient.any()
    assert loss_and_gradient(EKD(temperature=0.1), (3 * t @ rotation(5)).float(), t.float(), LABELS)[0] < 1e-9


def test_gradcheck() -> None:
    anchors = torch.tensor([0.1, 0.4]).double()
    assert torch.autograd.gradcheck(lambda x: soft_rank(x, anchors, 0.1), draw(4, 1, 0, trained=True)[:, 0])
    s, t = draw(8, 5, 0, trained=True), draw(8, 6, 1)
    term = EKD(temperature=0.1).double()
    term.loss(s, t, batch_of(LABELS))
    assert torch.autograd.gradcheck(lambda x: term.eval().loss(x, t, batch_of(LABELS)), s)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [3, 3, 3]])
def test_batches_without_pairs_of_one_kind(labels: list[int]) -> None:
    term = EKD()
    loss, gradient = loss_and_gradient(term, draw(len(labels), 5, 0).float(), draw(len(labels), 6, 1).float(), labels)
    assert loss >= 0 and term.updates.item() == (len(set(labels)) > 1)
    if len(labels) == 1:
        assert loss == 0 and not gradient.any()


def test_duplicate_images_stay_finite() -> None:
    same = torch.ones(4, 3)
    assert loss_and_gradient(EKD(), same, same, [0, 0, 1, 1])[0] == pytest.approx(0, abs=1e-9)
