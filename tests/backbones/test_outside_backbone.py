"""A backbone outside the package: `package.module:Class`, trained, saved, and loaded by whoever has its module."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import facedistill as fd
from facedistill.errors import UsageError, UserError
from tiny_world import Tiny

PLAIN = '''
# my_networks.py
from torch import Tensor, nn

import facedistill as fd


class Plain(fd.Backbone):
    """Three strided convolutions, the mean over the last map, and a linear layer."""

    def __init__(self, embedding_dim: int = 512, input_size: int = 112, channels: int = 32) -> None:
        super().__init__(embedding_dim, input_size)
        widths = [3, channels, 2 * channels, 4 * channels]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in zip(widths, widths[1:])
        )
        self.linear = nn.Linear(widths[-1], embedding_dim)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.linear(x.mean((2, 3))), tuple(maps)
'''
STRANGERS = """
CALLED = []


def function(**options):
    CALLED.append(options)


class Other(nn.Module):
    def __init__(self, **options):
        CALLED.append(options)
"""
RECIPE = """
data: photos
student: {backbone: "my_networks:Plain", input_size: 32, options: {channels: 8}}
method: scratch
"""
SPEC: dict[str, Any] = {"name": "my_networks:Plain", "options": {"embedding_dim": 16, "input_size": 32, "channels": 4}}


@pytest.fixture
def mine(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's: my_networks.py, photos, recipe.yaml."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_networks.py").write_text(PLAIN + STRANGERS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    shutil.copytree(tiny.photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("my_networks", None)


def python(code: str, *path: Path) -> subprocess.CompletedProcess:
    source = Path(fd.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [source, *path]))},
        capture_output=True,
        text=True,
        timeout=120,
    )


LOAD = """
import torch, facedistill as fd
try:
    model = fd.load_model("run")
    torch.save(model(torch.load("images.pt")), "found.pt")
except fd.UserError as e:
    print(e)
"""


def test_a_run_trains_it_and_another_process_loads_it(mine: Path) -> None:
    recipe = fd.load_recipe("recipe.yaml", ["schedule.epochs=1", "schedule.batch=12", "data.hold_out=0.2"])
    recipe.student.embedding_dim = 16
    fd.train(recipe, "run")
    model = fd.load_model("run")
    assert model.backbone is not None
    assert model.backbone.spec == SPEC | {"options": SPEC["options"] | {"channels": 8}}
    config = json.loads((mine / "run" / "model" / "config.json").read_text())
    assert config["architecture"] == "my_networks:Plain" and config["parameters"] > 0 and config["macs"] > 0
    assert "the Python module `my_networks`" in (mine / "run" / "model" / "README.md").read_text()

    images = torch.randint(0, 256, (2, 3, 40, 32), dtype=torch.uint8)
    torch.save(images, "images.pt")
    done = python(LOAD, mine / "code")
    assert done.returncode == 0 and not done.stdout, done
    assert torch.equal(torch.load("found.pt"), model(images))
    done = python(LOAD)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done
    for words in ("config.json: backbone 'my_networks:Plain'", "No module named 'my_networks'", "PYTHONPATH"):
        assert words in done.stdout

    state = torch.random.get_rng_state()
    fd.load_model("run")
    assert torch.equal(torch.random.get_rng_state(), state)  # loading draws no random numbers


def test_it_is_made_like_any_other(mine: Path) -> None:
    network = fd.create_backbone("my_networks:Plain", 16, 32, channels=4)
    assert isinstance(network, fd.Backbone) and network.spec == SPEC
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 16)
    with pytest.raises(UsageError, match=r"'my_networks:Plain' has no option 'chanels' .did you mean 'channels'"):
        fd.create_backbone("my_networks:Plain", chanels=4)
    with pytest.raises(UsageError, match=r"option 'channels': .*found 'many'"):
        fd.create_backbone("my_networks:Plain", channels="many")
    with pytest.raises(UsageError, match=r"is unknown .*known: mobilefacenet, .*`package\.module:Class`"):
        fd.create_backbone("mobilenet_v9")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_networks:Other", "is no Backbone"),
        ("my_networks:function", "is no Backbone"),
        ("my_networks:CALLED", "is no Backbone"),
        ("os:system", "is no Backbone"),
        ("my_networks:Plane", "cannot be imported: .*has no attribute 'Plane'"),
        ("your_networks:Plain", "No module named 'your_networks'; install it, or .* PYTHONPATH"),
        (".my_networks:Plain", "cannot be imported"),
        ("my_networks:", "cannot be imported"),
        (":Plain", "cannot be imported"),
        ("facedistill.backbones:OnnxBackbone", "has no option 'embedding_dim'"),
    ],
)
def test_a_model_folder_calls_nothing_but_backbones(mine: Path, name: str, message: str) -> None:
    fd.save_model(fd.Model(fd.create_backbone("my_networks:Plain", 16, 32, channels=4)), "model")
    file = mine / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architecture": name}))
    with pytest.raises(UserError, match=message) as caught:
        fd.load_model("model")
    assert "config.json: backbone '" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.type is UserError and not sys.modules["my_networks"].CALLED
