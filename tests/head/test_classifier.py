"""W by itself and inside a training run."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from facedistill.errors import UserError
from facedistill.head.classifier import Classifier, ClassWeight


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
        (torch.ones(2, 2), ["a", "a"], "a class name is listed twice"),
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


def _moving(classes: int = 4, dim: int = 3) -> ClassWeight:
    rows = torch.randn(classes, dim, generator=torch.Generator().manual_seed(3))
    return ClassWeight(Classifier(rows, [str(i) for i in range(classes)], "random"), "teacher")


def _unit(x: torch.Tensor) -> np.ndarray:
    a = x.double().numpy()
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def test_a_w_that_the_teacher_moves_is_a_float32_buffer_of_its_own() -> None:
    classifier = Classifier(torch.randn(4, 3), list("abcd"), "random")
    weight = ClassWeight(classifier, "teacher")
    assert weight.frozen and not list(weight.parameters()) and list(weight.state_dict()) == ["weight"]
    x, again = torch.randn(2, 3).bfloat16(), ClassWeight(classifier, "teacher")
    weight.move(x, x, torch.tensor([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):  # as in training with precision bf16
        again.move(x, x, torch.tensor([0, 1]))
    assert torch.equal(again.weight, weight.weight)
    assert weight.weight.dtype == torch.float32 and not torch.equal(weight.weight, classifier.weight)
    assert weight.to("meta").weight.device.type == "meta" and classifier.weight.device.type == "cpu"


def test_the_teacher_moves_the_rows_of_the_batchs_classes_by_adadistills_formula() -> None:
    weight, s, t = _moving(), torch.randn(3, 3), torch.randn(3, 3)
    s[0], t[1] = t[0] + 0.1 * s[0], weight.weight[1] + 0.2 * t[1]
    s[1] = t[1] + 0.3 * s[1]
    before, student, teacher = _unit(weight.weight), _unit(s), _unit(t)
    labels = [3, 1, 0]
    expected = before.copy()
    shares = []
    for i, y in enumerate(labels):
        kept = max(0, student[i] @ teacher[i]) * max(0, before[y] @ teacher[i])
        row = kept * before[y] + (1 - kept) * teacher[i]
        expected[y] = row / np.linalg.norm(row)
        shares.append(kept)
    weight.move(7 * s, 0.1 * t, torch.tensor(labels))  # norms play no part
    np.testing.assert_allclose(weight.weight.numpy(), expected, atol=1e-6)
    assert max(shares) > 0.5 and np.array_equal(weight.weight[2].numpy(), before[2].astype("float32"))


def test_a_class_that_comes_twice_takes_the_mean_of_its_steps_once_in_any_order() -> None:
    s, t = torch.randn(5, 3), torch.randn(5, 3)
    s[:3] = t[:3] + 0.2 * s[:3]
    labels = torch.tensor([2, 0, 2, 2, 0])
    found = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        weight = _moving()
        weight.move(s[order], t[order], labels[order])
        found.append(weight.weight)
    torch.testing.assert_close(found[0], found[1])
    steps = []
    for i in (0, 2, 3):
        before = _unit(_moving().weight)[2]
        kept = max(0, _unit(s)[i] @ _unit(t)[i]) * max(0, before @ _unit(t)[i])
        steps.append(kept * before + (1 - kept) * _unit(t)[i])
    mean = np.mean(steps, axis=0)
    np.testing.assert_allclose(found[0][2].numpy(), mean / np.linalg.norm(mean), atol=1e-6)


def test_w_goes_to_a_strangers_embedding_at_once_and_stays_where_all_agree() -> None:
    weight, t = _moving(), torch.randn(1, 3)
    weight.move(-t, t, torch.tensor([1]))  # the student is lost
    torch.testing.assert_close(weight.weight[1], nn.functional.normalize(t, dim=1)[0])
    before = weight.weight.clone()
    weight.move(5 * before, 2 * before, torch.arange(4))
    torch.testing.assert_close(weight.weight, before)


def test_a_w_of_another_space_is_reached_by_a_trained_projection() -> None:
    rows = Classifier(torch.randn(4, 3), list("abcd"))
    plain, weight = ClassWeight(rows, "nothing"), ClassWeight(rows, "nothing", student_dim=5)
    x = torch.randn(2, 5).bfloat16()
    assert plain.place(x).dtype == torch.float32 and torch.equal(plain.place(x), x.float())
    assert weight.projection is not None and weight.frozen and list(weight.state_dict()) == ["projection.weight"]
    torch.testing.assert_close(weight.place(x), x.float() @ weight.projection.weight.T)


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
