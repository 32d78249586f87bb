"""The verbs of a gallery, as a user types them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedistill.cli.app import main
from facedistill.gallery import Gallery
from tiny_world import Tiny

STRANGERS = "synthetic:identities=20,images=3,size=32,seed=1,first=900"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))

    def run(*words: object) -> tuple[Any, str, str]:
        capsys.readouterr()
        code: Any = 0
        try:
            main([str(word) for word in words])
        except SystemExit as e:
            code = e.code or 0
        return code, *capsys.readouterr()

    return run


def test_from_enrolling_to_forgetting(cli: Any, tiny: Tiny, tmp_path: Path) -> None:
    code, out, _ = cli("enroll", "g", tiny.photos, "--model", tiny.teacher, "--precision", "int8", "--json", "e.json")
    assert code == 0 and out.endswith("g: 72 vectors of 12 people added; 0 images were enrolled already; 0 refused\n")
    assert json.loads((tmp_path / "e.json").read_text())["added"] == 72
    person = sorted(tiny.photos.iterdir())[0]
    image = sorted(person.iterdir())[0]
    code, out, err = cli("identify", "g", image, "--model", tiny.student)
    assert code == 1 and not out and "Give --calibrate STRANGERS" in err and err.count("\n") == 1
    code, out, err = cli(
        *("identify", "g", image, person, "--model", tiny.student, "--calibrate", STRANGERS),
        *("--far", "0.1", "--top", "2", "--json", "-"),
    )
    assert code == 0, err
    answers = json.loads(out)["answers"]
    assert len(answers) == 6 and answers[0]["photo"] == str(image)
    assert len(answers[0]["hits"]) == 2 and answers[0]["threshold"]["far"] == 0.1
    assert answers[0]["accepted"] == (answers[0]["hits"][0]["score"] >= answers[0]["threshold"]["value"])
    assert answers[0]["margin"] == pytest.approx(answers[0]["hits"][0]["score"] - answers[0]["hits"][1]["score"])
    code, out, _ = cli("show", "g", "--report", "g.html")
    assert code == 0 and "12 people" in out and "at FAR 0.1" in out and (tmp_path / "g.html").exists()
    code, out, err = cli("forget", "g", "nobody")
    assert code == 1 and "nobody named 'nobody'" in err
    code, out, _ = cli("forget", "g", person.name)
    assert code == 0 and out == "g: 1 forgotten, 6 vectors erased; 11 people remain\n"
    assert person.name.encode() not in (tmp_path / "g").read_bytes()


def test_merge_and_salvage(cli: Any, tmp_path: Path) -> None:
    for name, space in (("a", "s"), ("b", "s"), ("c", "other")):
        with Gallery.create(tmp_path / name, space=space, dim=4) as gallery:
            gallery.add("both", np.eye(4)[0], made_by="m")
            gallery.add(f"only {name}", np.eye(4), made_by="m")
    code, out, _ = cli("merge", "a", "b")
    assert code == 0 and out == "b: 4 vectors added, 1 people new\n"
    code, out, err = cli("merge", "a", "c")
    assert code == 1 and "is of space other, and a of s" in err
    shutil.copy(tmp_path / "a", tmp_path / "copy")
    code, _, err = cli("merge", "a", "copy")
    assert code == 1 and "is the same gallery" in err
    data = bytearray((tmp_path / "a").read_bytes())
    data[:16384] = bytes(16384)
    (tmp_path / "a").write_bytes(data)
    code, out, err = cli("identify", "a", "x.jpg", "--model", "absent")
    assert code == 1
    code, out, _ = cli("show", "a", "--salvage", "saved")
    assert code == 0 and out == "saved: 9 vectors of 3 people are readable\n"
    with Gallery.open(tmp_path / "saved") as gallery:
        assert gallery.names() == ["both", "only a", "only b"]


def test_what_a_user_may_get_wrong(cli: Any, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for words, told in (
        (("forget", "absent", "x"), "no such gallery"),
        (("forget", "text", "x"), "not a gallery"),
        (("enroll", "text", tiny.photos, "--model", tiny.teacher), "not a gallery"),
        (("enroll", "g", "absent", "--model", tiny.teacher), "absent"),
        (("identify", "g", "x.jpg", "--model", tiny.teacher), "no such gallery"),
        (("identify", "g", "x.jpg", "--model", tiny.teacher, "--far", "2"), "above 0 and below 1"),
        (("show", "text", "--photos", "x"), "add --report"),
        (("show", "text", "--report", "r.html"), "text"),
    ):
        code, _, err = cli(*words)
        assert code in (1, 2) and told in err and err.count("\n") <= 2 and "Traceback" not in err, (words, err)
    assert (tmp_path / "text").read_text() == "hello" and not (tmp_path / "g").exists()
