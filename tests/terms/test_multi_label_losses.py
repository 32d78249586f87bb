"""The losses for several labels against their formulas written out, and their gradients against differences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from facedistill.data.batch import Output
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.recipe.schema import MovedBy
from facedistill.terms import TERMS, make_term
from facedistill.terms.multi_label import MultiLabel
from facedistill.terms.rskd import RSKD
from term_toys import batch_of, draw, unit

NAMES = [f"label {i}" for i in range(6)]
COUNTS = np.array([500, 40, 9, 2, 1, 1])
IMAGES, SCALE = 600, 10.0
BIAS = torch.tensor([0.1, -1.0, -2.0, 0.5, 0.0, -3.0])
ROWS = Classifier(draw(6, 5, 7), NAMES, scale=SCALE, bias=BIAS)
Y = np.array([[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]], dtype=float)
MOVED_BY = pytest.mark.parametrize("moved_by", ["nothing", "gradient"])


def weight_of(moved_by: MovedBy = "nothing", rows: Classifier = ROWS) -> ClassWeight:
    return ClassWeight(rows, moved_by, counts=torch.from_numpy(COUNTS), images=IMAGES)


def several(y: np.ndarray = Y) -> Any:
    return replace(batch_of([0] * len(y)), multi_hot=torch.from_numpy(y).float())


def logits(x: torch.Tensor, rows: Classifier = ROWS) -> np.ndarray:
    bias = 0 if rows.bias is None else rows.bias.numpy()
    return SCALE * unit(x) @ unit(rows.weight).T + bias


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def class_balanced(z: np.ndarray) -> np.ndarray:
    weights = 0.1 / (1 - 0.9**COUNTS)
    return weights / weights.mean() * asymmetric(z, 0, 0, 0)


def asymmetric(z: np.ndarray, positive: float, negative: float, shift: float) -> np.ndarray:
    p = sigmoid(z)
    q = np.maximum(p - shift, 0)
    return -Y * (1 - p) ** positive * np.log(p) - (1 - Y) * q**negative * np.log(1 - q)


def distribution_balanced(z: np.ndarray) -> np.ndarray:
    loss = np.zeros_like(Y)
    for i in range(len(Y)):
        for c in range(6):
            own = sum(1 / COUNTS[k] for k in range(6) if Y[i, k])
            ratio = (1 / COUNTS[c]) / own if own else np.inf
            r = 0.1 + 1 / (1 + np.exp(-10.0 * (ratio - 0.2)))
            v = 0.05 * np.log(IMAGES / COUNTS[c] - 1)
            yes, no = np.log(1 + np.exp(-(z[i, c] - v))), np.log(1 + np.exp(5 * (z[i, c] - v))) / 5
            loss[i, c] = r * (Y[i, c] * yes + (1 - Y[i, c]) * no)
    return loss


CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "bce": ("bce", {}, lambda z: asymmetric(z, 0, 0, 0)),
    "class balanced": ("class_balanced_bce", {"beta": 0.9}, class_balanced),
    "focal": ("focal_bce", {"gamma": 2.0}, lambda z: asymmetric(z, 2, 2, 0)),
    "focal 0": ("focal_bce", {"gamma": 0.0}, lambda z: asymmetric(z, 0, 0, 0)),
    "asymmetric": ("asymmetric", {}, lambda z: asymmetric(z, 1, 4, 0.05)),
    "no focus": ("asymmetric", {"positive": 0, "negative": 0, "shift": 0.2}, lambda z: asymmetric(z, 0, 0, 0.2)),
    "distribution balanced": ("distribution_balanced", {}, distribution_balanced),
}
EACH = pytest.mark.parametrize("case", CASES)


def term(name: str, moved_by: MovedBy = "nothing", **options: Any) -> MultiLabel:
    found = make_term(name, {"scale": SCALE} | options)
    assert isinstance(found, MultiLabel)
    found.bind(weight_of(moved_by), None)
    return found


@EACH
@MOVED_BY
def test_against_the_formula(case: str, moved_by: MovedBy) -> None:
    name, options, formula = CASES[case]
    x, loss = draw(4, 5, 0, trained=True), term(name, moved_by, **options)
    found = loss(Output(x), None, several())
    assert found.dtype == torch.float32 and found.ndim == 0
    assert found.item() == pytest.approx(formula(logits(x)).sum(1).mean(), rel=1e-5)
    found.backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.any()
    assert (loss.weight.bias.grad is not None) == (moved_by == "gradient")  # type: ignore[union-attr]


@EACH
def test_the_gradient(case: str) -> None:
    name, options, _ = CASES[case]
    loss = term(name, **options).double()
    z, y = draw(4, 6, 1, trained=True), torch.from_numpy(Y)
    assert torch.autograd.gradcheck(lambda z: loss.losses(z, y), (z,))


@EACH
@pytest.mark.parametrize("value", [-60.0, 60.0])
def test_logits_at_the_edge(case: str, value: float) -> None:
    name, options, _ = CASES[case]
    z = torch.full((4, 6), value, requires_grad=True)
    loss = term(name, **options).losses(z, torch.from_numpy(Y).float()).sum()
    loss.backward()
    assert torch.isfinite(loss) and loss >= 0 and z.grad is not None and torch.isfinite(z.grad).all()


def test_without_a_classifier_or_in_few_bits() -> None:
    with pytest.raises(UserError, match="the method has no classifier"):
        make_term("bce", {}).bind(None, None)
    with pytest.raises(UsageError, match="reads W as float32"):
        make_term("bce", {}).bind(ClassWeight(ROWS, "nothing", stored="int8"), None)
    assert {name for name, kind in TERMS.items() if kind.takes_several} == {
        *("bce", "class_balanced_bce", "focal_bce", "asymmetric", "distribution_balanced", "rskd")
    }


SUBSET = replace(ROWS.select(["label 1", "label 4", "label 5"]), weight=draw(3, 4, 8), unit=False, scale=7.0)


def rskd(**options: Any) -> RSKD:
    found = make_term("rskd", {"scale": SCALE} | options)
    assert isinstance(found, RSKD)
    found.bind(weight_of(), SUBSET)
    return found


def teachers(t: torch.Tensor) -> np.ndarray:
    assert SUBSET.bias is not None
    return 7 * unit(t) @ unit(SUBSET.weight).T + SUBSET.bias.numpy()


@pytest.mark.parametrize(("balance", "factor"), [("none", 1.0), ("inverse_frequency", COUNTS.mean() / (42 / 3))])
def test_rskd_of_labels(balance: str, factor: float) -> None:
    x, t = draw(4, 5, 0, trained=True), draw(4, 4, 2)
    loss = rskd(temperature=3.0, balance=balance)(Output(x), Output(t), several())
    p, q = sigmoid(logits(x)[:, [1, 4, 5]] / 3), sigmoid(teachers(t) / 3)
    each = -(q * np.log(p) + (1 - q) * np.log(1 - p)).sum(1)
    # image 1 alone has a label of the subset, and image 2 has none at all
    assert loss.item() == pytest.approx(factor * each[[1, 2]].mean(), rel=1e-5)
    loss.backward()
    assert x.grad is not None and x.grad[1].any() and x.grad[2].any() and not x.grad[[0, 3]].any()


def test_rskd_on_all_images() -> None:
    x, t = draw(4, 5, 0), draw(4, 4, 2)
    p, q = sigmoid(logits(x)[:, [1, 4, 5]]), sigmoid(teachers(t))
    several_labels = -(q * np.log(p) + (1 - q) * np.log(1 - p)).sum(1)
    loss = rskd(temperature=1.0, images="all")(Output(x), Output(t), several())
    assert loss.item() == pytest.approx(several_labels.mean(), rel=1e-5)
    own, other = np.exp(logits(x)[:, [1, 4, 5]]), np.exp(teachers(t))
    p, q = own / own.sum(1, keepdims=True), other / other.sum(1, keepdims=True)
    loss = rskd(temperature=1.0, images="all")(Output(x), Output(t), batch_of([5, 0, 1, 2]))
    assert loss.item() == pytest.approx((q * np.log(q / p)).sum(1).mean(), rel=1e-4)


def test_rskd_at_the_students_pace() -> None:
    x, t = draw(4, 5, 0), draw(4, 4, 2)
    plain = rskd()(Output(x), Output(t), several()).item()
    paced = rskd(balance="self_paced")
    assert paced.paced and not rskd().paced
    assert paced(Output(x), Output(t), several()).item() == pytest.approx(plain)
    for student, teacher, weight in ((0.2, 0.8, 1), (0.24, 0.8, 1), (0.6, 0.8, 0.25 / 0.7), (0.9, 0.8, 0), (0, 0, 0)):
        paced.pace(student, teacher)
        assert paced(Output(x), Output(t), several()).item() == pytest.approx(weight * plain, abs=1e-6)
    assert "share" in paced.state_dict()  # a run that resumes within an epoch needs it


def test_rskd_of_classes() -> None:
    x, t, labels = draw(4, 5, 0), draw(4, 4, 2), [5, 0, 1, 2]
    loss = rskd(temperature=2.0)(Output(x), Output(t), batch_of(labels))
    own, other = np.exp(logits(x)[:, [1, 4, 5]] / 2), np.exp(teachers(t) / 2)
    p, q = own / own.sum(1, keepdims=True), other / other.sum(1, keepdims=True)
    each = 4 * (q * np.log(q / p)).sum(1)
    assert loss.item() == pytest.approx(each[[0, 2]].mean(), rel=1e-4)


def test_rskd_of_a_batch_without_the_subset() -> None:
    x, others = draw(4, 5, 0, trained=True), np.zeros_like(Y)
    others[:, 0] = 1
    loss = rskd()(Output(x), Output(draw(4, 4, 2)), several(others))
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and not x.grad.any()


def test_rskd_refuses() -> None:
    with pytest.raises(UserError, match="needs the teacher's classifier"):
        make_term("rskd", {}).bind(weight_of(), None)
    stranger = Classifier(draw(1, 4, 8), ["other"])
    with pytest.raises(UserError, match="the teacher knows other, which the student's classifier lacks"):
        make_term("rskd", {}).bind(weight_of(), stranger)
