"""The input convention is found from images alone; a network's indifference is told from its approval."""

import numpy as np
import pytest
import torch

from check_toys import Patterns, red_eye
from facedistill.check.conventions import Convention, conventions, likely_right, rank_conventions, sample_identities
from facedistill.data.dataset import Dataset
from facedistill.errors import UserError
from facedistill.models.model import InputSpec


def verdicts(found: list) -> dict[str, str]:
    return {c.name: c.verdict for c in found}


def test_ten_conventions_each_once_with_the_means_in_the_networks_order() -> None:
    found = conventions(InputSpec(size=64))
    assert len(found) == len(set(found.values())) == 10
    assert found["RGB /127.5 - 1"] == InputSpec(size=64)
    assert found["RGB ImageNet"].mean == (123.675, 116.28, 103.53)
    assert found["BGR ImageNet"].mean == (103.53, 116.28, 123.675)
    assert found["BGR ImageNet"].std == (57.375, 57.12, 58.395)


def test_a_declared_convention_of_its_own_is_ranked_too() -> None:
    found = conventions(InputSpec(mean=(100.0,), std=(50.0,)))
    assert found["RGB mean 100 std 50"] == InputSpec(mean=(100.0,), std=(50.0,))
    assert found["BGR mean 100 std 50"] == InputSpec(colour="bgr", mean=(100.0,), std=(50.0,))
    assert len(found) == 12


def outcome(separation: float, interval: tuple[float, float], recoloured: bool = False, agreement: float = 0.9) -> str:
    """The verdict on a convention against a declared one of separation 4."""
    found = Convention("x", InputSpec(), False, recoloured, 100, separation, separation - 4, interval, agreement)
    return found.verdict


def test_a_better_colour_order_needs_an_interval_and_a_better_scale_a_tenth_more_as_well() -> None:
    assert outcome(4.2, (0.1, 0.3)) == "slightly better"
    assert outcome(4.5, (0.4, 0.6)) == "better"
    assert outcome(4.2, (0.1, 0.3), recoloured=True) == "better"
    assert outcome(4.2, (-0.1, 0.3), recoloured=True) == "undecided"
    assert outcome(4.5, (-0.1, 1.1)) == "undecided"
    assert outcome(3.5, (-0.6, -0.4)) == "worse"
    assert outcome(4.5, (0.4, 0.6), agreement=0.995) == "same"


def test_the_right_convention_is_beaten_by_none() -> None:
    found = verdicts(rank_conventions(red_eye(), Dataset(Patterns())))
    assert found["RGB /127.5 - 1"] == "declared" and "better" not in found.values()
    assert found["RGB (x - 127.5) / 128"] == "same"
    assert found["BGR /127.5 - 1"] == found["RGB 0..255"] == "worse"


@pytest.mark.parametrize(("colour", "mean", "std"), [("bgr", 127.5, 127.5), ("rgb", 0.0, 1.0), ("bgr", 0.0, 255.0)])
def test_a_wrong_convention_is_beaten_by_the_right_one(colour: str, mean: float, std: float) -> None:
    found = rank_conventions(red_eye(colour, mean, std), Dataset(Patterns()))
    assert verdicts(found)["RGB /127.5 - 1"] == "better"
    # ImageNet's scaling differs from the right one by a factor that this network hardly minds.
    assert found[0].name in ("RGB /127.5 - 1", "RGB (x - 127.5) / 128", "RGB ImageNet")
    assert found[0].interval[0] > 0.3


def test_grey_images_cannot_tell_the_colour_order() -> None:
    found = verdicts(rank_conventions(red_eye("bgr"), Dataset(Patterns(grey=True))))
    assert found["RGB /127.5 - 1"] == "same"
    assert found["RGB 0..255"] == "worse"


def test_chance_has_no_skill() -> None:
    """Blue channel alone: noise."""
    found = {c.name: c for c in rank_conventions(red_eye(), Dataset(Patterns(people=80)))}
    assert found["BGR /127.5 - 1"].separation == pytest.approx(0, abs=0.15)
    assert found["RGB 0..255"].separation == pytest.approx(0, abs=0.3)  # saturated: all pairs tie
    assert found["RGB /127.5 - 1"].separation > 2


def test_an_offset_does_not_hide_the_fault() -> None:
    teacher = red_eye("bgr", offset=torch.full((16,), 0.3))
    assert verdicts(rank_conventions(teacher, Dataset(Patterns())))["RGB /127.5 - 1"] == "better"


def test_of_those_that_are_better_the_simplest_change_is_named_first_and_the_poorer_colour_order_not_at_all() -> None:
    specs = conventions(InputSpec(colour="bgr"))

    def made(name: str, separation: float, recoloured: bool = False) -> Convention:
        return Convention(
            name, specs[name], False, recoloured, 9, separation, separation - 1, (separation - 1,) * 2, 0.5
        )

    found = [made("RGB ImageNet", 4.2), made("BGR ImageNet", 3.95), made("RGB /127.5 - 1", 4.0, True)]
    found += [made("RGB 0..1", 3.0), made("RGB 0..255", 0.5)]
    assert [c.name for c in likely_right(found)] == ["RGB /127.5 - 1", "RGB ImageNet"]
    assert likely_right(found[-1:]) == []


def test_those_far_off_are_measured_on_fewer_images() -> None:
    found = {c.name: c for c in rank_conventions(red_eye(), Dataset(Patterns(people=300)), images=1200)}
    assert found["RGB /127.5 - 1"].images == 1200
    assert 350 <= found["BGR /127.5 - 1"].images <= 450


def test_the_model_is_left_as_it_was() -> None:
    teacher = red_eye("bgr").train()
    before = teacher.fingerprint()
    rank_conventions(teacher, Dataset(Patterns()))
    assert teacher.backbone is not None
    assert teacher.training and teacher.backbone.training and teacher.fingerprint() == before
    assert teacher.input.colour == "bgr"


def test_sampling_takes_identities_with_several_images_and_few_of_each() -> None:
    source = Patterns(people=30, photos=8)
    data = Dataset(source, np.r_[0, 8:240])  # the first person keeps one image
    chosen = sample_identities(data, 60)
    counts = np.bincount(data.labels[chosen])
    assert len(chosen) <= 60 and counts.max() <= 5 and counts[0] == 0
    assert 1 not in counts
    assert np.array_equal(chosen, sample_identities(data, 60))
    assert not np.array_equal(chosen, sample_identities(data, 60, seed=1))


def test_no_genuine_pairs_is_an_error() -> None:
    with pytest.raises(UserError, match="0 classes have several images"):
        rank_conventions(red_eye(), Dataset(Patterns(photos=1)))
