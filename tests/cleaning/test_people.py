"""Images that show another person: planted in clouds of vectors."""

import numpy as np
import pytest

from facedistill.cleaning.people import People, _likenesses, find_swapped
from planted_people import clouds


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_swapped_labels_are_found(share: float) -> None:
    units, truth = clouds(200, 20, seed=1)
    rng = np.random.default_rng(2)
    labels = truth.copy()
    moved = rng.permutation(len(labels))[: int(share * len(labels))]
    labels[moved] = truth[rng.permutation(moved)]
    wrong = labels != truth
    found = find_swapped(People.of(units, labels, 200), 0.95, np.random.default_rng(0))
    flagged = found.verdict.flagged
    assert wrong[flagged].mean() >= 0.9 and flagged[wrong].mean() >= 0.9
    assert (found.other[flagged & wrong] == truth[flagged & wrong]).mean() > 0.95


def test_own_likeness_leaves_the_image_out() -> None:
    units, labels = clouds(3, 4, seed=3)
    people = People.of(units, labels, 3)
    for i, own in enumerate(people.own()):
        others = [j for j in np.flatnonzero(people.core & (labels == labels[i])) if j != i]
        assert own == pytest.approx(np.mean([units[i] @ units[j] for j in others]), rel=1e-5)
    assert people.core.sum() == 9 and people.counts.tolist() == [4, 4, 4]  # three quarters of each


def test_small_and_lonely_persons_are_not_judged() -> None:
    units, labels = clouds(6, 2, seed=4)
    found = find_swapped(People.of(units, labels, 6), 0.95, np.random.default_rng(0))
    assert not found.verdict.flagged.any() and not found.verdict.probability.any()
    found = find_swapped(People.of(units, np.zeros_like(labels), 1), 0.95, np.random.default_rng(0))
    assert not found.verdict.flagged.any()


def test_likenesses_of_an_image() -> None:
    """Computed one image at a time: to its person's core, its person's images, the best other core, and the count."""
    units, labels = clouds(5, 6, seed=5)
    people = People.of(units, labels, 5)
    rows = np.array([0, 7, 29])
    found, other = _likenesses(people, rows)
    for row, signs, best in zip(rows.tolist(), found, other.tolist(), strict=True):
        own = [j for j in np.flatnonzero(labels == labels[row]) if j != row]
        cores = [units[people.core & (labels == person)].mean(0) @ units[row] for person in range(5)]
        cores[labels[row]] = -2
        core = [units[row] @ units[j] for j in own if people.core[j]]
        nearest_own = max(float(units[row] @ units[j]) for j in own)
        np.testing.assert_allclose(signs, [np.mean(core), nearest_own, max(cores), np.log(6)], rtol=1e-5)
        assert best == int(np.argmax(cores))
