"""timm's networks, where timm is installed; a clear line where it is not."""

import subprocess
import sys

import pytest
import torch

from facedistill.backbones import create_backbone
from facedistill.errors import UsageError


def test_without_timm_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['timm'] = None\n"
        "from facedistill.backbones import create_backbone\n"
        "from facedistill.errors import UserError\n"
        "try: create_backbone('timm:resnet18')\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("timm cannot be imported (") and "torchvision of the same build" in done.stdout


def test_a_network_of_timm() -> None:
    try:
        import timm  # noqa: F401
    except Exception as error:
        pytest.skip(f"timm, with a torchvision of torch's own build, is not installed: {error}")
    network = create_backbone("timm:resnet18", 24, 64).eval()
    embedding, maps = network.with_features(torch.randn(2, 3, 64, 64))
    assert embedding.shape == (2, 24) and [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]
    with pytest.raises(UsageError, match=r"timm has no network 'resnet81' \(did you mean 'resnet18'\?\)"):
        create_backbone("timm:resnet81")
