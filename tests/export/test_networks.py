"""Every network as a file: the same embeddings in ONNX Runtime, in fp32 and in int8."""

from pathlib import Path

import pytest
import torch
from export_faults import looking_trained

from facedistill.backbones import BACKBONES, create_backbone
from facedistill.data import Dataset, open_dataset
from facedistill.export import export_model
from facedistill.models import Precision

# Options that make each network small; those that are a larger size of another are left out.
SMALL = {
    "mobilefacenet": {"width": 0.25},
    "pocketnet_s": {"width": 0.5},
    "ghostfacenet_v1": {"width": 0.25},
    "ghostfacenet_v2": {"width": 0.25},
    "mixfacenet_xs": {},
    "shufflefacenet": {"width": 0.5},
    "edgeface_xxs": {},
    "vit_t": {},
    "iresnet18": {"width": 0.25},
    "resnet_small": {"width": 0.5},
    "residual": {"options": {"width": 0.25}},
}
LARGER = {"mobilefacenet_large", "pocketnet_m", "genotype", "mixfacenet_s", "mixfacenet_m", "edgeface_xs", "edgeface_s"}
LARGER |= {"vit_s", "iresnet34", "iresnet50", "iresnet100"}


@pytest.fixture(scope="module")
def faces() -> Dataset:
    return open_dataset("synthetic:identities=50,images=3,size=64,seed=3")


def test_none_is_forgotten() -> None:
    assert SMALL.keys() | LARGER == BACKBONES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", SMALL)
def test_a_network_passes_the_gate(name: str, precision: Precision, faces: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = looking_trained(create_backbone(name, 32, 64, **SMALL[name]))
    made = export_model(model, "onnx", tmp_path / "m.onnx", precision=precision, calibrate=faces)
    print(name, made.bytes, made.written)  # with -rA
    assert made.gate.passed, made.gate.text()
