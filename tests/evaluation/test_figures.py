"""What protocols declare about their results: it survives the JSON, joins without a loss, and orders columns."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from facedistill.evaluation.figures import Count, Declaration, Figure, Line, Target, estimate

TEXT = st.text(max_size=12)
KEY = st.text("abcdefgh_1", min_size=1, max_size=4)
FIGURE = st.builds(
    Figure,
    KEY,
    st.builds(lambda text, family: text.replace("{}", "") + "{}" * family, TEXT, st.booleans()),
    TEXT,
    unit=st.sampled_from(["%", "", "degrees"]),
    digits=st.integers(0, 9),
    headline=st.booleans(),
    overview=st.sampled_from(["leading", "always", "never"]),
    grouped=st.booleans(),
    target=st.none() | st.builds(Target, TEXT, KEY, KEY),
    calibrates=st.booleans(),
    bare=st.booleans(),
    interval=st.just("") | KEY,
)
PLOT = st.sampled_from(["roc", "det", "scores"]) | st.builds(Line, KEY, TEXT, TEXT, TEXT, TEXT, unit=TEXT)
DECLARATION = st.builds(
    Declaration,
    st.lists(FIGURE, max_size=4, unique_by=lambda f: f.key).map(tuple),
    st.lists(st.builds(Count, KEY, TEXT), max_size=3, unique_by=lambda c: c.key).map(tuple),
    st.lists(PLOT, max_size=3, unique_by=lambda p: p if isinstance(p, str) else p.key).map(tuple),
)


@given(declared=DECLARATION)
def test_a_declaration_is_the_same_after_the_json(declared: Declaration) -> None:
    written = json.loads(json.dumps(declared.to_json(), allow_nan=False))
    assert Declaration.read(written) == declared
    assert Declaration.read(written | {"a later version": 1}) == declared


@given(each=st.lists(DECLARATION, min_size=1, max_size=3))
def test_joined_of_each_key_the_first(each: list[Declaration]) -> None:
    joined = Declaration.joined(each)
    assert Declaration.joined([joined, *each]) == joined
    for part in ("figures", "counts", "plots"):
        keys = [getattr(one, "key", one) for one in getattr(joined, part)]
        assert len(keys) == len(set(keys))
        assert set(keys) == {getattr(one, "key", one) for d in each for one in getattr(d, part)}
    assert joined.figures[: len(each[0].figures)] == each[0].figures


@pytest.mark.parametrize("wrong", [None, [], {"figures": [{}]}, {"figures": [{"key": "a", "label": 3}]}, {"counts": 1}])
def test_what_is_no_declaration_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Declaration.read(wrong)


RATES = Figure("hits", "hits at {}", target=Target("FAR", "far", "impostors"))
RANKS = Figure("rank", "rank {}")
PLAIN = Figure("share", "share found", bare=True, interval="ends")
SAYS = Declaration((RANKS, PLAIN, RATES))


@given(
    ranks=st.lists(st.integers(1, 99), unique=True, min_size=1),
    rates=st.lists(st.sampled_from(["1e-1", "1e-2", "5e-3", "1e-3"]), unique=True),
)
def test_columns_stand_as_declared_ranks_rise_and_rates_fall(ranks: list[int], rates: list[str]) -> None:
    results = [
        {"rank": {str(k): {"value": 0} for k in ranks}, "unknown": 1},
        {"hits": {rate: {"value": 0} for rate in rates}, "share": 0.5},
    ]
    found = SAYS.paths(results)
    assert found == [
        *(f"rank.{k}" for k in sorted(ranks)),
        "share",
        *(f"hits.{rate}" for rate in sorted(rates, key=float, reverse=True)),
    ]
    assert sorted([*found[::-1], "unknown"], key=SAYS.order) == [*found, "unknown"]


def test_labels_take_their_member_and_nothing_else_in_braces() -> None:
    assert [SAYS.label(path) for path in ("rank.5", "share", "unknown.1")] == ["rank 5", "share found", "unknown.1"]
    assert Figure("x", "{0.__class__} {} {y}").name("7") == "{0.__class__} 7 {y}"


def test_estimates_are_found_in_either_form() -> None:
    result = {"rank": {"1": {"value": 0.5, "ci95": [0, 1]}}, "share": 0.25, "ends": [0.2, 0.3], "hits": {"1e-1": {}}}
    assert estimate(result, "rank.1", RANKS) == {"value": 0.5, "ci95": [0, 1]}
    assert estimate(result, "share", PLAIN) == {"value": 0.25, "ci95": [0.2, 0.3]}
    assert estimate(result, "share", None) == {"value": 0.25}
    for path in ("rank.5", "rank", "hits.1e-1", "none", "share.1"):
        assert estimate(result, path, SAYS.figure(path)) is None
