"""docs/extend.md as a reader follows it: each section's file and recipe in a folder of their own, its command run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from facedistill.head.starts import STARTS
from facedistill.models.folder import load_model
from tiny_world import Tiny

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text("utf-8")
SMALL = ["data.hold_out=0.2", "schedule.batch=12", "schedule.epochs=1", "schedule.log_steps=1", "check.own_class=0"]
TINY = ["student.input_size=32", "student.options.width=0.25"]


class Section(NamedTuple):
    files: dict[str, str]
    recipe: str
    command: list[str]


def _sections() -> dict[str, Section]:
    """The page's sections with a command, by heading."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        heading = part.partition("\n")[0]
        files = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", part, re.DOTALL | re.MULTILINE))
        recipe = "".join(re.findall(r"^```yaml\n(.*?)^```$", part, re.DOTALL | re.MULTILINE))
        commands = re.findall(r"^    PYTHONPATH=\. facedistill (.*)$", part, re.MULTILINE)
        if commands:
            (command,) = commands
            found[heading] = Section(files, recipe, shlex.split(command))
    return found


SECTIONS = _sections()


@pytest.fixture
def mine(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page speaks of: photos, a teacher, the photos as faces.npz."""
    shutil.copytree(tiny.photos, tmp_path / "photos")
    shutil.copytree(tiny.teacher / "model", tmp_path / "teacher")
    shutil.copytree(tiny.student, tmp_path / "trained")
    files = sorted((tmp_path / "photos").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(tmp_path / "faces.npz", images=images, names=[file.parent.name for file in files])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _follow(heading: str, folder: Path, *further: str) -> str:
    """Do what the section says, in a process of its own; return what it prints."""
    section = SECTIONS[heading]
    for name, text in section.files.items():
        (folder / name).write_text(text)
    (folder / "recipe.yaml").write_text(section.recipe)
    done = subprocess.run(
        [sys.executable, "-m", "facedistill", *section.command, *further],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", str(ROOT / "src")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "evaluation.json").read_text())


def test_every_section_with_a_command_is_followed_here() -> None:
    assert set(SECTIONS) == {
        "A term",
        "A start of W",
        "A view",
        "A sampler",
        "A margin",
        "A backbone",
        "A source",
        "A protocol",
    }


def test_a_term(mine: Path) -> None:
    said = _follow("A term", mine, "data.train=photos", *SMALL, *TINY)
    assert "run: l2kd + angle - embedding_l2" in said and "| student → teacher |" in said
    line = json.loads((mine / "run" / "log.jsonl").read_text().splitlines()[0])
    assert line["angle"] == pytest.approx(line["loss"]) and line["angle"] > 0
    assert _result(mine)["method"] == "l2kd + angle - embedding_l2"
    assert load_model("run").space == load_model("teacher").space, "the page's term anchors"


def test_a_start(mine: Path) -> None:
    _follow("A start of W", mine, *SMALL, *TINY)
    assert _result(mine)["method"] == "proxylesskd (W: medoids)"
    assert load_model("run").space == load_model("teacher").space, "W lies in the teacher's space"
    assert "medoids" not in STARTS


def test_a_view(mine: Path) -> None:
    _follow("A view", mine, *SMALL, *TINY)
    assert _result(mine)["method"] == "l2kd + my_views:Grey"
    assert _result(mine)["training"]["teacher_forwards"] > 0, "the teacher's cached outputs stay valid"


def test_a_sampler(mine: Path) -> None:
    _follow("A sampler", mine, *SMALL, *TINY)
    assert _result(mine)["method"] == "scratch + my_samplers:SquareRoot sampler"
    assert "power: 0.25" in (mine / "run" / "recipe.yaml").read_text()


def test_a_margin(mine: Path) -> None:
    _follow("A margin", mine, *SMALL, *TINY)
    assert _result(mine)["method"] == "scratch"


def test_a_backbone(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _follow("A backbone", mine, *SMALL)
    assert json.loads((mine / "run" / "model" / "config.json").read_text())["architecture"] == "my_networks:Plain"
    monkeypatch.syspath_prepend(mine)
    assert type(load_model("run").backbone).__name__ == "Plain"


def test_a_source(mine: Path) -> None:
    _follow("A source", mine, *SMALL, *TINY)
    assert _result(mine)["training"]["images"] > 0


def test_a_protocol(mine: Path) -> None:
    (mine / "trained").rename(mine / "run")
    said = _follow("A protocol", mine)
    assert "nearest of the person" in said and "| student → teacher |" in said
    assert "puts" in (mine / "result.html").read_text() and "next to their person" in (mine / "result.html").read_text()
