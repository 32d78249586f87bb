"""Triplet distillation against a loop over all triplets."""

import numpy as np
import pytest
import torch

from facedistill.terms.triplet_distillation import TripletDistillation, triplet_distillation
from term_toys import draw, loss_and_gradient, rotation, unit

LABELS = [0, 0, 1, 1, 1, 2, 3]


def _expected(s: np.ndarray, t: np.ndarray, labels: list[int], smallest: float, largest: float) -> float:
    own, other = ([[np.sum((a - b) ** 2) for b in x] for a in x] for x in (s, t))
    everyone = range(len(labels))
    triplets = [
        (a, p, n)
        for a in everyone
        for p in everyone
        for n in everyone
        if a != p and labels[a] == labels[p] != labels[n]
    ]
    seen = [max(0.0, other[a][n] - other[a][p]) for a, p, n in triplets]
    margins = [smallest + (largest - smallest) * gap / max(seen) for gap in seen]
    return float(np.mean([max(0.0, own[a][p] - own[a][n] + m) for (a, p, n), m in zip(triplets, margins)]))


def test_formula() -> None:
    s, t = draw(7, 5, 0), draw(7, 6, 1)
    for smallest, largest in ((0.2, 0.5), (0.0, 2.0)):
        found = triplet_distillation(s, t, torch.tensor(LABELS), smallest, largest).item()
        assert found == pytest.approx(_expected(unit(s), unit(t), LABELS, smallest, largest), rel=1e-10)
    term = TripletDistillation(0.1, 0.9)
    loss = loss_and_gradient(term, s.float(), t.float(), LABELS)[0]
    assert loss == pytest.approx(_expected(unit(s), unit(t), LABELS, 0.1, 0.9), rel=1e-5)


def test_pinned() -> None:
    # The pair lies at one point, the negative at right angles: d_ap - d_an = -2; the only gap is the widest.
    t = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([4, 4, 5])
    assert triplet_distillation(t, t, labels).item() == 0
    assert triplet_distillation(t, t, labels, 0.2, 2.5).item() == 0.5
    together = torch.ones(3, 2)
    assert triplet_distillation(together, t, labels).item() == pytest.approx(0.5)  # no gap: the whole margin
    assert triplet_distillation(together, together, labels).item() == pytest.approx(0.2)  # the teacher sees none


def test_a_permuted_teacher_scores_worse() -> None:
    """Margins that belong to other triplets of the student cost more: relu is convex."""
    t = draw(8, 6, 1)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    own = triplet_distillation(t, t, labels, 0.2, 2.0).item()
    permuted = triplet_distillation(t, t[[1, 2, 3, 0, 6, 4, 7, 5]], labels, 0.2, 2.0).item()
    assert own == pytest.approx(_expected(unit(t), unit(t), labels.tolist(), 0.2, 2.0), rel=1e-10)
    assert permuted > 1.01 * own > 0


def test_blind_to_norms_and_rotations_of_either_network() -> None:
    s, t, labels = draw(7, 5, 0), draw(7, 6, 1), torch.tensor(LABELS)
    found = triplet_distillation(3 * s @ rotation(5), 0.1 * t @ rotation(6), labels).item()
    assert found == pytest.approx(triplet_distillation(s, t, labels).item(), rel=1e-9)


def test_gradcheck() -> None:
    t, labels = draw(5, 3, 1), torch.tensor([0, 0, 1, 1, 2])
    assert torch.autograd.gradcheck(lambda x: triplet_distillation(x, t, labels), draw(5, 3, 0, trained=True))


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [3, 3, 3]])
def test_0_without_a_triplet(labels: list[int]) -> None:
    loss, gradient = loss_and_gradient(
        TripletDistillation(), torch.randn(len(labels), 4), torch.randn(len(labels), 6), labels
    )
    assert loss == 0 and not gradient.any()


def test_duplicate_images_stay_finite() -> None:
    same = torch.ones(4, 3)
    assert loss_and_gradient(TripletDistillation(), same, same, [0, 0, 1, 1])[0] == pytest.approx(0.2)
