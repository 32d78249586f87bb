"""W by itself and inside a training run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from facedistill.classifier import Classifier, ClassWeight
from facedistill.errors import UserError


@given(st.integers(1, 6), st.integers(1, 5), st.floats(1e-3, 1e3))
def test_rows_are_of_unit_length_whatever_they_were(classes: int, dim: int, size: float) -> None:
    raw = torch.full((classes, dim), size) * torch.arange(1, classes + 1)[:, None]
    classifier = Classifier(raw, [str(i) for i in range(classes)])
    torch.testing.assert_close(classifier.weight.norm(dim=1), torch.ones(classes))
    torch.testing.assert_close(classifier.weight * raw.norm(dim=1, keepdim=True), raw)
    assert (len(classifier), classifier.dim, classifier.weight.dtype) == (classes, dim, torch.float32)


def test_takes_any_float_type_and_leaves_the_given_tensor_alone() -> None:
    raw = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    classifier = Classifier(raw, ("a",))
    assert classifier.weight.tolist() == [pytest.approx([0.6, 0.8])] and not classifier.weight.requires_grad
    assert raw.tolist() == [[3.0, 4.0]] and classifier.class_names == ["a"]


@pytest.mark.parametrize(
    ("weight", "names", "expected"),
    [
        (torch.ones(3, 2), ["a", "b"], r"\(3, 2\) rows do not fit 2 class names"),
        (torch.ones(2), ["a", "b"], r"\(2,\) rows do not fit"),
        (torch.ones(2, 2), ["a", "a"], "a class name stands twice"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), ["a", "b"], r"row 1 \('b'\) is zero or not finite"),
        (torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]), ["a", "b"], r"row 1 \('b'\) is zero or not finite"),
        (torch.tensor([[float("inf"), 0.0], [1.0, 0.0]]), ["a", "b"], r"row 0 \('a'\) is zero or not finite"),
    ],
    ids=["count", "vector", "twice", "zero", "nan", "infinite"],
)
def test_what_does_not_fit_is_refused(weight: torch.Tensor, names: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Classifier(weight, names)


def test_select_takes_rows_by_name_in_the_given_order() -> None:
    classifier = Classifier(torch.randn(4, 3), list("abcd"), "centres", torch.tensor([5, 6, 7, 8]))
    part = classifier.select(["d", "a"])
    assert torch.equal(part.weight, classifier.weight[[3, 0]]) and part.counts is not None
    assert (part.class_names, part.origin, part.counts.tolist()) == (["d", "a"], "centres", [8, 5])


def test_select_names_what_is_missing() -> None:
    classifier = Classifier(torch.randn(2, 3), ["a", "b"])
    with pytest.raises(UserError, match=r"1 of 2 classes of the data have no row in W \(x\); W has 2 rows, e\.g\. 'a'"):
        classifier.select(["a", "x"])
    with pytest.raises(UserError, match=r"5 of 5 classes .* \(p, q, r, \.\.\.\)"):
        classifier.select(list("pqrst"))


def test_a_frozen_w_is_neither_parameter_nor_buffer_but_moves_along() -> None:
    weight = ClassWeight(Classifier(torch.randn(4, 3), list("abcd")), "nothing")
    outer = nn.ModuleDict({"w": weight, "again": weight})
    assert weight.frozen and not list(outer.parameters()) and not list(outer.buffers()) and not outer.state_dict()
    outer.to(torch.float64)
    assert weight.weight.dtype == torch.float64
    outer.to("meta")
    assert weight.weight.device.type == "meta"


def test_a_learned_w_is_a_parameter() -> None:
    weight = ClassWeight(Classifier(torch.randn(4, 3), list("abcd")), "gradient")
    assert not weight.frozen and [n for n, _ in weight.named_parameters()] == ["weight"]
    assert isinstance(weight.double().weight, nn.Parameter) and weight.weight.dtype == torch.float64


def test_every_trained_w_starts_with_unit_rows_of_its_own() -> None:
    for origin in ("random", "teacher", "centres"):
        classifier = Classifier(torch.randn(4, 100), list("abcd"), origin)
        weight = ClassWeight(classifier, "gradient").weight
        torch.testing.assert_close(weight.detach().norm(dim=1), torch.ones(4))
        weight.data.zero_()
        assert classifier.weight.any()


def test_what_training_made_is_a_teachers_w_of_its_own() -> None:
    weight = ClassWeight(Classifier(torch.randn(4, 3), list("abcd"), "random"), "gradient")
    with torch.no_grad():
        weight.weight.mul_(7)
    trained = weight.trained()
    assert (trained.origin, trained.class_names) == ("teacher", list("abcd"))
    torch.testing.assert_close(trained.weight.norm(dim=1), torch.ones(4))
    with torch.no_grad():
        weight.weight.zero_()
    torch.testing.assert_close(trained.weight.norm(dim=1), torch.ones(4))
