"""Fixtures that all tests share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from torch import Tensor

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


class Tiny(NamedTuple):
    """What a user of the program has, as small as it gets. All of it is read only."""

    people: int
    photos: Path  # a folder per identity
    teacher: Path  # a run trained on them, and its recipe
    recipe: Path
    student: Path  # a run distilled from it by proxylesskd, evaluated on two held-out people
    pairs: Path  # a verification .bin of other people, named


TINY_STUDENT = {"backbone": "mobilefacenet", "input_size": 32, "options": {"width": 0.25}}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Photos of 12 people, a teacher and a student of 32 x 32 pixels and 16 dimensions, trained for a second."""
    from PIL import Image

    from facedistill.data.dataset import open_source
    from facedistill.data.verification import draw_pairs, save_verification
    from facedistill.engine import train
    from facedistill.recipe import dump_recipe, make_recipe

    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(root / "cache"))
        source = open_source("synthetic:identities=12,images=6,size=32,seed=1")
        for i, label in enumerate(source.labels.tolist()):
            folder = root / "photos" / source.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.read(i)).save(folder / f"{i}.png")  # type: ignore[arg-type]
        others = open_source("synthetic:identities=8,images=4,size=32,seed=1,first=500")
        save_verification(draw_pairs(others, 60, 1), root / "pairs.bin")
        raw = {
            "data": str(root / "photos"),
            "student": TINY_STUDENT | {"embedding_dim": 16},
            "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
            "schedule": {"epochs": 2, "batch": 12, "lr": 0.05},
        }
        recipe = make_recipe(raw)
        (root / "teacher.yaml").write_text(dump_recipe(recipe))
        train(recipe, root / "teacher")
        raw |= {
            "data": {"train": str(root / "photos"), "hold_out": 0.2},
            "student": TINY_STUDENT,
            "teacher": str(root / "teacher"),
            "method": {"name": "proxylesskd", "terms": {"margin_softmax": {"scale": 16}}},
            "check": {"own_class": 0},
        }
        train(make_recipe(raw), root / "student")
    places = [root / name for name in ("photos", "teacher", "teacher.yaml", "student", "pairs.bin")]
    return Tiny(12, *places)
