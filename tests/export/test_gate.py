"""The gate against figures computed here, and at its edges."""

import numpy as np
import pytest

from facedistill.export.gate import CLOSE, compare


def _embeddings(count: int = 200, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("precision", CLOSE)
def test_the_same_embeddings_pass_at_any_length(precision: str) -> None:
    expected = _embeddings()
    gate = compare(expected, _unit(expected), precision, normalised=True)
    assert gate.passed and gate.mean_cosine == pytest.approx(1) and gate.spread == pytest.approx(1)
    assert compare(expected, 3 * expected, precision, normalised=False).passed
    assert "length" in compare(expected, 3 * expected, precision, normalised=True).faults[0]


def test_figures_are_those_of_their_definition() -> None:
    expected = _embeddings()
    found = _unit(expected + 0.3 * _embeddings(seed=1))
    gate = compare(expected, found, "int8", normalised=True)
    cosine = (_unit(expected.astype(np.float64)) * found).sum(1)
    assert gate.mean_cosine == pytest.approx(cosine.mean(), abs=1e-6)
    assert gate.first_percentile == pytest.approx(np.percentile(cosine, 1), abs=1e-6)
    spreads = [np.linalg.norm(_unit(x) - _unit(x).mean(0), axis=1).mean() for x in (found, expected)]
    assert gate.spread == pytest.approx(spreads[0] / spreads[1], rel=1e-5)
    assert gate.images == 200


def test_one_bad_image_in_fifty_fails_although_the_mean_is_good() -> None:
    expected = _embeddings(500)
    found = _unit(expected).copy()
    found[::50] = _unit(_embeddings(500, seed=3))[::50]
    gate = compare(expected, found, "int8", normalised=True)
    assert gate.mean_cosine < CLOSE["int8"][0] or any("first percentile" in fault for fault in gate.faults)
    assert not gate.passed


def test_a_constant_output_is_called_so() -> None:
    cone = _embeddings() * 0.01 + np.eye(1, 16, dtype=np.float32)  # as a model whose embeddings lie in a narrow cone
    constant = np.repeat(_unit(cone[:1]), len(cone), axis=0)
    gate = compare(cone, constant, "int8", normalised=True)
    assert gate.mean_cosine > CLOSE["int8"][0], "cosines alone would let it pass"
    assert any("nearly the same embedding for every image" in fault for fault in gate.faults)


@pytest.mark.parametrize("found", [np.full((200, 16), np.nan, np.float32), np.zeros((200, 8), np.float32)])
def test_what_is_no_embedding_fails_in_one_line(found: np.ndarray) -> None:
    gate = compare(_embeddings(), found, "fp32", normalised=True)
    assert len(gate.faults) == 1 and "expected finite embeddings of shape (200, 16)" in gate.faults[0]


def test_rates_may_lose_one_point() -> None:
    gate = compare(_embeddings(), _unit(_embeddings()), "fp32", normalised=True)
    gate.add_rate("student against student", 0.90, 0.891, 1e-4)
    assert gate.passed and "TAR 89.10 at FAR 0.0001, the model 90.00" in gate.text()
    gate.add_rate("student against the gallery", 0.90, 0.885, 1e-4)
    assert not gate.passed and "fell from 90.00 to 88.50" in gate.text()
    assert gate.to_json()["passed"] is False and len(gate.to_json()["faults"]) == 1
