"""Neighbours in blocks are those of one large product."""

import numpy as np
import pytest

from facedistill.cleaning import neighbours
from facedistill.cleaning.neighbours import nearest


@pytest.mark.parametrize("itself", [False, True])
def test_as_one_product(itself: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 50 * 7)  # seven rows a block
    rng = np.random.default_rng(0)
    others = rng.normal(size=(50, 6)).astype(np.float32)
    rows = others if itself else rng.normal(size=(23, 6)).astype(np.float32)
    products, places = nearest(rows, others, 3, leave_out_self=itself)
    whole = rows @ others.T
    if itself:
        np.fill_diagonal(whole, -np.inf)
    expected = np.argsort(-whole, axis=1)[:, :3]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(products, np.take_along_axis(whole, expected, 1), rtol=1e-5)


def test_fewer_others_than_asked_for() -> None:
    one = np.ones((1, 4), np.float32)
    assert nearest(one, one, 3)[1].tolist() == [[0]]
    assert nearest(one, one, 3, leave_out_self=True)[1].shape == (1, 0)
