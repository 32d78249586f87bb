"""A source outside the package: `package.module:Class`, wherever a data set is named."""

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facedistill as fd
from facedistill.cli.app import main
from facedistill.data.sources.open import is_path, open_source
from facedistill.errors import UsageError, UserError
from tiny_world import TINY_STUDENT, Tiny

NPZ = '''
# my_sources.py
import numpy as np

import facedistill as fd


class Npz(fd.Source):
    """An .npz file with `images`, uint8 (N, H, W, 3), RGB, and `names` (N), the person in each image."""

    def __init__(self, path: str) -> None:
        with np.load(path) as table:
            self.images, names = table["images"], table["names"]
        people, self.labels = np.unique(names, return_inverse=True)
        self.path, self.class_names = path, people.tolist()
        self.keys = [f"{name}/{i}" for i, name in enumerate(names)]
        self.fingerprint = fd.fingerprint(self.images, names)

    def read(self, i: int) -> np.ndarray:
        return self.images[i]
'''
OTHERS = '''
class Shapes(fd.Source):
    """Grey squares; `size` has no default."""

    takes_options = True

    def __init__(self, size: int, classes: int = 2, name: str = "shapes") -> None:
        self.path, self.fingerprint = name, f"shapes {size} {classes}"
        self.labels, self.size = np.arange(4) % classes, size
        self.class_names, self.keys = [str(i) for i in range(classes)], list("abcd")

    def read(self, i: int) -> np.ndarray:
        return np.full((self.size, self.size, 3), 50 * i, np.uint8)


class Fixed(Shapes):
    takes_options = False

    def __init__(self) -> None:
        super().__init__(size=8)


class Unread(fd.Source):
    pass


class Unmarked(Fixed):
    def __init__(self) -> None:
        super().__init__()
        del self.fingerprint


class Mislabelled(Fixed):
    def __init__(self) -> None:
        super().__init__()
        self.labels = [0, 1]


def stranger(path: str) -> None:
    raise SystemExit("called")
'''


@pytest.fixture
def mine(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's: my_sources.py, and the photos of the tiny world as faces.npz."""
    (tmp_path / "my_sources.py").write_text(NPZ + OTHERS)
    files = sorted(tiny.photos.glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(tmp_path / "faces.npz", images=images, names=[file.parent.name for file in files])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("my_sources", None)


def test_the_argument_reaches_the_class(mine: Path, tiny: Tiny) -> None:
    found = fd.open_source("my_sources:Npz:faces.npz")
    assert type(found).__name__ == "Npz" and found.path == "faces.npz"
    photos = open_source(tiny.photos)
    assert found.class_names == photos.class_names and found.labels.tolist() == photos.labels.tolist()
    assert open_source(f"my_sources:Npz:{mine}/faces.npz").fingerprint == found.fingerprint
    again = pickle.loads(pickle.dumps(found))
    assert (again.read(3) == found.read(3)).all()
    (mine / "a:b").mkdir()
    (mine / "faces.npz").rename(mine / "a:b" / "x=1,y.npz")
    assert len(open_source("my_sources:Npz:a:b/x=1,y.npz")) == len(photos)


def cli(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_a_whole_run_trains_and_evaluates_on_it(mine: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = fd.make_recipe(
        {
            "data": {"train": "my_sources:Npz:faces.npz", "hold_out": 0.2, "in_memory": False, "workers": 1},
            "student": TINY_STUDENT | {"embedding_dim": 16},
            "method": "scratch",
            "schedule": {"epochs": 1, "batch": 12},
            "evaluation": {"sets": ["my_sources:Npz:faces.npz"]},
        }
    )
    fd.train(recipe, "run")
    found = json.loads((mine / "run" / "evaluation.json").read_text())
    assert {"hold-out", "my_sources:Npz:faces"} == {result["set"] for result in found["results"]}
    cli("evaluate", "run", "--on", "my_sources:Npz:faces.npz", "--json", "r.json")
    assert json.loads((mine / "r.json").read_text())["results"][0]["protocol"] == "all-pairs"
    capsys.readouterr()
    cli("show", "my_sources:Npz:faces.npz")
    assert "72 images of 12 classes" in capsys.readouterr().out


def test_options_are_the_parameters_of_init(mine: Path) -> None:
    found = open_source("my_sources:Shapes:size=8,classes=4,name=a=b")
    assert found.class_names == list("0123") and found.path == "a=b"
    pixels = found.read(1)
    assert isinstance(pixels, np.ndarray) and pixels.shape == (8, 8, 3)
    assert len(open_source("my_sources:Fixed")) == len(open_source("my_sources:Fixed:")) == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "my_sources:Shapes:sise=8",
            r"data my_sources:Shapes:sise=8: Shapes has no option 'sise' .did you mean 'size'",
        ),
        ("my_sources:Shapes:size=big", r"size=big: Shapes: option 'size': .*valid integer.*found 'big'"),
        ("my_sources:Shapes", "data my_sources:Shapes: Shapes needs the option 'size'"),
        ("my_sources:Npz", "Npz needs the option 'path'"),
        ("my_sources:Fixed:8", "Fixed takes no argument, found '8'"),
        ("my_sources:Shape:size=8", "no such file or folder, and the class 'my_sources:Shape' cannot be imported"),
        ("my_sorces:Npz:faces.npz", "No module named 'my_sorces'; install it, or .* PYTHONPATH"),
        ("my_sources.inner:Npz", r"No module named 'my_sources\.inner'"),
        ("broken:Npz", r"'broken:Npz' cannot be imported: ZeroDivisionError: division by zero"),
        ("my_sources:stranger:x", "'my_sources:stranger' is no Source; expected a subclass of"),
        ("my_sources:np", "'my_sources:np' is no Source"),
        ("os:system:true", "'os:system' is no Source"),
        ("my_sources:Unread", "Unread does not define read"),
        ("facedistill:Source", "Source does not define read"),
        ("my_sources:Unmarked", "Unmarked does not set fingerprint; every Source sets path, keys"),
        ("my_sources:Mislabelled", r"Mislabelled sets labels of shape .2,., int64, for 4 keys"),
    ],
)
def test_what_cannot_be_opened(mine: Path, spec: str, message: str) -> None:
    (mine / "broken.py").write_text("1 / 0")
    with pytest.raises(UsageError, match=message) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_what_lies_there_is_opened_first(mine: Path, tiny: Tiny) -> None:
    (mine / "my_sources:Npz").symlink_to(tiny.photos)
    assert type(open_source("my_sources:Npz")).__name__ == "FolderSource"
    (mine / "synthetic:size=16").symlink_to(tiny.photos)
    assert type(open_source("synthetic:size=16")).__name__ == "FolderSource"


@pytest.mark.parametrize(
    "spec",
    [
        "C:\\photos", "C:photos", "c:/photos", "photos", "a/b:c", "/a:b/c", "host:/data", "a b:c", "my-net:Class", ":C",
        "a:", "a:1b", "folder", "folder:", "tar",
    ],
)  # fmt: skip
def test_what_looks_like_a_path_is_one(mine: Path, spec: str) -> None:
    assert is_path(spec)
    with pytest.raises(UserError, match=r"no such file or folder; expected .*, or package\.module:Class") as caught:
        open_source(spec)
    assert caught.type is UserError


def test_what_is_no_path() -> None:
    for spec in ("synthetic", "synthetic:", "synthetic:size=16", "my_sources:Npz", "a.b:C", "ab:C:", "ab:C:C:\\faces"):
        assert not is_path(spec), spec
