"""MarginDistillation against the softmax and its margins written out."""

import math

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output
from facedistill.errors import UsageError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.recipe.schema import MovedBy
from facedistill.terms.margin_distillation import MarginDistillation
from facedistill.terms.margin_softmax import MarginSoftmax
from term_toys import batch_of, draw, loss_and_gradient, unit

NAMES = [f"person {i}" for i in range(6)]
ROWS = Classifier(draw(6, 5, 7), NAMES)
LABELS = [0, 3, 3, 5]


def _term(moved_by: MovedBy = "nothing", rows: Classifier = ROWS, **options: float) -> MarginDistillation:
    term = MarginDistillation(**({"scale": 10.0} | options))
    term.bind(ClassWeight(rows, moved_by), None)
    return term


def _teacher() -> torch.Tensor:
    """As near to the images' rows as a teacher is, at various cosines."""
    return ROWS.weight[LABELS].double() + torch.tensor([0.1, 0.5, 1.0, 0.3])[:, None] * draw(4, 5, 1) / 4


def _margins(teacher: torch.Tensor, smallest: float, largest: float) -> np.ndarray:
    sure = np.maximum(0, (unit(teacher) * unit(ROWS.weight[LABELS])).sum(1))
    return smallest + (largest - smallest) * sure / sure.max()


def _expected(student: torch.Tensor, margins: np.ndarray, scale: float) -> float:
    cos = unit(student) @ unit(ROWS.weight).T
    losses = []
    for row, y, m in zip(cos, LABELS, margins):
        own = math.cos(math.acos(row[y]) + m)
        others = sum(math.exp(scale * c) for j, c in enumerate(row) if j != y)
        losses.append(-math.log(math.exp(scale * own) / (math.exp(scale * own) + others)))
    return float(np.mean(losses))


@pytest.mark.parametrize("moved_by", ["nothing", "gradient"])
@pytest.mark.parametrize(("smallest", "largest"), [(0.2, 0.5), (0.0, 1.0)])
def test_formula(moved_by: MovedBy, smallest: float, largest: float) -> None:
    s = ROWS.weight[LABELS] + draw(4, 5, 0).float() / 8  # near enough that theta + m stays below pi
    margins = _margins(_teacher(), smallest, largest)
    assert margins.max() == largest and margins.min() < largest - 0.02
    term = _term(moved_by, smallest=smallest, largest=largest)
    loss, gradient = loss_and_gradient(term, s, _teacher().float(), LABELS)
    assert loss == pytest.approx(_expected(s, margins, 10), rel=1e-4) and gradient.any()


def test_pinned_margins() -> None:
    w = Classifier(torch.eye(3), NAMES[:3])
    teacher = torch.tensor([[2.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, -1.0]])  # cosines 1, 0.8, -1
    sizes = _term(rows=w).sizes(teacher, Output(teacher), torch.tensor([0, 1, 2]), 0.5)
    assert sizes.tolist() == pytest.approx([0.5, 0.44, 0.2])


def test_a_teacher_equally_sure_of_all_gives_plain_arcface() -> None:
    s, plain = draw(4, 5, 0).float(), MarginSoftmax(scale=10.0)
    plain.bind(ClassWeight(ROWS, "nothing"), None)
    loss = _term()(Output(s), Output(ROWS.weight[LABELS]), batch_of(LABELS))
    assert loss.item() == pytest.approx(plain(Output(s), None, batch_of(LABELS)).item(), rel=1e-6)


def test_a_teacher_that_fails_everywhere_gives_the_smallest_margin() -> None:
    s, plain = draw(4, 5, 0).float(), MarginSoftmax(margin_options={"size": 0.2}, scale=10.0)
    plain.bind(ClassWeight(ROWS, "nothing"), None)
    loss = loss_and_gradient(_term(), s, -ROWS.weight[LABELS], LABELS)[0]
    assert loss == pytest.approx(plain(Output(s), None, batch_of(LABELS)).item(), rel=1e-6)


def test_each_label_of_a_mixed_image_has_its_own_margin() -> None:
    s, t = draw(4, 5, 0).float(), Output(_teacher().float())
    mixed, other = batch_of(LABELS), [1, 0, 2, 2]
    mixed.targets = [(torch.tensor(LABELS), 0.7), (torch.tensor(other), 0.3)]
    parts = [_term()(Output(s), t, batch_of(labels)).item() for labels in (LABELS, other)]
    assert _term()(Output(s), t, mixed).item() == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], rel=1e-5)


def test_a_random_w_is_refused_and_a_frozen_one_anchors() -> None:
    with pytest.raises(UsageError, match=r"W starts at random.* set method\.classifier\.start"):
        _term(rows=Classifier(ROWS.weight, NAMES, "random"))
    assert _term().anchors and not _term("gradient").anchors
