"""PocketNet: published sizes, and the embeddings of its authors' code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone, read_genotype
from facedistill.errors import UsageError
from fixed_weights import fix_weights, unit_embedding


@pytest.mark.parametrize(
    ("name", "dim", "parameters", "macs"),
    [
        ("pocketnet_s", 128, 925_632, 283_541_120),
        ("pocketnet_s", 256, 991_424, 283_606_656),
        ("pocketnet_s", 512, 1_674_944, None),
        ("pocketnet_m", 128, 1_686_656, 538_215_680),
        ("pocketnet_m", 256, 1_752_448, 538_281_216),
        ("pocketnet_m", 512, 2_698_112, None),
    ],
)
def test_published_parameters_and_macs(name: str, dim: int, parameters: int, macs: int | None) -> None:
    network = create_backbone(name, dim)
    assert count_parameters(network) == parameters
    assert macs is None or count_macs(network, 112) == macs


# Made by the code of fdbtrs/PocketNet (2f860d7) with the weights and the image of tests/toys/fixed_weights.py.
THEIRS = {
    ("pocketnet_s", 128): ([0.0152698448, 0.1602974596, 0.1901766038, 0.0626498694], 0.019265507537424204),
    ("pocketnet_m", 256): ([0.0157797125, 0.0853450301, 0.0987312859, 0.017635062], 0.05042312483942016),
}


@pytest.mark.parametrize(("name", "dim"), THEIRS)
def test_the_embedding_is_that_of_the_authors_code(name: str, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the last layers are kept in fp32 otherwise
    network = create_backbone(name, dim)
    fix_weights(network)
    first, total = THEIRS[name, dim]
    embedding = unit_embedding(network)
    torch.testing.assert_close(embedding[:4], torch.tensor(first, dtype=torch.float64), rtol=0, atol=1e-9)
    assert embedding[::7].sum().item() == pytest.approx(total, abs=1e-9)


def cells() -> dict[str, Any]:
    return read_genotype("pocketnet").to_json()


def test_a_genotype_comes_from_a_file_and_the_model_needs_it_no_more(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(cells()))
    network = create_backbone("genotype", 128, file=str(file), channels=16, depth=18).eval()
    assert count_parameters(network) == 925_632
    file.unlink()
    again = create_backbone(network.spec["name"], **network.spec["options"])
    again.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 112, 112)
    assert torch.equal(again.eval()(x), network(x))


def test_every_operation_can_stand_in_every_place() -> None:
    from facedistill.backbones.genotype import OPERATIONS

    for operation in OPERATIONS:
        nodes = [[[operation, 0], [operation, node - 1]] for node in range(2, 6)]
        network = create_backbone("genotype", 8, 32, cells={"normal": nodes, "reduce": nodes}, channels=8, depth=4)
        assert network.eval()(torch.randn(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("channels", [1, 5, 12])
def test_a_genotype_has_the_channels_that_were_asked_for(channels: int) -> None:
    network = create_backbone("genotype", 8, 32, file="pocketnet", channels=channels, depth=4)
    cells = network.get_submodule("cells").children()
    widths = [cell.get_submodule("preprocess.last.3").num_features for cell in cells]
    assert widths == [channels * 2**i for i in range(4)]
    assert network.eval()(torch.randn(1, 3, 32, 32)).isfinite().all()


def test_wrong_depth_and_no_genotype() -> None:
    with pytest.raises(UsageError, match=r"0 channels: expected 1 or more"):
        create_backbone("genotype", 8, 32, file="pocketnet", channels=0)
    with pytest.raises(UsageError, match=r"3 cells: expected at least 4"):
        create_backbone("genotype", 8, 32, file="pocketnet", depth=3)
    with pytest.raises(UsageError, match=r"expected the option 'file' .* or 'cells'"):
        create_backbone("genotype", 8, 32)
