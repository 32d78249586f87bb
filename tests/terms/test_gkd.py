"""Grouped knowledge distillation against the softmaxes written out."""

import numpy as np
import pytest
import torch

from facedistill.terms.gkd import GKD, gkd
from term_toys import draw


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def _expected(s: np.ndarray, t: np.ndarray, labels: list[int], n: int, temperature: float, primary: float) -> float:
    losses = []
    for zs, zt, y in zip(s, t, labels):
        first = [y, *[c for c in np.argsort(-zs) if c != y]][:n]
        p, q = _softmax(zt / temperature), _softmax(zs / temperature)
        binary = sum(
            a * np.log(a / b) for a, b in ((p[first].sum(), q[first].sum()), (1 - p[first].sum(), 1 - q[first].sum()))
        )
        p, q = _softmax(zt[first] / temperature), _softmax(zs[first] / temperature)
        losses.append(binary + primary * np.sum(p * np.log(p / q)))
    return float(temperature**2 * np.mean(losses))


@pytest.mark.parametrize("n", [1, 4, 9])
def test_formula(n: int) -> None:
    s, t, labels = 4 * draw(5, 10, 0), 4 * draw(5, 10, 1), [0, 3, 9, 3, 5]
    expected = _expected(s.numpy(), t.numpy(), labels, n, 4.0, 8.0)
    assert gkd(s, t, torch.tensor(labels), n).item() == pytest.approx(expected, rel=1e-6)


def test_a_group_of_all_classes_is_plain_distillation() -> None:
    from facedistill.terms.soft_targets import soft_targets

    s, t, labels = 4 * draw(5, 10, 0), 4 * draw(5, 10, 1), torch.arange(5)
    assert gkd(s, t, labels, 100, 4.0, 1.0).item() == pytest.approx(soft_targets(s, t, 4.0).item(), rel=1e-5)


def test_gradcheck() -> None:
    t, labels = draw(4, 6, 1), torch.tensor([0, 1, 2, 5])
    assert torch.autograd.gradcheck(lambda x: gkd(x, t, labels, 3), draw(4, 6, 0, trained=True))


def test_sure_networks_give_a_finite_gradient() -> None:
    z = torch.full((2, 5), -64.0)
    z[:, 0] = 64
    x = z.clone().requires_grad_()
    loss = gkd(x, z.roll(1, 1), torch.tensor([0, 0]), 2)
    loss.backward()
    assert torch.isfinite(loss) and x.grad is not None and x.grad.isfinite().all()


def test_the_weight_warms_up() -> None:
    from dataclasses import replace

    from facedistill.data.batch import Output
    from facedistill.head.classifier import Classifier, ClassWeight
    from term_toys import batch_of

    rows = Classifier(draw(6, 4, 2).float(), [str(i) for i in range(6)])
    losses = []
    for progress in (0.0, 0.125, 0.25, 1.0):
        term = GKD(group=3, scale=16, warmup=0.25)
        term.bind(ClassWeight(rows, "gradient"), rows)
        batch = replace(batch_of([0, 3, 5]), progress=progress)
        losses.append(term(Output(draw(3, 4, 0).float()), Output(draw(3, 4, 1).float()), batch).item())
    assert losses[0] == 0 and losses[1] == pytest.approx(losses[3] / 2, rel=1e-5) and losses[2] == losses[3] > 0
