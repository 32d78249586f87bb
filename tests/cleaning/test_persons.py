"""One person under two names, two under one, and people of another set: planted in clouds of vectors."""

import numpy as np

from facedistill.cleaning.people import People
from facedistill.cleaning.persons import find_merged, find_overlap, find_split
from planted_people import clouds


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_person_under_two_names() -> None:
    units, labels = clouds(150, 16, seed=1)
    for person in range(10):
        labels[np.flatnonzero(labels == person)[::2]] = 150 + person
    found = find_split(People.of(units, labels, 160), 0.95, _rng())
    flagged = set(map(tuple, found.pairs[found.verdict.flagged].tolist()))
    planted = {(person, 150 + person) for person in range(10)}
    assert len(flagged & planted) >= 8 and len(flagged - planted) <= 1


def test_two_people_under_one_name() -> None:
    units, labels = clouds(150, 12, seed=2)
    truth = labels.copy()
    for person in range(0, 20, 2):
        labels[labels == person + 1] = person
    found = find_merged(People.of(units, labels, 150), 0.95, _rng())
    flagged = found.labels[found.verdict.flagged].tolist()
    assert len(set(flagged) & set(range(0, 20, 2))) >= 8 and len(set(flagged) - set(range(0, 20, 2))) <= 1
    for label, part, is_flagged in zip(found.labels, found.parts, found.verdict.flagged, strict=True):
        if is_flagged and label < 20:
            assert len(set(truth[part].tolist())) == 1 and len(part) == 12  # one person, whole


def test_a_single_error_is_no_second_person() -> None:
    units, labels = clouds(100, 10, seed=3)
    labels[::10] = np.roll(labels[::10], 1)  # one wrong image in each
    found = find_merged(People.of(units, labels, 100), 0.95, _rng())
    assert not found.verdict.flagged.any()


def test_people_of_an_evaluation_set() -> None:
    units, labels = clouds(150, 16, seed=4)
    shared = (labels < 10) & (np.arange(len(labels)) % 4 == 0)  # four images of each of ten people
    strangers, strange_labels = clouds(40, 4, seed=5)
    others = People.of(
        np.concatenate([units[shared], strangers]), np.concatenate([labels[shared], strange_labels + 10]), 50
    )
    found = find_overlap(People.of(units[~shared], labels[~shared], 150), others, 0.95, _rng())
    flagged = set(map(tuple, found.pairs[found.verdict.flagged].tolist()))
    planted = {(person, person) for person in range(10)}
    assert len(flagged & planted) >= 9 and len(flagged - planted) <= 1


def test_a_person_alone() -> None:
    units, labels = clouds(1, 8, seed=6)
    people = People.of(units, labels, 1)
    assert not len(find_split(people, 0.95, _rng()).pairs)
    assert not find_merged(people, 0.95, _rng()).verdict.flagged.any()
