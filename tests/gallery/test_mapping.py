"""Maps between two models' spaces against scipy, normal equations, and spaces whose map the tests know."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from facedistill.errors import UserError
from facedistill.gallery.mapping import Mapping, fit_mapping, network, ridge, rotation, separation


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def _people(count: int = 600, dim: int = 16, seed: int = 0) -> np.ndarray:
    return _unit(np.random.default_rng(seed).normal(size=(count, dim)))


def _turn(first: int, last: int, seed: int = 1) -> np.ndarray:
    """A matrix (first, last) with orthonormal rows or columns."""
    square = np.linalg.qr(np.random.default_rng(seed).normal(size=(max(first, last),) * 2))[0]
    return square[:first, :last]


@pytest.mark.parametrize(("first", "last"), [(16, 16), (16, 24), (24, 16)])
def test_the_rotation_is_the_one_of_least_squares_among_orthogonal_ones(first: int, last: int) -> None:
    x = _people(dim=first)
    y = _unit(x @ _turn(first, last) + 0.1 * np.random.default_rng(2).normal(size=(len(x), last)))
    found = rotation(torch.from_numpy(x), torch.from_numpy(y))["linear"].double().numpy()
    small = min(first, last)
    gram = found @ found.T if first <= last else found.T @ found
    np.testing.assert_allclose(gram, np.eye(small), atol=1e-5)
    if first == last:
        linalg = pytest.importorskip("scipy.linalg")
        np.testing.assert_allclose(found, linalg.orthogonal_procrustes(x, y)[0], atol=1e-4)
    error = np.linalg.norm(x @ found - y)
    for seed in range(5):  # no small turn of it is better
        turned = found @ np.linalg.qr(np.eye(last) + 0.02 * np.random.default_rng(seed).normal(size=(last, last)))[0]
        assert min(np.linalg.norm(x @ turned - y), np.linalg.norm(x @ (2 * found - turned) - y)) > error - 1e-9


def test_ridge_is_the_one_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, penalty = _people(dim=8) + np.float32(0.3), 0.05
    y = _unit(x @ np.random.default_rng(3).normal(size=(8, 5)) + 0.5)
    found = ridge(torch.from_numpy(x), torch.from_numpy(y), penalty)
    alpha = penalty * len(x) * x.astype(np.float64).var(0).mean()
    other = linear.Ridge(alpha).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(found["linear"].numpy(), other.coef_.T, atol=1e-5)
    np.testing.assert_allclose(found["bias"].numpy(), other.intercept_, atol=1e-5)


def test_a_turned_space_is_found_to_the_last_bits_and_needs_no_more_than_a_rotation() -> None:
    x, turn = _people(), _turn(16, 16)
    found, line = fit_mapping(x, _unit(x @ turn), "a", "b")
    others = _people(seed=9)
    assert (
        found.cosine == pytest.approx(1, abs=1e-3) and found.dims == (16, 16) and (found.old, found.new) == ("a", "b")
    )
    cosines = (found(others) * _unit(others @ turn)).sum(1)
    assert cosines.min() > 0.99 and f"taken: {found.kind}" in line and "rotation" in line


def test_a_bent_space_takes_the_network_and_a_shifted_one_at_least_ridge() -> None:
    rng = np.random.default_rng(4)
    x = _people(3000)
    bent = _unit(np.maximum(0, x @ rng.normal(size=(16, 64))) @ rng.normal(size=(64, 24)))
    found, _ = fit_mapping(x, bent - bent.mean(0))
    assert found.kind == "network"
    shifted = _unit(x @ _turn(16, 24) * np.geomspace(0.05, 1, 24) + 2)
    assert fit_mapping(x, shifted)[0].kind in ("ridge", "network")


def test_the_network_begins_at_ridge_and_is_the_same_twice() -> None:
    x, y = (torch.from_numpy(_people(300, seed=s)) for s in (0, 1))
    start = ridge(x, y, 0.1)
    first, again = network(x, y, start), network(x, y, start)
    assert all(torch.equal(first[name], again[name]) for name in first)
    before = torch.nn.functional.cosine_similarity(x @ start["linear"] + start["bias"], y).mean()
    mapped = torch.from_numpy(Mapping("network", first, "", "")(x.numpy()))
    assert (mapped * y).sum(1).mean() > before


def test_separation_written_out_and_a_map_to_one_point_is_worth_nothing() -> None:
    mapped, new = _people(12, seed=1), _people(12, seed=2)
    each = []
    for i in range(12):
        scores = [float(new[i] @ mapped[j]) for j in range(12)]
        others = scores[:i] + scores[i + 1 :]
        each.append((scores[i] - np.mean(others)) / np.std(others))
    assert separation(torch.from_numpy(mapped), torch.from_numpy(new)) == pytest.approx(np.mean(each), rel=1e-4)
    cone = _unit(_people(400) * 0.2 + np.eye(16)[0])
    point = torch.from_numpy(np.tile(cone.mean(0), (400, 1))) + 1e-7 * torch.randn(400, 16)
    assert abs(separation(point, torch.from_numpy(cone))) < 0.2


def test_saved_and_loaded_it_maps_alike_and_gives_unit_rows(tmp_path: Path) -> None:
    x = _people(300)
    for kind, tensors in (
        ("rotation", rotation(*(torch.from_numpy(x),) * 2)),
        ("ridge", ridge(*(torch.from_numpy(x),) * 2, 0.1)),
    ):
        one = Mapping(kind, tensors, "a", "b", 240, 0.5, 3.0)
        one.save(tmp_path / "map.safetensors")
        other = Mapping.load(tmp_path / "map.safetensors")
        np.testing.assert_array_equal(one(x), other(x))
        assert (other.kind, other.old, other.new, other.images, other.separation) == (kind, "a", "b", 240, 3.0)
        np.testing.assert_allclose(np.linalg.norm(other(x * 7), axis=1), 1, atol=1e-6)


def test_what_is_no_map(tmp_path: Path) -> None:
    file = tmp_path / "map.safetensors"
    with pytest.raises(UserError, match="no such file; expected a map"):
        Mapping.load(file)
    file.write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match=r"not a map of `facedistill upgrade`, or damaged .*; fit it again"):
        Mapping.load(file)
    Mapping("ridge", {"linear": torch.eye(3), "bias": torch.zeros(3)}, "a", "b").save(file)
    about = {"kind": "ridge", "old": "a", "new": "b", "images": "1", "cosine": "1", "separation": "1"}
    whole = load_file(file)
    for tensors, expected in (
        ({"linear": whole["linear"]}, "holds linear for a map 'ridge'"),
        (whole | {"bias": torch.zeros(4)}, "its tensors do not fit together"),
        (whole | {"linear": torch.full((3, 3), torch.nan)}, "numbers that are not finite"),
    ):
        save_file(tensors, file, about)
        with pytest.raises(UserError, match=expected):
            Mapping.load(file)


def test_too_few_images() -> None:
    with pytest.raises(UserError, match="needs at least 200 images, better some thousands; 199 were given"):
        fit_mapping(_people(199), _people(199))
