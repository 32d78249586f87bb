"""The method table, what a recipe changes in a row, terms from outside, and the module that runs them."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from facedistill.data.batch import Batch, Output
from facedistill.data.views import VIEWS, Mixup
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.head.starts import STARTS, Fitted, NoClassifier
from facedistill.methods import METHODS
from facedistill.models.model import Model
from facedistill.recipe.read import make_recipe
from facedistill.recipe.schema import ClassifierSpec, MethodSpec, MovedBy, SamplerSpec, TermSpec, ViewSpec
from facedistill.terms import TERMS, Term, make_term
from facedistill.terms.soft_targets import SoftTargets
from facedistill.training.method import Method, WiredTerm, missing_teachers, wire_terms
from facedistill.training.resolved import describe, resolve
from facedistill.training.teacher import Teacher


def _method(**raw: Any) -> MethodSpec:
    return make_recipe({"method": raw}).method


def _spec(**raw: Any) -> MethodSpec:
    return resolve(_method(**raw)).spec


def test_a_row_alone() -> None:
    method = _spec(name="proxylesskd")
    assert method.classifier == ClassifierSpec("teacher", "nothing", "fp32")
    assert method.terms == {"margin_softmax": TermSpec(1.0)}


def test_the_recipe_changes_weight_options_and_either_half_of_the_classifier() -> None:
    terms = {"margin_softmax": {"scale": 32}, "embedding_l2": 0.5}
    method = _spec(name="proxylesskd", terms=terms, classifier={"start": "centres"})
    assert method.classifier == ClassifierSpec("centres", "nothing", "fp32")
    assert method.terms["margin_softmax"] == TermSpec(1.0, options={"scale": 32})
    assert method.terms["embedding_l2"].weight == 0.5
    assert _spec(name="proxylesskd", classifier={"moved_by": "gradient"}).classifier == ClassifierSpec(
        "teacher", "gradient", "fp32"
    )


@pytest.mark.parametrize("name", METHODS)
def test_resolving_leaves_the_table_alone_and_twice_is_once(name: str) -> None:
    before = repr(METHODS)
    own = _method(name=name, terms={"margin_softmax": {"scale": 8}, "embedding_l2": 0})
    once = resolve(own).spec
    assert resolve(once).spec == once
    plain = _spec(name=name)
    for term in plain.terms.values():
        term.options["scale"] = 1
    assert repr(METHODS) == before


@pytest.mark.parametrize("name", METHODS)
def test_a_resolved_method_is_what_its_spec_says(name: str) -> None:
    method = resolve(_method(name=name))
    spec = method.spec
    assert (method.name, method.rows, method.teacher_epoch) == (spec.name, spec.classifier.rows, spec.teacher_epoch)
    assert method.moved_by == (spec.classifier.moved_by or "nothing")
    assert type(method.start) is STARTS.get(spec.classifier.start or "", NoClassifier)
    assert (method.sampler, type(method.view)) == (spec.sampler.kind, VIEWS[spec.view.kind or ""])
    assert method.sampler_options == ({"k": 4} if spec.sampler.kind == "pk" else {})
    assert {key: (t.weight, t.teacher, t.options) for key, t in method.terms.items()} == {
        key: (t.weight, t.teacher, t.options) for key, t in spec.terms.items()
    }


def test_weight_0_removes_a_term_for_good() -> None:
    method = resolve(_method(name="margin_softmax_l2", terms={"margin_softmax": 0}))
    assert list(wire_terms(method)) == list(wire_terms(resolve(method.spec))) == ["embedding_l2"]
    with pytest.raises(UsageError, match="no term has a weight"):
        wire_terms(resolve(_method(name="l2kd", terms={"embedding_l2": 0})))


def test_the_sampler_is_the_methods_unless_the_recipe_says_otherwise() -> None:
    assert _spec(name="proxylesskd").sampler == SamplerSpec("uniform", 4)
    assert _spec(name="cckd").sampler == SamplerSpec("pk", 4)
    assert _spec(name="cckd", sampler={"k": 2}).sampler == SamplerSpec("pk", 2)
    assert _spec(name="cckd", sampler={"kind": "uniform"}).sampler == SamplerSpec("uniform", 4)


def test_the_view_is_the_methods_unless_the_recipe_says_otherwise() -> None:
    assert _spec(name="kd").view == ViewSpec("same", 0.2)
    assert _spec(name="stkd").view == ViewSpec("mixup", 0.2)
    assert _spec(name="stkd", view={"alpha": 1}).view == ViewSpec("mixup", 1.0)
    assert _spec(name="kd", view={"kind": "mixup"}).view == ViewSpec("mixup", 0.2)
    with pytest.raises(UsageError, match=r"method\.view\.alpha: Input should be greater than 0"):
        _method(name="stkd", view={"alpha": 0})


def test_unknown_names_suggest_the_near_one() -> None:
    with pytest.raises(
        UsageError, match=r"method 'proxyleskd' is unknown \(did you mean 'proxylesskd'\?\); known: scra"
    ):
        resolve(MethodSpec("proxyleskd"))
    with pytest.raises(UsageError, match=r"term 'embeding_l2' is unknown \(did you mean 'embedding_l2'\?\)"):
        wire_terms(resolve(_method(name="scratch", terms={"embeding_l2": 1})))
    for group, key, name, near in (
        ("classifier", "start", "centers", "centres"),
        ("sampler", "kind", "uniformly", "uniform"),
        ("view", "kind", "mixupp", "mixup"),
    ):
        with pytest.raises(UsageError, match=rf"'{name}' is unknown \(did you mean '{near}'\?\); known: "):
            resolve(_method(name="scratch", **{group: {key: name}}))


def test_options_of_start_sampler_and_view_reach_them_and_misfits_are_named() -> None:
    fitted = resolve(_method(name="proxylesskd", classifier={"start": "fitted", "options": {"epochs": 3}}))
    assert isinstance(fitted.start, Fitted) and (fitted.start.epochs, fitted.start.batch) == (3, 512)
    assert fitted.spec.classifier.options == {"epochs": 3}
    mixed = resolve(_method(name="stkd", view={"alpha": 0.7})).view
    assert isinstance(mixed, Mixup) and mixed.alpha == 0.7
    for raw, expected in (
        ({"classifier": {"options": {"epoch": 3}}}, r"start 'teacher' has no option 'epoch'; it has: none"),
        ({"view": {"kind": "mixup", "options": {"beta": 3}}}, r"view 'mixup' has no option 'beta'.*; it has: alpha"),
        ({"view": {"options": {"kind": 3}}}, r"view 'same' has no option 'kind'; it has: none"),
        ({"classifier": {"options": {"name": 3}}}, r"start 'teacher' has no option 'name'; it has: none"),
    ):
        with pytest.raises(UsageError, match=expected):
            resolve(_method(name="proxylesskd", **raw))


@pytest.mark.parametrize(
    ("raw", "origin", "expected"),
    [
        ({"name": "scratch"}, "random", "scratch"),
        ({"name": "l2kd"}, None, "l2kd"),
        ({"name": "proxylesskd"}, "centres", "proxylesskd (W: centres)"),
        ({"name": "proxylesskd", "terms": {"embedding_l2": 1}}, "teacher", "proxylesskd + embedding_l2 (W: teacher)"),
        ({"name": "kd", "terms": {"soft_targets": 0}}, "random", "kd - soft_targets"),
        ({"name": "scratch", "terms": {"embedding_l2": 0}}, "random", "scratch"),
        ({"name": "adadistill"}, "random", "adadistill"),
        ({"name": "pocketnet"}, "random", "pocketnet"),
        ({"name": "pocketnet", "teacher_epoch": "last"}, "random", "pocketnet - epochs"),
        ({"name": "l2kd", "teacher_epoch": "same"}, None, "l2kd + epochs"),
        ({"name": "stkd"}, "random", "stkd"),
        ({"name": "stkd", "view": {"kind": "same"}}, "random", "stkd - mixup"),
        ({"name": "kd", "view": {"kind": "mixup"}}, "random", "kd + mixup"),
        ({"name": "adadistill"}, "centres", "adadistill (W: centres)"),
        ({"name": "scratch", "terms": {"margin_softmax": 0.5}}, "random", "scratch"),
        ({"name": "proxylesskd", "classifier": {"start": "random"}}, "random", "proxylesskd (W: random)"),
        (
            {"name": "proxylesskd", "classifier": {"moved_by": "gradient"}},
            "centres",
            "proxylesskd + W moved by gradient (W: centres)",
        ),
        ({"name": "proxylesskd_finetune"}, "teacher", "proxylesskd_finetune (W: teacher)"),
        ({"name": "adadistill", "classifier": {"moved_by": "nothing"}}, "random", "adadistill + W moved by nothing"),
        ({"name": "cckd"}, "random", "cckd"),
        ({"name": "cckd", "sampler": {"kind": "uniform"}}, "random", "cckd + uniform sampler"),
        ({"name": "l2kd", "sampler": {"kind": "pk"}}, None, "l2kd + pk sampler"),
    ],
)
def test_describe(raw: dict[str, Any], origin: str | None, expected: str) -> None:
    assert describe(_spec(**raw), origin) == expected


@pytest.mark.parametrize(
    ("term", "option", "value"),
    [("margin_softmax", "margin_warmup", 5), ("margin_softmax", "scale", 0), ("soft_targets", "temperature", 0),
     ("ekd", "momentum", 2), ("cckd", "gamma", -1)],
)  # fmt: skip
def test_an_option_out_of_its_range_is_named(term: str, option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"term '{term}': option '{option}': Input should be .*, found {value}"):
        make_term(term, {option: value})


def test_a_margin_in_place_of_the_rows_own_has_its_own_size() -> None:
    own = wire_terms(resolve(_method(name="stkd")))["margin_softmax"].term
    other = resolve(_method(name="stkd", terms={"margin_softmax": {"margin": "arcface"}}))
    assert own.margin.size == 0 and wire_terms(other)["margin_softmax"].term.margin.size == 0.5


def test_missing_teachers() -> None:
    for name, missing in [("scratch", []), ("proxylesskd", ["teacher"]), ("l2kd", ["teacher"]), ("kd", ["teacher"]),
                          ("adadistill", ["teacher"])]:  # fmt: skip
        assert missing_teachers(make_recipe({"method": name})) == missing
        assert missing_teachers(make_recipe({"method": name, "teacher": "t"})) == []


OUTSIDE = """
import torch
from facedistill.terms import Term

class Pull(Term):
    needs = frozenset({"embedding"})
    def __init__(self, strength: float = 1.0, *, target: float) -> None:
        super().__init__()
        self.strength, self.target = strength, target
    def forward(self, student, teacher, batch):
        return self.strength * (student.embedding - self.target).square().mean()

class Stranger:
    pass
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_terms.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_terms", raising=False)
    return "my_terms"


def test_a_term_from_outside_the_package(outside: str) -> None:
    raw = {"name": "l2kd", "terms": {"pull": {"term": f"{outside}:Pull", "target": 3, "strength": 2, "weight": 0.5}}}
    terms = wire_terms(resolve(_method(**raw)))
    wired = terms["pull"]
    assert (type(wired.term).__name__, wired.weight, wired.teacher) == ("Pull", 0.5, "teacher")
    loss = wired.term(Output(torch.zeros(2, 4)), None, _batch())
    assert float(loss) == 18


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("my_terms:Pull", {"target": 1, "strenght": 2}, r"no option 'strenght' \(did you mean 'strength'\?\)"),
        ("my_terms:Pull", {}, "needs the option 'target'"),
        ("my_terms:Pull", {"target": "far"}, "option 'target': Input should be a valid number.* found 'far'"),
        ("my_terms:Push", {}, "term 'my_terms:Push' cannot be imported"),
        ("my_trems:Pull", {}, "term 'my_trems:Pull' cannot be imported: No module named 'my_trems'"),
        (":Pull", {}, "cannot be imported"),
        ("my_terms:", {}, "cannot be imported"),
        ("my_terms:Stranger", {}, "is no Term"),
        ("my_terms:torch", {}, "is no Term"),
    ],
)
def test_errors_of_terms_from_outside(name: str, options: dict[str, Any], expected: str, outside: str) -> None:
    with pytest.raises(UsageError, match=expected):
        make_term(name, options)


class _Student(nn.Module):
    """Embeds by the mean of each channel; its stage map is the image. Remembers whether features were asked."""

    input_size, device = 8, torch.device("cpu")

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(3, dim)
        self.asked: list[bool] = []

    def outputs(self, images: Tensor, features: bool = True) -> Output:
        self.asked.append(features)
        return Output(self.linear(images.float().mean((2, 3))), (images.float(),) if features else ())


class _FakeTeacher:
    def __init__(self, classifier: Classifier | None = None) -> None:
        self.classifier = classifier
        self.asked: list[frozenset[str]] = []
        self.epochs: list[int] = []
        self.model: nn.Module = _Student()

    def __call__(self, batch: Batch, needs: frozenset[str]) -> Output | None:
        self.asked.append(needs)
        return Output(torch.ones(len(batch.images), 3)) if needs else None

    def start_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class _Needs(Term):
    def __init__(self, *needs: str, value: float = 1.0) -> None:
        super().__init__()
        self.needs, self.value = frozenset(needs), value

    def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
        assert (teacher is None) == (not self.needs)
        return student.embedding.sum() * 0 + self.value


def _batch(count: int = 4) -> Batch:
    images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(count) % 2
    return Batch(images, images, [(labels, 1.0)], torch.stack([torch.arange(count), labels], 1), 0.0, labels)


def _wired(terms: Mapping[str, tuple[Term, float, str]]) -> dict[str, WiredTerm]:
    return {name: WiredTerm(*wired) for name, wired in terms.items()}


def _together(terms: dict[str, tuple[Term, float, str]], teachers: dict[str, Any], weight: Any = None) -> Method:
    return Method(cast(Model, _Student()), weight, teachers, _wired(terms))


def test_needs_are_the_union_of_the_terms_needs_per_teacher() -> None:
    teachers = {"a": _FakeTeacher(), "b": _FakeTeacher(), "idle": _FakeTeacher()}
    terms: dict[str, tuple[Term, float, str]] = {
        "one": (_Needs("embedding"), 1.0, "a"),
        "two": (_Needs("features", "logits"), 1.0, "a"),
        "three": (_Needs("embedding"), 1.0, "b"),
        "four": (_Needs(), 1.0, "b"),
    }
    del terms["four"]
    method = _together(terms, teachers)
    assert method.needs == {
        "a": frozenset({"embedding", "features", "logits"}),
        "b": frozenset({"embedding"}),
        "idle": frozenset(),
    }
    student: Any = method.student
    student.asked.clear()
    method(_batch())
    assert teachers["a"].asked == [method.needs["a"]] and teachers["idle"].asked == [frozenset()]
    assert student.asked == [True]
    method.start_epoch(3)
    assert all(t.epochs == [3] for t in teachers.values())


def test_a_term_on_features_learns_their_shapes_once_and_leaves_the_networks_as_they_were() -> None:
    class Shapes(_Needs):
        def bind_features(self, student: Any, teacher: Any) -> None:
            self.shapes = (list(student), list(teacher))

    term, teacher = Shapes("features"), _FakeTeacher()
    teacher.model.eval()
    method = _together({"x": (term, 1.0, "t"), "y": (_Needs("embedding"), 1.0, "t")}, {"t": teacher})
    assert term.shapes == ([(3, 8, 8)], [(3, 8, 8)])
    assert method.student.training and not teacher.model.training


def test_losses_are_weighted_named_and_ask_for_no_features_in_vain() -> None:
    method = _together({"x": (_Needs(value=3.0), 0.5, "t"), "y": (_Needs(value=2.0), 4.0, "t")}, {})
    assert {name: loss.item() for name, loss in method(_batch()).items()} == {"x": 1.5, "y": 8.0}
    assert method.student.asked == [False]


def test_teachers_are_no_part_of_the_module() -> None:
    teacher = _FakeTeacher()
    teacher.model = nn.Linear(2, 2)
    method = _together({"x": (_Needs("embedding"), 1.0, "t")}, {"t": teacher})
    assert set(method.state_dict()) == {"student.linear.weight", "student.linear.bias"}


def test_a_term_without_its_teacher_or_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="term 'x' needs the teacher 'b'; the recipe has: a"):
        _together({"x": (_Needs("embedding"), 1.0, "b")}, {"a": _FakeTeacher()})
    with pytest.raises(UsageError, match="the recipe has: none"):
        _together({"x": (TERMS["embedding_l2"](), 1.0, "teacher")}, {})
    with pytest.raises(UserError, match=r"method\.classifier\.start"):
        _together({"x": (TERMS["margin_softmax"](), 1.0, "t")}, {})


@pytest.mark.parametrize(
    ("terms", "origin", "moved_by", "anchor"),
    [
        (["margin_softmax"], "teacher", "nothing", "t"),
        (["margin_softmax"], "centres", "nothing", "t"),
        (["margin_softmax"], "instances", "nothing", "t"),
        (["margin_softmax"], "teacher", "gradient", None),
        (["margin_softmax"], "random", "gradient", None),
        (["margin_softmax"], "random", "nothing", None),
        (["margin_softmax"], "random", "teacher", "t"),
        (["embedding_l2"], None, None, "t"),
        (["margin_softmax", "embedding_l2"], "random", "gradient", "t"),
        (["margin_softmax", "soft_targets"], "random", "gradient", None),
    ],
)
def test_anchors(terms: list[str], origin: str | None, moved_by: MovedBy | None, anchor: str | None) -> None:
    rows = Classifier(torch.randn(2, 3), ["a", "b"], origin or "teacher")
    weight = ClassWeight(rows, moved_by) if moved_by else None
    method = _together({n: (TERMS[n](), 1.0, "t") for n in terms}, {"t": _FakeTeacher(rows)}, weight)
    assert method.anchors == anchor
    losses = method(_batch())
    assert set(losses) == set(terms) and all(torch.isfinite(v) and v.dtype == torch.float32 for v in losses.values())


def test_a_frozen_w_stands_in_no_state_and_a_learned_one_does() -> None:
    rows = Classifier(torch.randn(2, 3), ["a", "b"])
    cases: list[tuple[MovedBy, bool]] = [("nothing", False), ("gradient", True)]
    for moved_by, there in cases:
        terms = {n: (TERMS[n](), 1.0, "t") for n in ("margin_softmax", "soft_targets")}
        method = _together(terms, {"t": _FakeTeacher(rows)}, ClassWeight(rows, moved_by))
        names = [n for n, _ in method.named_parameters()]
        assert ("weight.weight" in names) == there and len(names) == 2 + there
        assert any("weight" in n and "linear" not in n for n in method.state_dict()) == there
        method.double()
        assert method.weight is not None and method.weight.weight.dtype == torch.float64
        soft = method.terms["soft_targets"]
        assert isinstance(soft, SoftTargets) and soft.teacher_weight.weight.dtype == torch.float64


def test_a_teacher_that_moves_w_is_asked_for_its_embedding_and_w_moves_before_the_loss() -> None:
    rows = Classifier(torch.randn(2, 3), ["a", "b"], "random")
    weight, teacher = ClassWeight(rows, "teacher"), _FakeTeacher()
    method = _together({"softmax": (TERMS["margin_softmax"](), 1.0, "t")}, {"t": teacher}, weight)
    assert method.needs == {"t": frozenset({"embedding"})} and "weight.weight" in method.state_dict()
    batch = _batch()
    embedding = method.student.outputs(batch.images).embedding
    expected = ClassWeight(rows, "teacher")
    expected.move(embedding, torch.ones(4, 3), batch.targets[0][0])
    loss = method(batch)["softmax"]
    assert torch.equal(weight.weight, expected.weight) and not torch.equal(weight.weight, rows.weight)
    assert loss.item() == method.terms["softmax"](Output(embedding), None, batch).item()
    with pytest.raises(UsageError, match="term 'softmax' needs the teacher 't'; the recipe has: none"):
        _together({"softmax": (TERMS["margin_softmax"](), 1.0, "t")}, {}, weight)


def test_student_teacher_and_terms_all_get_what_the_view_makes() -> None:
    seen: list[Batch] = []

    class Watch(_Needs):
        def forward(self, student: Output, teacher: Output | None, batch: Batch) -> Tensor:
            seen.append(batch)
            return super().forward(student, teacher, batch)

    class Looking(_FakeTeacher):
        def __call__(self, batch: Batch, needs: frozenset[str]) -> Output | None:
            seen.append(batch)
            return super().__call__(batch, needs)

    batch, teachers = _batch(), cast(dict[str, Teacher], {"t": Looking()})
    mixed = replace(batch, images=batch.images.flip(0).float())
    terms = {"x": (Watch("embedding"), 1.0, "t")}
    method = Method(cast(Model, _Student()), None, teachers, _wired(terms), lambda b: mixed)
    method(batch)
    assert len(seen) == 2 and all(b is mixed for b in seen)


def test_each_teachers_w_serves_its_own_terms_and_the_student_lives_in_the_first_ones_space() -> None:
    first, second = (Classifier(torch.randn(2, dim), ["a", "b"]) for dim in (3, 5))
    weight, other = ClassWeight(first, "nothing"), ClassWeight(second, "nothing", student_dim=3)
    terms: dict[str, tuple[Term, float, str]] = {
        "one": (TERMS["margin_softmax"](), 1.0, "t"),
        "two": (TERMS["margin_softmax"](), 0.5, "u"),
    }
    teachers: Any = {"t": _FakeTeacher(), "u": _FakeTeacher()}
    method = Method(cast(Model, _Student()), weight, teachers, _wired(terms), further={"u": other})
    assert method.weights == [weight, other] and method.anchors == "t" and not method.terms["two"].anchors
    assert method.needs == {"t": frozenset(), "u": frozenset()}  # W is inherited: no teacher runs
    batch = _batch()
    embedding = method.student.outputs(batch.images).embedding
    alone = TERMS["margin_softmax"]()
    alone.bind(ClassWeight(second, "nothing"), None)
    expected = 0.5 * alone(Output(other.place(embedding)), None, batch)
    losses = method(batch)
    torch.testing.assert_close(losses["two"], expected)
    losses["two"].backward()
    assert other.projection is not None and other.projection.weight.grad is not None
    assert any(name.endswith("projection.weight") for name in method.state_dict())
