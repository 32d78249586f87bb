"""Windows and macOS lack parts of Python that Linux has; here they are taken away, in a process of its own."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from facedistill.data.sources.open import is_path
from facedistill.data.sources.pair_list import load_pair_list
from facedistill.recipe.read import dump_recipe, load_recipe, make_recipe
from tiny_world import TINY_STUDENT, Tiny

# What Windows does not have. Its processes are spawned, never forked.
WINDOWS = """
import multiprocessing, os, sys
for name in ("fcntl", "resource", "grp", "pwd", "termios"):
    sys.modules[name] = None
for name in ("pread", "fork", "sched_getaffinity", "sysconf"):
    delattr(os, name)
multiprocessing.set_start_method("spawn")
"""


def on_windows(code: str) -> str:
    """Run the code without the parts of Unix; return what it printed."""
    ran = subprocess.run([sys.executable, "-c", WINDOWS + code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def verb(*arguments: object) -> str:
    return on_windows(f"from facedistill.cli import main\nmain({[str(a) for a in arguments]!r})")


def test_every_module_is_imported_without_unix() -> None:
    code = """
import importlib, pkgutil, facedistill
for module in pkgutil.walk_packages(facedistill.__path__, "facedistill."):
    if module.name != "facedistill.__main__":
        importlib.import_module(module.name)
print("all")
"""
    assert on_windows(code).strip() == "all"


def test_a_tar_is_shown_and_a_student_evaluated_without_unix(tiny: Tiny, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(tiny.photos, "photos")
    assert "12 classes" in verb("show", tmp_path / "photos.tar")
    assert "%" in verb("evaluate", tiny.student, "--on", tiny.pairs, "--against", tiny.teacher)


def test_a_training_without_unix_is_the_same(tiny: Tiny, tmp_path: Path) -> None:
    raw = {
        "data": str(tiny.photos),
        "student": TINY_STUDENT | {"embedding_dim": 16},
        "method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 16}}},
        "schedule": {"epochs": 2, "batch": 12, "lr": 0.05},
    }
    (tmp_path / "teacher.yaml").write_text(dump_recipe(make_recipe(raw)))
    verb("train", tmp_path / "teacher.yaml", "--out", tmp_path / "run")
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (tmp_path / "run", tiny.teacher)]
    assert weights[0] == weights[1]


def test_a_list_of_pairs_written_on_windows(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a" / "1.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "2.png")
    (tmp_path / "pairs.csv").write_text("a\\1.png,.\\2.png,1\r\n", newline="")
    found = load_pair_list(tmp_path / "pairs.csv")
    assert found.keys == [str(Path("a/1.png")), "2.png"]
    assert found.read(0) == (tmp_path / "a" / "1.png").read_bytes()


@pytest.mark.parametrize("place", [r"C:\photos\train", r"D:\a b\set.rec", r"photos\train", r"\\server\share\set.tar"])
def test_paths_of_windows_stay_paths_in_a_recipe(place: str, tmp_path: Path) -> None:
    assert is_path(place)
    recipe = make_recipe({"data": place, "teacher": place})
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
    again = load_recipe(str(tmp_path / "r.yaml"))
    assert again == recipe and again.data.train == place
    (tmp_path / "by_hand.yaml").write_text(f"data: {place}\nteacher: {place}\n")
    assert load_recipe(str(tmp_path / "by_hand.yaml")) == recipe
    assert load_recipe(str(tmp_path / "r.yaml"), [f"data.train={place}"]) == recipe
