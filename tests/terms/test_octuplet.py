"""The octuplet loss against a loop over anchors, and the batches that it takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output, paired
from facedistill.errors import UsageError
from facedistill.terms.octuplet import Octuplet, octuplet
from term_toys import batch_of, draw, rotation, unit

LABELS = [0, 0, 1, 1, 1, 2]


def _expected(high: np.ndarray, low: np.ndarray, labels: list[int], margin: float) -> float:
    everyone = range(len(labels))
    sums = []
    for i in everyone:
        positives = [p for p in everyone if p != i and labels[p] == labels[i]]
        negatives = [n for n in everyone if labels[n] != labels[i]]
        if positives and negatives:
            total = 0.0
            for anchor, others in ((high, high), (high, low), (low, high), (low, low)):
                distance = [float(np.linalg.norm(anchor[i] - other)) for other in others]
                gap = max(distance[p] for p in positives) - min(distance[n] for n in negatives)
                total += max(0.0, gap + margin)
            sums.append(total)
    return float(np.mean(sums))


def test_formula() -> None:
    high, low = draw(6, 5, 0), draw(6, 5, 1)
    for margin in (0.1, 0.5, 2.0):
        found = octuplet(high, low, torch.tensor(LABELS), margin).item()
        assert found == pytest.approx(_expected(unit(high), unit(low), LABELS, margin), rel=1e-10)


def test_rotations_lengths_and_the_order_of_the_batch_do_not_matter() -> None:
    high, low, labels = draw(6, 5, 0), draw(6, 5, 1), torch.tensor(LABELS)
    expected = octuplet(high, low, labels).item()
    turn, order = rotation(5), torch.tensor([3, 1, 5, 0, 2, 4])
    assert octuplet(3 * high @ turn, low @ turn, labels).item() == pytest.approx(expected, rel=1e-9)
    assert octuplet(high[order], low[order], labels[order]).item() == pytest.approx(expected, rel=1e-9)
    assert octuplet(low, high, labels).item() == pytest.approx(expected, rel=1e-9)


def test_pinned() -> None:
    """Two people at right angles: distance sqrt(2). Apart at full resolution, together at low."""
    x = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]]
    labels = torch.tensor([7, 7, 8, 8])
    assert octuplet(x, x, labels).item() == 0
    assert octuplet(x, x, labels, margin=2.0).item() == pytest.approx(4 * (2 - 2**0.5), abs=1e-5)
    same = torch.ones_like(x)
    assert octuplet(same, same, labels).item() == pytest.approx(4 * 0.5, abs=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2], [4, 4, 4]])
def test_without_triplets_it_is_0_with_a_gradient_of_0(labels: list[int]) -> None:
    high, low = draw(3, 4, 0, trained=True), draw(3, 4, 1, trained=True)
    loss = octuplet(high, low, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0 and high.grad is not None and not high.grad.any()


def test_gradcheck_and_equal_embeddings_are_finite() -> None:
    labels = torch.tensor(LABELS)
    inputs = (draw(6, 5, 0, trained=True), draw(6, 5, 1, trained=True))
    assert torch.autograd.gradcheck(lambda a, b: octuplet(a, b, labels, 2.0), inputs)
    same = torch.ones(6, 5, requires_grad=True)
    octuplet(same, same, labels).backward()
    assert same.grad is not None and same.grad.isfinite().all()


def test_the_term_takes_each_image_twice() -> None:
    whole = batch_of(LABELS)
    whole = replace(whole, index=torch.stack([torch.arange(6), torch.zeros(6, dtype=torch.long)], 1))
    high, low = draw(6, 5, 0).float(), draw(6, 5, 1).float()
    both = torch.stack([high, low], 1).flatten(0, 1)
    found = Octuplet(0.7)(Output(both), None, paired(whole, whole)).item()
    assert found == pytest.approx(_expected(unit(high), unit(low), LABELS, 0.7), rel=1e-5)
    for wrong in (whole, replace(whole, index=whole.index[:5])):
        with pytest.raises(
            UsageError, match=r"octuplet: .*set method.view.kind=degrade method.view.options.pairs=true"
        ):
            Octuplet()(Output(both), None, wrong)
