"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real faces and models used in development; it is not part of the project."""
    root = Path(os.environ.get("FACEDISTILL_SHARED", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "verification" / "lfw.bin").exists():
        pytest.skip("the real faces and models are not on this machine")
    return root


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
