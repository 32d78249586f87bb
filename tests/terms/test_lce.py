"""LCE against its two losses written out; what it needs of W."""

import numpy as np
import pytest
import torch

from check_toys import table_of
from facedistill.data.batch import Output
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.recipe.schema import MovedBy
from facedistill.terms.lce import LCE
from term_toys import batch_of, draw, loss_and_gradient, unit

TABLE = table_of(classes=6, images=4, dim=5)
ROWS = 3 * draw(6, 5, 7)
LABELS = [0, 3, 3, 5]


def _term(moved_by: MovedBy = "gradient", names: list[str] = TABLE.class_names, dim: int = 5, **options: float) -> LCE:
    term = LCE(**options)
    term.bind_table(TABLE, None)
    weight = ClassWeight(Classifier(ROWS[:, :1].repeat(1, dim) if dim != 5 else ROWS, names), moved_by)
    if moved_by == "gradient":
        with torch.no_grad():
            weight.weight.mul_(torch.linspace(0.5, 2, 6)[:, None])  # training changes the rows' lengths
    term.bind(weight, None)
    return term


def _old() -> tuple[np.ndarray, np.ndarray]:
    """The old class centres and boundaries, in plain numpy."""
    summed = TABLE.vectors.astype(np.float64).sum(1)
    single = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    centre, lowest = [], []
    for c in range(6):
        members = single[TABLE.labels == c]
        mean = members.mean(0) / np.linalg.norm(members.mean(0))
        centre.append(mean)
        lowest.append(min(member @ mean for member in members))
    return np.stack(centre), np.array(lowest)


@pytest.mark.parametrize("weights", [(100.0, 1.0), (0.0, 1.0), (10.0, 0.0)])
def test_formula(weights: tuple[float, float]) -> None:
    s, (centre, lowest) = draw(4, 5, 0).float(), _old()
    align = ((unit(ROWS) - centre) ** 2).mean()
    near = np.mean([max(0, lowest[y] - f @ centre[y]) for f, y in zip(unit(s), LABELS)])
    assert near > 0.1
    term = _term(align=weights[0], boundary=weights[1])
    loss, gradient = loss_and_gradient(term, s, draw(4, 9, 1), LABELS)
    assert loss == pytest.approx(weights[0] * align + weights[1] * near, rel=1e-5)
    assert gradient.any() == (weights[1] > 0)
    assert term.weight.weight.grad is not None and term.weight.weight.grad.any() == (weights[0] > 0)


def test_the_old_members_themselves_cost_nothing() -> None:
    members = torch.from_numpy(TABLE.fused("sum"))
    term = _term(align=0.0)
    assert term(Output(members * 7), None, batch_of(TABLE.labels.tolist())).item() == pytest.approx(0, abs=1e-6)


def test_it_anchors_and_its_buffers_are_in_no_checkpoint() -> None:
    assert _term().anchors and not [name for name in _term().state_dict() if "weight" not in name]


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match=r"lce: aligns a W that is trained; set method\.classifier\.moved_by=gradient"):
        _term("nothing")
    with pytest.raises(UsageError, match=r"a row for each class; set method\.classifier\.start=random"):
        _term(names=[f"image {i}" for i in range(6)])
    with pytest.raises(UserError, match="W has 7 dimensions, the old model 5"):
        _term(dim=7)
