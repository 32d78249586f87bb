"""GhostFaceNet: the sizes of the authors' code and files."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone
from facedistill.errors import UsageError


def statistics(network: torch.nn.Module) -> int:
    return sum(b.numel() for b in network.buffers() if b.ndim)


def test_v2_has_the_parameters_that_the_authors_print() -> None:
    """Their notebook Flops.ipynb: 6,795,720 trainable, 84,568 not; it counts the statistics as parameters."""
    network = create_backbone("ghostfacenet_v2", stride=1)
    assert count_parameters(network) == 6_795_720 and statistics(network) == 84_568


def test_v1_has_the_parameters_of_a_published_file() -> None:
    """An .h5 of GhostFaceNetV1-1.3-1, with ReLU: 4,078,224, statistics included."""
    network = create_backbone("ghostfacenet_v1", stride=1, activation="relu")
    assert count_parameters(network) + statistics(network) == 4_078_224


@pytest.mark.parametrize(("name", "macs"), [("ghostfacenet_v1", 59.3), ("ghostfacenet_v2", 75.2)])
def test_stride_2_needs_a_quarter_of_the_work(name: str, macs: float) -> None:
    network = create_backbone(name)
    assert round(count_macs(network, 112) / 1e6, 1) == macs
    assert 3 < count_macs(create_backbone(name, stride=1), 112) / count_macs(network, 112) < 4


def test_the_attention_gate_covers_maps_of_odd_size() -> None:
    network = create_backbone("ghostfacenet_v2", 8, 112, width=0.25).eval()
    _, maps = network.with_features(torch.randn(1, 3, 112, 112))
    assert [m.shape[-1] for m in maps] == [28, 14, 7, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 3}, "stride 3: expected 1 or 2"),
        ({"input_size": 32}, "input_size 32: expected a multiple of 16 from 64 up"),
        ({"input_size": 100}, "input_size 100: expected a multiple of 16"),
        ({"width": 0}, "width 0.*above 0"),
        ({"activation": "gelu"}, "activation 'gelu': expected one of"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_backbone("ghostfacenet_v1", **options)
