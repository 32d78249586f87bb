"""upgrade and check --gallery, as a user types them; and upgrades that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.backbones import create_backbone
from facedistill.cli.app import main
from facedistill.data.dataset import open_dataset
from facedistill.gallery import Gallery, Mapping
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import Model
from tiny_world import Tiny

IMAGES = "synthetic:identities=60,images=4,size=32,seed=3"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "upgrade-cache"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of another space and dimension."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("models") / "other"
    save_model(Model(create_backbone("mobilefacenet", embedding_dim=24, input_size=32, width=0.25)), folder)
    return folder


@pytest.fixture
def gallery(tiny: Tiny, tmp_path: Path) -> Path:
    """The twelve people of the tiny world, enrolled by its teacher."""
    model, photos = load_model(tiny.teacher), open_dataset(str(tiny.photos))
    with Gallery.create(tmp_path / "people.gallery", space=model.space or "", dim=16) as found:
        for c, name in enumerate(photos.class_names):
            rows = np.flatnonzero(photos.labels == c).tolist()
            found.add(name, model.embed(photos.batch(rows).images).numpy(), made_by=model.fingerprint())
    return found.path


def _run(*words: object) -> int:
    try:
        main([str(word) for word in words])
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def test_a_model_of_another_space_takes_a_map(
    gallery: Path, other: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["upgrade", gallery, "--from", tiny.teacher, "--to", other]
    assert _run(*words) == 2 and "give --data IMAGES" in capsys.readouterr().err
    assert _run(*words, "--data", IMAGES, "--map", tmp_path / "map.safetensors") == 0
    out = capsys.readouterr().out
    assert (
        "72 vectors mapped to space" in out
        and "threshold of the new model in this gallery, calibrated on synthetic:" in out
    )
    mapping = Mapping.load(tmp_path / "map.safetensors")
    with Gallery.open(gallery) as found:
        assert found.space == mapping.new == load_model(other).space and found.dim == 24 and len(found) == 72
    assert _run(*words, "--data", IMAGES) == 1 and "the old model is of space" in capsys.readouterr().err


def test_a_student_of_the_same_space_needs_nothing_and_photos_enrol_again(
    gallery: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["upgrade", gallery, "--from", tiny.teacher, "--to", tiny.student]
    assert _run(*words) == 0 and "its 72 vectors stay as they are" in capsys.readouterr().out
    assert _run(*words, "--photos", tiny.photos) == 0
    assert "12 people enrolled again, 72 vectors" in capsys.readouterr().out
    with Gallery.open(gallery) as found:
        assert found.models() == {load_model(tiny.student).fingerprint(): 72}


def test_check_measures_the_ways(
    gallery: Path, other: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", other, "--data", "synthetic:identities=120,images=4,size=32,seed=3", "--gallery", gallery]
    assert _run(*words) == 2 and "check --gallery: give the model that enrolled it" in capsys.readouterr().err
    code = _run(*words, "--against", tiny.teacher, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == (0 if found["good_enough"] else 1) and {"b", "c", "old_old"} <= found.keys()
    assert "(c) everybody enrolled again: TAR" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["map", "photos"])
def test_killed_at_any_moment_it_is_the_old_gallery_or_the_new_one(
    way: str, gallery: Path, other: Path, tiny: Tiny
) -> None:
    """SIGKILL, at twelve random moments of a whole upgrade; the last call finishes the work."""
    words = [
        sys.executable,
        "-m",
        "facedistill",
        "upgrade",
        str(gallery),
        "--from",
        str(tiny.teacher),
        "--to",
        str(other),
    ]
    words += ["--data", IMAGES] if way == "map" else ["--photos", str(tiny.photos)]
    with Gallery.open(gallery) as found:
        before, names, space = np.array(found.matrix()[0]), found.names(), found.space
    began = time.perf_counter()
    subprocess.run([*words[:3], "show", str(tiny.teacher)], check=True, capture_output=True)
    start = time.perf_counter() - began  # of the interpreter
    draw = random.Random(7)
    for _ in range(12):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        time.sleep(start * draw.uniform(0.5, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Gallery.open(gallery) as found:
            stored, _, people = found.matrix()
            assert people == names and len(stored) == 72
            if found.space == space:
                assert np.array_equal(stored, before)
                continue
            assert found.space == load_model(other).space and stored.shape == (72, 24) and len(found.models()) == 1
            break
    with Gallery.open(gallery) as found:
        if found.space != space:
            return
    subprocess.run(words, check=True, capture_output=True)
    with Gallery.open(gallery) as found:
        assert found.space == load_model(other).space and found.names() == names and len(found) == 72
