"""Soft targets against the Kullback-Leibler divergence in numpy."""

import numpy as np
import pytest
import torch

from facedistill.data.batch import Batch, Output
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.terms.soft_targets import SoftTargets, soft_targets

BATCH = Batch(torch.zeros(0), torch.zeros(0), [], torch.zeros(0), 0.0, torch.zeros(0))
NAMES = ["a", "b", "c", "d", "e"]


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    p, q = _softmax(teacher / temperature), _softmax(student / temperature)
    return temperature**2 * float(np.mean((p * np.log(p / q)).sum(1)))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_numpy(temperature: float) -> None:
    s, t = 5 * torch.randn(6, 9).double(), 5 * torch.randn(6, 9).double()
    assert soft_targets(s, t, temperature).item() == pytest.approx(_kl(s.numpy(), t.numpy(), temperature), rel=1e-10)


def test_zero_where_equal_and_blind_to_a_constant() -> None:
    t = 64 * torch.randn(6, 9).double()
    s = (t + 3).requires_grad_()
    loss = soft_targets(s, t, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12) and s.grad is not None and float(s.grad.abs().max()) < 1e-12


def test_gradient() -> None:
    s, t = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: soft_targets(x, t, 3.0), s)
    (gradient,) = torch.autograd.grad(soft_targets(s, t, 3.0), s)
    expected = 3.0 / 3 * (_softmax(s.detach().numpy() / 3) - _softmax(t.numpy() / 3))  # T (q - p) / B
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-12)


def test_top_k_leaves_the_teachers_likeliest_classes_of_each_sample() -> None:
    s, t = torch.randn(6, 9).double(), torch.randn(6, 9).double()
    kept = np.argsort(-t.numpy(), axis=1)[:, :3]
    own, theirs = (np.take_along_axis(z.numpy(), kept, 1) for z in (s, t))
    expected = _kl(own, theirs, 4.0)
    assert soft_targets(s, t, 4.0, top_k=3).item() == pytest.approx(expected, rel=1e-10)
    assert soft_targets(s, t, 4.0, top_k=99).item() == pytest.approx(soft_targets(s, t, 4.0).item(), rel=1e-10)
    x = s[:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_targets(x, t[:3], 4.0, 3), x)


def test_extreme_logits_stay_finite() -> None:
    s = torch.tensor([[64.0, -64.0, -64.0]], requires_grad=True)
    loss = soft_targets(s, torch.tensor([[-64.0, 64.0, -64.0]]), 1.0)
    loss.backward()
    assert torch.isfinite(loss) and s.grad is not None and torch.isfinite(s.grad).all()


def test_the_term_takes_scaled_cosines_to_each_networks_own_classifier() -> None:
    own, theirs = torch.randn(5, 4), torch.randn(5, 6)
    s, t = torch.randn(3, 4), torch.randn(3, 6)
    term = SoftTargets(temperature=2.0, scale=10.0)
    term.bind(ClassWeight(Classifier(own, NAMES, "random"), "gradient"), Classifier(theirs, NAMES))

    def cosines(x: torch.Tensor, w: torch.Tensor) -> np.ndarray:
        a, b = x.double().numpy(), w.double().numpy()
        return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)

    own_logits, their_logits = 10 * cosines(s, own), 10 * cosines(t, theirs)
    assert term(Output(s), Output(t), BATCH).item() == pytest.approx(_kl(own_logits, their_logits, 2.0), rel=1e-4)
    term.top_k = 2
    kept = np.argsort(-their_logits, axis=1)[:, :2]
    own_kept, their_kept = (np.take_along_axis(z, kept, 1) for z in (own_logits, their_logits))
    expected = _kl(own_kept, their_kept, 2.0)
    assert term(Output(s), Output(t), BATCH).item() == pytest.approx(expected, rel=1e-4)


def test_classifiers_that_do_not_fit_are_refused() -> None:
    rows = Classifier(torch.randn(5, 4), NAMES)
    weight = ClassWeight(rows, "gradient")
    for own, theirs, expected in [
        (None, rows, "needs the student's and the teacher's classifier"),
        (weight, None, "needs the student's and the teacher's classifier"),
        (weight, rows.select(NAMES[::-1]), "differ in classes or in their order"),
        (weight, rows.select(NAMES[:4]), "differ in classes or in their order"),
    ]:
        with pytest.raises(UserError, match=expected):
            SoftTargets().bind(own, theirs)
