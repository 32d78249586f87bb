"""Every network as a file: the same embeddings in ONNX Runtime."""

from pathlib import Path
from typing import Any

import pytest
import torch
from export_faults import looking_trained

from facedistill.backbones import BACKBONES, create_backbone
from facedistill.data import Dataset, open_dataset
from facedistill.export import export_model

# Options that make each network small; those that are a larger size of another are left out.
SMALL: dict[str, dict[str, Any]] = {
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
    assert SMALL.keys() | LARGER | {"mlp"} == BACKBONES.keys()  # mlp: test_feature_vectors.py


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_network_passes_the_gate(name: str, faces: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = looking_trained(create_backbone(name, 32, 64, **SMALL[name]), faces.batch(range(64)).images)
    made = export_model(model, "onnx", tmp_path / "m.onnx", calibrate=faces)
    assert made.gate.passed and made.gate.first_percentile > 0.99999, made.gate.text()
