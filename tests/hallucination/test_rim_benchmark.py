"""The study's script: its systems compute what they say, and its tables say what the JSON says."""

from typing import Any

import torch
from rim import PROBES, RECOGNISERS, SYSTEMS, BeforeAny, tables

from facedistill.data import open_dataset
from facedistill.hallucination.fhn import create_fhn
from facedistill.models import Model, load_model
from tiny_world import Tiny


def test_a_network_before_any_model(tiny: Tiny) -> None:
    network, recogniser = create_fhn("tiny").eval(), load_model(tiny.teacher)
    model = Model(BeforeAny(network, 48, recogniser), space=recogniser.space).eval()
    images = open_dataset("synthetic:identities=2,images=1,size=48").batch([0, 1]).images
    with torch.no_grad():
        faces = (network(model.normalise(images)) + 1) * 127.5  # of 48 pixels; the recogniser resizes them
        assert torch.allclose(model(images), recogniser(faces), atol=1e-4)
    assert model.parameters_count() == 2_077_149 + recogniser.parameters_count()
    assert model.macs() > (recogniser.macs() or 0)  # type: ignore[operator]


def test_tables() -> None:
    sizes = [*map(str, PROBES), "full"]

    def row(name: str, seed: int, rate: float) -> dict[str, Any]:
        rates = {size: {"1e-3": rate, "1e-4": rate / 2} for size in sizes}
        return {
            "system": name,
            "seed": seed,
            "parameters": 2_500_000,
            "macs": 9e8,
            "milliseconds": 40.2,
            "rates": rates,
        }

    figures = {"pixels": 8, "psnr": 21.0, "psnr_bicubic": 20.0, "identity": 0.3, "identity_bicubic": 0.2}
    result = {
        "systems": [row("teacher", 0, 0.5), row("student", 0, 0.2), row("student", 1, 0.3)],
        "network": {"rows": [figures, {"pixels": 64, "psnr": 30.0, "identity": 0.9}]},
    }
    found = tables(result)
    lines = found["rim fhn"].splitlines()
    assert (
        lines[0].startswith("TAR in percent at FAR 1e-3") and "| 8 px |" in lines[2] and lines[2].endswith("| full |")
    )
    assert lines[4] == f"| teacher | 1 | 2.50 | 900 | 40 |{' 50.0 |' * 7}"
    assert lines[5] == f"| student | 2 | 2.50 | 900 | 40 |{' 25.0 ± 7.1 |' * 7}" and len(lines) == 6
    assert found["rim network"].splitlines()[2:] == ["| 8 | 21.000 | 20.000 | 0.300 | 0.200 |"]
    assert {recogniser for recogniser in SYSTEMS.values() if recogniser not in (None, "joint")} == set(RECOGNISERS)
