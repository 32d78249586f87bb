"""The study's script: its systems compute what they say, and its table says what the JSON says."""

from typing import Any

import torch
from low_resolution import BEHIND, ROWS, TRAINED, cost_table, network_table
from rim import BeforeAny

from facedistill.data import open_dataset
from facedistill.hallucination.fhn import create_fhn
from facedistill.models import Model, load_model
from tiny_world import Tiny


def test_a_network_before_any_model(tiny: Tiny) -> None:
    network, recogniser = create_fhn("tiny").eval(), load_model(tiny.teacher)
    seen: dict[str, torch.Tensor] = {}
    model = Model(BeforeAny(network, 48, recogniser, seen), space=recogniser.space).eval()
    images = open_dataset("synthetic:identities=2,images=1,size=48").batch([0, 1]).images
    with torch.no_grad():
        faces = (network(model.normalise(images)) + 1) * 127.5  # of 48 pixels; the recogniser resizes them
        first = model(images)
        assert torch.allclose(first, recogniser(faces), atol=1e-4)
        assert torch.equal(model(images), first) and len(seen) == 1  # the faces are kept for the next recogniser
    assert model.parameters_count() == 2_077_149 + recogniser.parameters_count()
    assert model.macs() > (recogniser.macs() or 0)  # type: ignore[operator]


def test_the_table_of_hallucinated_faces() -> None:
    """One line a size, the enlarged face before the network's; without the whole size, which is last."""
    figures = {"pixels": 8, "psnr": 21.0, "psnr_bicubic": 20.0, "identity": 0.8, "identity_bicubic": 0.7}
    whole = {"pixels": 64, "psnr": 30.0, "identity": 0.9}
    identity = {"enlarged": {"8": 0.2}, "FHN": {"8": 0.3}}  # on LFW; of 12 pixels nothing was measured
    fhn = {"method": "fhn_teacher", "network": [figures, figures | {"pixels": 12}, whole], "identity": identity}
    runs: list[dict[str, Any]] = [{"method": "clean"}, fhn]
    head, _, *lines = network_table(runs)["hallucinated faces"].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *lines)]
    names = ("PSNR, dB", "identity cosine", "identity cosine on LFW")
    assert cells[0][1:] == [f"{name}, {by}" for name in names for by in ("enlarged", "FHN")]
    assert cells[1:] == [
        ["8", "20.000", "21.000", "0.700", "0.800", "0.200", "0.300"],
        ["12", "20.000", "21.000", "0.700", "0.800", "", ""],
    ]


def test_every_row_of_the_network_has_words() -> None:
    assert set(BEHIND) <= set(ROWS) and set(BEHIND.values()) <= {"teacher", *TRAINED}


def test_what_is_lost_is_of_the_seeds_that_both_have() -> None:
    def row(method: str, rate: float, **seed: int) -> dict[str, Any]:
        found = {"probe low": {"full": {"1e-3": [rate, 0, 1]}}}
        return {"method": method, "parameters": 1, "macs": 1, "epochs": 4, "seconds": 60, "tar": found} | seed

    runs = [row("teacher", 0.9), *(row("clean", rate, seed=seed) for seed, rate in enumerate((0.5, 0.4)))]
    runs += [row("l2kd_low", 0.35, seed=1), row("fhn_teacher", 0.88, seed=0), row("clean_after", 0.6, seed=0)]
    lost = {
        line.split("|")[1].strip(): line.split("|")[8].strip()
        for line in cost_table(runs, {"clean": 1.0}).splitlines()[2:]
    }
    assert lost[ROWS["l2kd_low"]] == "**5.0**" and lost[ROWS["fhn_teacher"]] == "**2.0**"
    assert lost[ROWS["clean_after"]] == "-10.0" and lost[ROWS["clean"]] == lost[ROWS["octuplet_low"]] == ""


def test_the_network_takes_as_long_before_any_recogniser() -> None:
    runs = [{"method": name, "parameters": 1, "macs": 1, "tar": {"probe low": {}}} for name in ROWS]
    lines = cost_table(runs, {"teacher": 8.0, "clean": 1.0, "residual": 2.0, "fhn_clean": 51.0}).splitlines()
    cells = {
        words: line.split("|")[4].strip() for words in ROWS.values() for line in lines if line.startswith(f"| {words}")
    }
    found = {name: cells[words] for name, words in ROWS.items()}
    assert found["fhn_teacher"] == "58.0" and found["fhn_clean"] == "51.0" and found["fhn_joint"] == "52.0"
    assert found["l2kd_low"] == found["octuplet_low"] == "1.0" and found["single"] == ""
