"""The table of costs is what the networks are."""

import pytest

from facedistill.backbones import BACKBONES, COSTS, count_macs, create_backbone, outline

NAMES = list(COSTS)


def dim(name: str) -> dict[str, int]:
    return {"embedding_dim": 128 if name.startswith("pocketnet") else 512}


def test_every_network_with_a_size_of_its_own_has_a_row() -> None:
    assert set(BACKBONES) - set(COSTS) == {"genotype", "mlp"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    sizes = {n: t.numel() for n, t in outline(name, **dim(name)).items() if n.split(".")[-1] not in statistics}
    assert sum(sizes.values()) == COSTS[name].parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_macs(name: str) -> None:
    assert round(count_macs(create_backbone(name, **dim(name)), 112) / 1e6, 1) == COSTS[name].macs
