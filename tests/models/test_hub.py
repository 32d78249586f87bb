"""Models on the Hugging Face Hub: pushed and loaded again, against the hub's routes on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("huggingface_hub", reason="the hub needs huggingface_hub")

from huggingface_hub import constants

from facedistill.cli import main
from facedistill.errors import UsageError, UserError
from facedistill.models import load_model, push_model, save_model, save_thresholds
from facedistill.models.hub import FILES, parse_address
from fake_hub import TOKEN, FakeHub, Repository
from tiny_world import Tiny

NAME = "ada/student"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub that this process knows is the fake one, with an empty cache, and its token is there."""
    server = FakeHub()
    files = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # another test module may have set it
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.close()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)


def test_a_pushed_model_is_loaded_again(hub: FakeHub, tiny: Tiny, images: torch.Tensor, tmp_path: Path) -> None:
    address = push_model(tiny.teacher, NAME)
    model, loaded = load_model(tiny.teacher), load_model(f"hf://{NAME}")
    assert torch.equal(loaded.embed(images), model.embed(images))
    assert loaded.space == model.space and loaded.thresholds == model.thresholds
    assert loaded.classifier is not None and model.classifier is not None
    assert loaded.classifier.class_names == model.classifier.class_names
    repository = hub.repositories[NAME]
    assert address == f"hf://{NAME}@{repository.head}"
    assert repository.private
    assert set(repository.files) <= {".gitattributes", *FILES}
    assert (tmp_path / "cache" / "models--ada--student").is_dir(), "in the hub's own cache"


def test_the_card_says_how_to_load_it_from_there(hub: FakeHub, tiny: Tiny) -> None:
    push_model(tiny.student, NAME)
    card = hub.repositories[NAME].files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: facedistill\n")
    assert "# student\n" in card and 'fd.load_model("hf://ada/student")' in card


def test_a_commit_is_pinned(hub: FakeHub, tiny: Tiny, images: torch.Tensor) -> None:
    old = push_model(tiny.student, NAME)
    new = push_model(tiny.teacher, NAME)
    assert old != new
    for address, local in ((old, tiny.student), (new, tiny.teacher), (f"hf://{NAME}", tiny.teacher)):
        assert torch.equal(load_model(address).embed(images), load_model(local).embed(images))
    assert torch.equal(load_model(Path(old)).embed(images), load_model(old).embed(images)), "a Path has one slash less"


def test_only_a_models_files_are_fetched(hub: FakeHub, tiny: Tiny, tmp_path: Path) -> None:
    push_model(tiny.student, NAME)
    repository = hub.repositories[NAME]
    others = {"evil.pkl": b"x", "pytorch_model.bin": b"x", "model.py": b"x", "sub/model.safetensors": b"x"}
    repository.commit({**repository.files, **others})
    load_model(f"hf://{NAME}")
    found = {p.name for p in (tmp_path / "cache").rglob("*") if "snapshots" in p.parts}
    assert found.isdisjoint({"evil.pkl", "pytorch_model.bin", "model.py", "sub", ".gitattributes"})
    assert "model.safetensors" in found


def test_the_classifier_stays_there_where_it_is_not_asked_for(hub: FakeHub, tiny: Tiny) -> None:
    push_model(tiny.teacher, NAME)
    assert load_model(f"hf://{NAME}", classifier=False).classifier is None
    assert not [r for r in hub.requests if r.startswith("GET") and "classifier.safetensors" in r]


def test_the_classifier_stays_here_if_asked(hub: FakeHub, tiny: Tiny, images: torch.Tensor) -> None:
    """Its class names are names of people. An older push's are removed."""
    push_model(tiny.teacher, NAME)
    assert "classes.txt" in hub.repositories[NAME].files
    push_model(tiny.teacher, NAME, classifier=False)
    files = hub.repositories[NAME].files
    assert "classes.txt" not in files and "classifier.safetensors" not in files
    assert "classifier" not in json.loads(files["config.json"])
    loaded = load_model(f"hf://{NAME}")
    assert loaded.classifier is None and torch.equal(loaded.embed(images), load_model(tiny.teacher).embed(images))


def test_files_that_no_model_has_are_left_alone(hub: FakeHub, tiny: Tiny) -> None:
    hub.repositories[NAME] = Repository(private=True)
    hub.repositories[NAME].commit({"student.onnx": b"kept", "model.onnx": b"of an older model"})
    push_model(tiny.student, NAME)
    files = hub.repositories[NAME].files
    assert files["student.onnx"] == b"kept" and "model.onnx" not in files


def test_without_a_network_the_cache_serves(hub: FakeHub, tiny: Tiny, images: torch.Tensor) -> None:
    address = push_model(tiny.student, NAME)
    first = load_model(f"hf://{NAME}").embed(images)
    hub.close()
    for again in (f"hf://{NAME}", address):
        assert torch.equal(load_model(again).embed(images), first)


def test_a_public_repository_is_not_written_by_mistake(hub: FakeHub, tiny: Tiny) -> None:
    push_model(tiny.student, NAME, public=True)
    before = hub.repositories[NAME].head
    assert not hub.repositories[NAME].private
    with pytest.raises(UserError, match="is public; nothing was uploaded: add --public"):
        push_model(tiny.teacher, NAME)
    assert hub.repositories[NAME].head == before


def test_errors_of_loading(hub: FakeHub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="hf://ada/nobody: no such repository"):
        load_model("hf://ada/nobody")
    hub.repositories["ada/text"] = Repository(private=False)
    with pytest.raises(UserError, match=r"hf://ada/text: not a model folder \(no config.json\)"):
        load_model("hf://ada/text")
    with pytest.raises(UserError, match="hf://ada/text@v9: the repository has no such branch, tag or commit"):
        load_model("hf://ada/text@v9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(UserError, match=r"refuses \(401\): your token is not valid"):
        load_model("hf://ada/nobody")
    hub.close()
    with pytest.raises(UserError, match="hf://ada/other: the hub cannot be reached, and the cache does not hold it"):
        load_model("hf://ada/other")


def test_errors_of_pushing(hub: FakeHub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        push_model(tiny.photos, NAME)
    with pytest.raises(UserError, match="no such folder"):
        push_model(tmp_path / "absent", NAME)
    (tmp_path / "bare.onnx").touch()
    with pytest.raises(UsageError, match="is a file; `facedistill import` makes a model folder"):
        push_model(tmp_path / "bare.onnx", NAME)
    with pytest.raises(UsageError, match="names a revision"):
        push_model(tiny.student, f"{NAME}@main")
    assert not hub.repositories and not hub.requests, "nothing was asked of the hub until here"
    hub.readable_only = True
    with pytest.raises(UserError, match=r"refuses \(403\): your token may not write there"):
        push_model(tiny.student, NAME)
    hub.close()
    with pytest.raises(UserError, match="is there a network"):
        push_model(tiny.student, NAME)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token"):
        push_model(tiny.student, NAME)


def test_a_threshold_has_no_place_there(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="lies on the hub"):
        save_thresholds("hf://ada/student", [])


@pytest.mark.parametrize("name", ["student", "ada/", "/student", "a/b/c", "ada/student@", "ada/stu dent", ""])
def test_a_name_needs_an_owner(name: str, tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="expected OWNER/NAME, such as ada/student"):
        push_model(tiny.student, name)
    with pytest.raises(UsageError, match="hf://"):
        load_model(f"hf://{name}")


def test_addresses() -> None:
    assert parse_address("hf://ada/student") == ("ada/student", None)
    assert parse_address(str(Path("hf://ada/student@refs/pr/1"))) == ("ada/student", "refs/pr/1")
    assert parse_address("ada/my-student.v2@main") == ("ada/my-student.v2", "main")


def test_a_missing_package_is_said(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'facedistill\[hub\]'"):
        load_model("hf://ada/student")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return int(stopped.value.code or 0)


def test_the_verbs(hub: FakeHub, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(load_model(tiny.teacher), tmp_path / "model")
    assert run("push", str(tmp_path / "model"), NAME, "--without-classifier") == 0
    address = capsys.readouterr().out.strip()
    assert address == f"hf://{NAME}@{hub.repositories[NAME].head}"
    assert "classes.txt" not in hub.repositories[NAME].files
    assert run("show", address) == 0
    said = capsys.readouterr()
    assert "32 x 32 pixels" in said.out and f"commit {hub.repositories[NAME].head}" in said.err
    assert run("push", str(tmp_path / "model"), "student") == 2
    assert "expected OWNER/NAME" in capsys.readouterr().err
    assert run("push", str(tmp_path / "model"), NAME, "--public") == 0
    assert "classes.txt" in hub.repositories[NAME].files


def test_another_process_finds_the_hub_by_its_variables(hub: FakeHub, tiny: Tiny, tmp_path: Path) -> None:
    """As a user sets it: HF_ENDPOINT and HF_HOME, and nothing of ours patched."""
    push_model(tiny.student, NAME)
    variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    words = ["embed", f"hf://{NAME}", str(tiny.photos), "--out", str(tmp_path / "photos.npz")]
    command = [sys.executable, "-m", "facedistill", *words]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "photos.npz").exists() and (tmp_path / "home" / "hub").is_dir()
