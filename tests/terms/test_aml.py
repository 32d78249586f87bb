"""Asymmetric metric learning against a loop over pairs."""

import numpy as np
import pytest
import torch

from facedistill.terms.aml import AML, aml
from term_toys import draw, loss_and_gradient, unit

LABELS = [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("plus", [False, True])
def test_formula(plus: bool) -> None:
    s, t = draw(6, 5, 0), draw(6, 5, 1)
    s = t + 0.3 * s  # near enough for negatives within the margin
    t[5] = s[0]
    a, b = unit(s), unit(t)
    positive, negative = [], []
    for i in range(6):
        for j in range(6):
            d = np.linalg.norm(a[i] - b[j])
            if LABELS[i] != LABELS[j]:
                negative.append(max(0.0, float(0.7 - d)) ** 2 / 2)
            elif i != j or plus:
                positive.append(d**2 / 2)
    assert max(negative) > 0
    expected = np.mean(positive) + np.mean(negative)
    assert aml(s, t, torch.tensor(LABELS), 0.7, plus).item() == pytest.approx(expected, rel=1e-6)
    found = loss_and_gradient(AML(plus=plus), s.float(), t.float(), LABELS)[0]
    assert found == pytest.approx(expected, rel=1e-3)


def test_gradcheck() -> None:
    t, labels = draw(6, 4, 1), torch.tensor(LABELS)
    assert torch.autograd.gradcheck(lambda x: aml(x, t, labels, 1.5), draw(6, 4, 0, trained=True))


def test_one_image_one_class_and_duplicates() -> None:
    assert loss_and_gradient(AML(plus=False), torch.randn(1, 4), torch.randn(1, 4), [0])[0] == 0
    loss_and_gradient(AML(), torch.randn(3, 4), torch.randn(3, 4), [0, 0, 0])
    x = torch.randn(3, 4)
    assert loss_and_gradient(AML(), x, x, [0, 1, 2])[0] >= 0  # distance 0: the gradient is finite
