"""The margin softmax against a subset teacher's W: the formula over the images that belong, nothing of the others."""

import pytest
import torch
from torch.nn import functional as F

from facedistill.data import Batch, Output
from facedistill.errors import UsageError
from facedistill.head import Classifier, ClassWeight
from facedistill.terms import TERMS, make_term
from facedistill.terms.subset_softmax import SubsetSoftmax

DATA = ["ann", "ben", "cy", "dee"]
GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(2, 5, generator=GENERATOR, dtype=torch.float64)
X = torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)


def bound(student_dim: int | None = None, **options: object) -> SubsetSoftmax:
    term = make_term("subset_softmax", {"margin": "cosface", "margin_options": {"size": 0.2}, "scale": 8.0} | options)
    assert isinstance(term, SubsetSoftmax)
    torch.manual_seed(0)
    weight = ClassWeight(Classifier(ROWS.float(), ["dee", "ben"]), "nothing", student_dim, targets=DATA)
    term.bind(weight, None)
    return term


def batch_of(labels: torch.Tensor, share: float = 1.0, other: torch.Tensor | None = None) -> Batch:
    images = torch.zeros(len(labels), 3, 8, 8)
    targets = [(labels, share)] + ([] if other is None else [(other, 1 - share)])
    index = torch.stack([torch.arange(len(labels)), torch.zeros(len(labels), dtype=torch.long)], 1)
    return Batch(images, images, targets, index, 0.5, labels)


def written_out(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Over images of ben (row 1) and dee (row 0) alone."""
    inside = torch.tensor([DATA[i] in ("ben", "dee") for i in labels.tolist()])
    rows = torch.tensor([0 if DATA[i] == "dee" else 1 for i in labels.tolist()])
    cos = F.normalize(x, dim=1) @ F.normalize(ROWS, dim=1).T
    losses = F.cross_entropy(8.0 * (cos - 0.2 * F.one_hot(rows, 2)), rows, reduction="none")
    return losses[inside].mean()


def test_it_is_the_formula_with_its_gradient() -> None:
    labels = torch.tensor([1, 0, 3, 2, 1, 3])
    x, reference = X.float().requires_grad_(), X.clone().requires_grad_()
    loss, expected = bound()(Output(x), None, batch_of(labels)), written_out(reference, labels)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert x.grad is not None and reference.grad is not None
    torch.testing.assert_close(x.grad, reference.grad.float(), rtol=1e-4, atol=1e-6)
    assert not x.grad[[1, 3]].any()  # images of ann and cy


def test_of_mixed_images_each_part_counts_by_itself() -> None:
    labels, other = torch.tensor([1, 0, 3, 2, 1, 3]), torch.tensor([0, 1, 2, 3, 3, 1])
    loss = bound()(Output(X.float()), None, batch_of(labels, 0.7, other))
    assert loss.item() == pytest.approx((0.7 * written_out(X, labels) + 0.3 * written_out(X, other)).item(), rel=1e-5)


def test_a_batch_without_the_subset_has_no_loss_and_no_gradient() -> None:
    x = X.float().requires_grad_()
    loss = bound()(Output(x), None, batch_of(torch.tensor([0, 2, 2, 0, 0, 2])))
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and not x.grad.any()


def test_a_projection_leads_to_another_teachers_space() -> None:
    term = bound(student_dim=3)
    assert not term.anchors and bound().anchors
    loss = term(Output(torch.randn(6, 3)), None, batch_of(torch.tensor([1, 0, 3, 2, 1, 3])))
    loss.backward()
    assert term.weight.projection is not None and term.weight.projection.weight.grad is not None
    assert term.weight.projection.weight.grad.any()


def test_adaptive_margins_are_refused() -> None:
    assert TERMS["subset_softmax"].knows_a_subset
    unbound = make_term("subset_softmax", {})
    assert unbound.whole_weight  # W is held before a term is bound to it
    with pytest.raises(UsageError, match="this margin adapts to all images of a batch"):
        bound(margin="adaface", margin_options={})
