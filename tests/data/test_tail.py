"""Class sizes that fall exponentially."""

import numpy as np
import pytest

from facedistill.data import Dataset, Source, long_tail
from facedistill.errors import UsageError


class Labelled(Source):
    def __init__(self, labels: list[int]) -> None:
        self.path, self.fingerprint = "labelled", str(labels)
        self.labels = np.array(labels, dtype=np.int64)
        self.class_names = [str(i) for i in range(max(labels) + 1)]
        self.keys = [str(i) for i in range(len(labels))]

    def read(self, i: int) -> np.ndarray:
        return np.zeros((28, 28, 3), np.uint8)


BALANCED = Dataset(Labelled([i % 10 for i in range(10_000)]))


@pytest.mark.parametrize(
    ("imbalance", "expected"),
    [
        (1, [1000] * 10),
        (10, [1000, 774, 599, 464, 359, 278, 215, 166, 129, 100]),
        (100, [1000, 599, 359, 215, 129, 77, 46, 27, 16, 10]),
        (1e9, [1000, 100, 10, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_profile(imbalance: float, expected: list[int]) -> None:
    assert np.bincount(long_tail(BALANCED, imbalance, 0).labels).tolist() == expected


def test_a_small_class_keeps_all_it_has() -> None:
    dataset = Dataset(Labelled([0] * 100 + [1] * 5 + [2] * 100))
    assert np.bincount(long_tail(dataset, 4, 0).labels).tolist() == [100, 5, 25]
    assert len(long_tail(Dataset(Labelled([0, 0, 0])), 100, 0)) == 3


def test_the_seed_alone_draws() -> None:
    first, again, other = (long_tail(BALANCED, 100, seed) for seed in (1, 1, 2))
    assert first.keys == again.keys and first.fingerprint == again.fingerprint
    assert first.keys != other.keys and len(first) == len(other)
    assert len(set(first.keys)) == len(first)
    assert all(int(key) % 10 == label for key, label in zip(first.keys, first.labels.tolist(), strict=True))


def test_less_than_one_is_refused() -> None:
    for imbalance in (0.5, float("nan")):
        with pytest.raises(UsageError, match="expected a number from 1 up"):
            long_tail(BALANCED, imbalance, 0)
