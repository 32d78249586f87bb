"""Rendered attributes: labels that are exact, a tail of any length, and faces that stay as they were without them."""

import numpy as np
import pytest

from facedistill.data import open_source
from facedistill.data.synthetic.attributes import ATTRIBUTES, HIDDEN, REGIONS, shares, show_attributes
from facedistill.data.synthetic.faces import draw_person, draw_shot
from facedistill.data.synthetic.paint import draw_face
from facedistill.errors import UserError

SPEC = "synthetic:identities=1000,images=2,size=32,seed=3,task=attributes,imbalance=100"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_each_attribute_is_seen(name: str) -> None:
    place, changed = list(ATTRIBUTES).index(name), []
    for identity in range(4):
        pictures = []
        for there in (False, True):
            who, shot = draw_person(0, identity), draw_shot(0, identity, 0)
            has = np.zeros(len(ATTRIBUTES), dtype=bool)
            has[place] = there
            show_attributes(who, shot, has, 0, identity, 0)
            pictures.append(draw_face(who, shot, 64).astype(int))
        changed.append((abs(pictures[0] - pictures[1]).max(2) > 15).sum())
    assert np.median(changed) >= 12  # pixels of 4,096


def test_the_tail_is_as_long_as_asked() -> None:
    found = open_source(SPEC)
    assert found.multi_hot is not None and found.multi_hot.shape == (2000, len(ATTRIBUTES))
    assert list(found.label_names) == list(ATTRIBUTES) and found.label_groups == REGIONS
    expected = 2000 * shares(100)
    assert expected[0] / expected[-1] == pytest.approx(100)
    often = expected > 30
    assert (abs(found.multi_hot.sum(0) - expected)[often] < 4 * np.sqrt(expected[often])).all()
    for cover, hidden in HIDDEN.items():
        covered = found.multi_hot[found.multi_hot[:, found.label_names.index(cover)]]
        assert not covered[:, [found.label_names.index(name) for name in hidden]].any()


def test_more_images_leave_the_others_as_they_are() -> None:
    few, more = open_source(SPEC.replace("1000", "3")), open_source(SPEC.replace("1000", "5"))
    assert few.multi_hot is not None and more.multi_hot is not None
    assert np.array_equal(few.multi_hot, more.multi_hot[:6]) and np.array_equal(few.read(5), more.read(5))
    assert few.class_names == more.class_names[:3] and few.fingerprint != more.fingerprint
    plain = open_source("synthetic:identities=3,images=2,size=32,seed=3")
    assert plain.multi_hot is None and not np.array_equal(plain.read(5), few.read(5))


def test_refused() -> None:
    with pytest.raises(UserError, match=r"imbalance is 0\.5, expected 1 and more"):
        open_source("synthetic:task=attributes,imbalance=0.5")
    with pytest.raises(UserError, match="with task=attributes"):
        open_source("synthetic:imbalance=10")
