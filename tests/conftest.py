"""Fixtures that all tests share."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from tiny_world import Tiny, make_tiny

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


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


@pytest.fixture(scope="session", autouse=True)
def _traced_once() -> Iterator[None]:
    """An export of the same network in the same form is traced once."""
    from facedistill.export import onnx as target
    from traced import traced

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "float_graph", traced)
        yield


@pytest.fixture(autouse=True)
def _denormals(request: pytest.FixtureRequest) -> None:
    """Opening an ONNX model flushes denormals in the whole process; hypothesis refuses to draw floats then."""
    if getattr(request.function, "is_hypothesis_test", False):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def write_arcface_torch_run() -> Callable[[Path, dict[str, Tensor], Sequence[Tensor]], None]:
    """A function that writes a run folder as arcface_torch leaves it: one checkpoint a rank, and backbone.pth."""

    def write(folder: Path, state: dict[str, Tensor], shards: Sequence[Tensor]) -> None:
        for rank, shard in enumerate(shards):
            checkpoint = {
                "epoch": 20,
                "global_step": 1000,
                "state_dict_backbone": state if rank == 0 else {},
                "state_dict_softmax_fc": {"weight": shard.clone()},
                "state_optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
                "state_lr_scheduler": {"base_lrs": [0.1], "last_epoch": 20},
            }
            torch.save(checkpoint, folder / f"checkpoint_gpu_{rank}.pt")
        torch.save(state, folder / "backbone.pth")

    return write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Photos of 12 people, a teacher and a student of 32 x 32 pixels and 16 dimensions, trained for a second."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))
