"""What a user of the program has, made once for all tests: photos, a teacher, a student, a verification set."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from facedistill.data.dataset import open_source
from facedistill.data.sources.verification import draw_pairs, save_verification
from facedistill.recipe.read import dump_recipe, make_recipe
from facedistill.training.engine import train


class Tiny(NamedTuple):
    """Where it lies. All of it is read only."""

    people: int
    photos: Path  # a folder per identity
    teacher: Path  # a run trained on them, and its recipe
    recipe: Path
    student: Path  # a run distilled from it by proxylesskd, evaluated on two held-out people
    pairs: Path  # a verification .bin of other people, named


TINY_STUDENT = {"backbone": "mobilefacenet", "input_size": 32, "options": {"width": 0.25}}


def make_tiny(root: Path) -> Tiny:
    """Make it all in the empty folder `root`, in a few seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(root / "cache"))
        source = open_source("synthetic:identities=12,images=6,size=32,seed=1")
        for i, label in enumerate(source.labels.tolist()):
            folder = root / "photos" / source.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = source.read(i)
            assert isinstance(pixels, np.ndarray)
            Image.fromarray(pixels).save(folder / f"{i}.png")
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
