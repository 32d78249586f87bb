"""Files of torch.save: what is read, what is refused and named, and sizes that a file only claims."""

import argparse
import collections
import fractions
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from facedistill.backbones import create_backbone
from facedistill.errors import UserError
from facedistill.models.importers import import_model
from facedistill.models.state_dict import check_tensors, named_tensors, read_tensors

W = torch.arange(6.0).view(2, 3)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "extra",
    [np.float64(0.5), np.arange(4), argparse.Namespace(lr=0.1), Path("runs/1"), [np.int64(3), {"a": np.float32(1)}]],
)
@pytest.mark.parametrize("old_format", [False, True])
def test_numbers_options_and_paths_beside_the_weights_are_passed_over(
    tmp_path: Path, extra: Any, old_format: bool
) -> None:
    torch.save({"w": W, "extra": extra}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old_format)
    found = named_tensors(read_tensors(tmp_path / "x.pt"), tmp_path / "x.pt")
    assert list(found) == ["w"] and torch.equal(found["w"], W)


class Opaque:
    pass


def test_what_is_refused_is_named_in_one_line(tmp_path: Path) -> None:
    refused = {f"{__name__}.Opaque": Opaque(), "fractions.Fraction": fractions.Fraction(1, 3)}
    refused["collections.deque"] = collections.deque([1])
    for name, value in refused.items():
        with pytest.raises(UserError, match=rf"x\.pt: not a .*holds \S*{re.escape(name)}, which is code") as caught:
            read_tensors(saved({"w": W, "extra": value}, tmp_path / "x.pt"))
        assert str(caught.value).isprintable()


def test_safetensors(tmp_path: Path) -> None:
    save_file({"model.w": W}, tmp_path / "x.safetensors")
    assert torch.equal(named_tensors(read_tensors(tmp_path / "x.safetensors"), tmp_path)["model.w"], W)
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"x\.safetensors: no safetensors file, or damaged"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.ones(1, 1).expand(10**9, 512), r"of \[1000000000, 512\] has more values than the 4 bytes"),
        (torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**9, 512)), "is sparse_coo"),
        (torch.quantize_per_tensor(W, 0.1, 0, torch.qint8), "is quantised"),
        (torch.empty(10**9, 512, device="meta"), "expected dense values"),
    ],
)
def test_a_size_that_the_file_does_not_hold_is_not_allocated(tmp_path: Path, tensor: torch.Tensor, reason: str) -> None:
    backbone = saved(create_backbone("iresnet18", 16, 32, width=0.125).state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=reason):
        import_model(backbone, classifier=saved({"weight": tensor}, tmp_path / "head.pt"))


def test_weights_are_finite_numbers() -> None:
    expected = {"w": torch.zeros(2, 3), "n": torch.tensor(0)}
    good = {"w": W.half(), "n": torch.tensor(7)}
    check_tensors(good, {k: v.to("meta") for k, v in expected.items()}, "x")
    for bad, reason in (
        (W.int(), "tensor 'w' is int32; expected floating point"),
        (W.where(W < 4, torch.nan), "tensor 'w' holds NaN or infinity"),
        (W / 0, "tensor 'w' holds NaN or infinity"),
    ):
        with pytest.raises(UserError, match=reason):
            check_tensors(good | {"w": bad}, expected, "x")


def test_a_network_as_large_as_one_tensor_claims_is_not_made(tmp_path: Path) -> None:
    """The width is told by the first convolution; all the others would have to be a thousand times wider too."""
    state = create_backbone("iresnet18", 16, 32, width=0.125).state_dict()
    state["conv1.weight"] = torch.zeros(64_000, 3, 3, 3)
    with pytest.raises(UserError, match=r"tensor 'bn1\.weight' has shape \[8\]; expected \[64000\]"):
        import_model(saved(state, tmp_path / "net.pt"))
