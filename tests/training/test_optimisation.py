"""The learning rate at the edges of every schedule, and which parameters decay."""

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from facedistill.recipe.schema import Schedule
from facedistill.training.optimisation import learning_rate, make_optimizer

STEPS = 10


def _rates(**options: Any) -> list[float]:
    schedule = Schedule(epochs=4, lr=0.2, **options)
    return [learning_rate(schedule, step, STEPS) for step in range(4 * STEPS)]


def test_cosine() -> None:
    rates = _rates(decay="cosine")
    assert rates[0] == 0.2 and rates[20] == pytest.approx(0.1)
    assert rates[39] == pytest.approx(0.1 * (1 + math.cos(math.pi * 39 / 40))) and rates[39] > 0


def test_polynomial() -> None:
    rates = _rates(decay="polynomial", power=2.0)
    assert rates[0] == 0.2 and rates[20] == pytest.approx(0.05) and rates[39] == pytest.approx(0.2 / 1600)


def test_step_divides_by_ten_at_each_milestone() -> None:
    rates = _rates(decay="step", milestones=[1, 2.5])
    assert rates[9] == 0.2
    assert rates[10] == rates[24] == pytest.approx(0.02)
    assert rates[25] == rates[39] == pytest.approx(0.002)


def test_none_is_constant() -> None:
    assert set(_rates(decay="none")) == {0.2}


def test_warm_up_is_linear_and_the_decay_starts_after_it() -> None:
    rates = _rates(decay="cosine", warmup_epochs=0.5)
    assert rates[:6] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.2])
    assert rates[5] > rates[6] > rates[-1]


def test_a_warm_up_as_long_as_the_schedule() -> None:
    assert _rates(decay="polynomial", power=0.5, warmup_epochs=4) == pytest.approx(
        [0.2 * (s + 1) / 40 for s in range(40)]
    )


@given(
    st.sampled_from(["step", "polynomial", "cosine", "none"]),
    st.floats(0, 5),
    st.floats(0, 3),
    st.lists(st.floats(0, 5), max_size=3),
    st.integers(1, 5),
)
def test_the_rate_stays_between_zero_and_lr(
    decay: Literal["step", "polynomial", "cosine", "none"],
    warmup: float,
    power: float,
    milestones: list[float],
    steps: int,
) -> None:
    schedule = Schedule(3, lr=0.3, decay=decay, warmup_epochs=warmup, power=power, milestones=milestones)
    for step in range(3 * steps):
        assert 0 <= learning_rate(schedule, step, steps) <= 0.3 + 1e-12


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Linear(4, 2))


def test_norms_biases_and_prelu_are_decayed_unless_spared() -> None:
    network = _network()
    network[3].weight.requires_grad_(False)
    (group,) = make_optimizer(network, Schedule(weight_decay=0.1)).param_groups
    assert len(group["params"]) == 6 and group["weight_decay"] == 0.1 and group["momentum"] == 0.9
    decayed, spared = make_optimizer(network, Schedule(weight_decay=0.1, decay_norms=False)).param_groups
    assert [p is network[0].weight for p in decayed["params"]] == [True] and decayed["weight_decay"] == 0.1
    assert {id(p) for p in spared["params"]} == {
        id(p) for p in (network[0].bias, *network[1].parameters(), *network[2].parameters(), network[3].bias)
    }
    assert spared["weight_decay"] == 0


def test_optimisers() -> None:
    assert isinstance(make_optimizer(_network(), Schedule()), torch.optim.SGD)
    adamw = make_optimizer(_network(), Schedule(optimizer="adamw", lr=0.01, weight_decay=0.05))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["lr"] == 0.01 and adamw.param_groups[0]["weight_decay"] == 0.05
