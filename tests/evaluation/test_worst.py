"""The worst errors against a sort of all pairs."""

import numpy as np
import pytest

from facedistill.evaluation import worst as module
from facedistill.evaluation.worst import Errors, Scored, worst_errors, worst_pairs

IMAGES = 70


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(size=(IMAGES, 6)).astype(np.float32) for _ in range(2))
    labels = 10 - 3 * rng.integers(0, 12, IMAGES)  # any numbers
    return (
        first / np.linalg.norm(first, axis=1, keepdims=True),
        second / np.linalg.norm(second, axis=1, keepdims=True),
        labels,
    )


def brute(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, count: int) -> Errors:
    pairs = [
        Scored(i, j, float(probe[i] @ gallery[j]))
        for i in range(len(labels))
        for j in range(len(labels))
        if i < j or (probe is not gallery and i != j)
    ]
    pairs.sort(key=lambda pair: -pair.score)
    accepts: dict[frozenset[int], Scored] = {}
    rejects: dict[frozenset[int], Scored] = {}
    for pair in pairs:
        persons = frozenset((int(labels[pair.a]), int(labels[pair.b])))
        if len(persons) == 2:
            accepts.setdefault(persons, pair)
        else:
            rejects[persons] = pair  # the last is the lowest
    lowest = sorted(rejects.values(), key=lambda pair: pair.score)
    return list(accepts.values())[:count], lowest[:count]


def check(found: Errors, expected: Errors) -> None:
    for some, others in zip(found, expected, strict=True):
        assert [pair[:2] for pair in some] == [pair[:2] for pair in others]
        assert [pair.score for pair in some] == pytest.approx([pair.score for pair in others], abs=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("tile", [(7, 5), (5, 7), (16, 16), (512, 2048)])
@pytest.mark.parametrize("count", [1, 12, 50])
def test_they_are_the_first_of_all_pairs_sorted(
    symmetric: bool, tile: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    probe, other, labels = example()
    gallery = probe if symmetric else other
    check(worst_errors(probe, gallery, labels, count), brute(probe, gallery, labels, count))


def test_a_person_under_two_names_fills_one_place() -> None:
    probe, _, labels = example(1)
    twice = np.concatenate([probe, np.repeat(probe[:1], 9, axis=0), np.repeat(probe[:1], 9, axis=0)])
    names = np.concatenate([labels, np.full(9, 100), np.full(9, 101)])
    accepts, _ = worst_errors(twice, twice, names)
    assert len(accepts) == 12
    assert accepts[0].score == pytest.approx(1, abs=1e-6)
    assert sum({names[a], names[b]} == {100, 101} for a, b, _ in accepts) == 1
    check(worst_errors(probe, probe, labels), brute(probe, probe, labels, 12))


def test_fewer_errors_than_asked_for() -> None:
    probe, _, _ = example()
    labels = np.zeros(IMAGES, np.int64)
    labels[-2:] = 1
    accepts, rejects = worst_errors(probe, probe, labels, 5000)
    assert len(accepts) == 1  # two persons: one confusion
    assert len(rejects) == 2  # each of the two once
    assert worst_errors(probe, probe, np.arange(IMAGES), 3)[1] == []
    assert worst_errors(probe, probe, np.zeros(IMAGES, np.int64), 3)[0] == []
    assert worst_errors(probe, probe, labels, 0) == ([], [])


def test_equal_embeddings_give_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", (4, 4))
    vectors, labels = np.full((20, 4), 0.5, np.float32), np.arange(20) // 2
    accepts, rejects = worst_errors(vectors, vectors, labels, 10)
    assert len({(a, b) for a, b, _ in accepts}) == 10
    assert len({(labels[a], labels[b]) for a, b, _ in accepts}) == 10
    assert rejects == [Scored(2 * k, 2 * k + 1, 1.0) for k in range(10)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("chunk", [13, 2**14])
def test_the_worst_of_a_list(symmetric: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    probe, other, labels = example(2)
    gallery = probe if symmetric else other
    rng = np.random.default_rng(0)
    pairs = np.unique(np.sort(rng.integers(0, IMAGES, (200, 2)), axis=1), axis=0)
    pairs = rng.permutation(pairs[pairs[:, 0] != pairs[:, 1]])
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    every = [*pairs.tolist(), *([] if symmetric else pairs[:, ::-1].tolist())]
    scored = [Scored(a, b, float(probe[a] @ gallery[b])) for a, b in every]
    scored.sort(key=lambda pair: -pair.score)
    expected = (
        [p for p in scored if labels[p.a] != labels[p.b]][:12],
        [p for p in scored[::-1] if labels[p.a] == labels[p.b]][:12],
    )
    check(worst_pairs(probe, gallery, pairs, same), expected)


def test_a_list_that_repeats_a_pair() -> None:
    probe, _, _ = example()
    accepts, rejects = worst_pairs(probe, probe, np.array([[0, 1], [0, 1], [2, 3]]), np.zeros(3, bool))
    assert {pair[:2] for pair in accepts} == {(0, 1), (2, 3)}
    assert (len(accepts), rejects) == (2, [])
