"""The whole way: a data set with planted errors, what is found, what is left, and a person's decisions."""

import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedistill.cleaning import clean
from facedistill.cli.app import main
from facedistill.data import open_dataset, open_source
from facedistill.errors import UsageError, UserError
from planted_people import draw_people, pattern_teacher
from tiny_world import Tiny

PEOPLE, IMAGES = 40, 8
STRANGE = {"p10": "p20", "p11": "p21", "p12": "p22", "p13": "p23"}  # they have an image of another person
JOINED = {"p05": "p06", "p15": "p16", "p25": "p26"}  # they have all images of another person


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of others, a copy, persons under two names, two under one, and a damaged file."""
    root = tmp_path_factory.mktemp("dirty") / "faces"
    draw_people(root, PEOPLE, IMAGES)
    for person, stranger in STRANGE.items():
        (root / stranger / "7.png").rename(root / person / "stranger.png")
    (root / "p02" / "copy.png").write_bytes((root / "p02" / "0.png").read_bytes())
    (root / "again").mkdir()
    for i in range(4, IMAGES):
        (root / "p03" / f"{i}.png").rename(root / "again" / f"{i}.png")
    for person, other in JOINED.items():
        for i in range(IMAGES):
            (root / other / f"{i}.png").rename(root / person / f"other_{i}.png")
        (root / other).rmdir()
    (root / "p07" / "1.png").write_bytes(b"damaged")
    return root


def _findings(out: Path) -> list[dict[str, str]]:
    with open(out / "findings.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_planted_errors_are_found_and_mended(dirty: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(dirty.rglob("*.png"))}
    done = clean(dirty, pattern_teacher(), tmp_path / "out")
    found = {
        (f["kind"], f["image"] or f["person"], f["other"])
        for f in _findings(tmp_path / "out")
        if f["done"] != "nothing"
    }
    for planted in (
        *(("swapped", f"{person}/stranger.png", other) for person, other in STRANGE.items()),
        ("duplicate", "p02/copy.png", "p02/0.png"),
        ("split", "again", "p03"),
        *(("merged", person, f"{person} (2)") for person in JOINED),
        ("unreadable", "p07/1.png", ""),
    ):
        assert planted in found
    dataset = open_dataset(tmp_path / "out")
    people: dict[str, list[str]] = {}
    for key, label in zip(dataset.keys, dataset.labels.tolist(), strict=True):
        people.setdefault(dataset.class_names[label], []).append(key)
    assert {"p10/stranger.png", "p02/copy.png", "p07/1.png"}.isdisjoint(dataset.keys)
    assert len(people["p03"] if "p03" in people else people["again"]) == IMAGES
    parts = {frozenset("other" in key for key in people[name]) for name in ("p05", "p05 (2)")}
    assert parts == {frozenset({True}), frozenset({False})}
    assert (done.images, done.kept, done.people, done.kept_people) == (
        PEOPLE * IMAGES + 1,
        len(dataset),
        PEOPLE - 2,
        PEOPLE,
    )
    assert before == {path: path.read_bytes() for path in sorted(dirty.rglob("*.png"))}
    assert np.array_equal(dataset.image(0), open_dataset(dirty).image(open_dataset(dirty).keys.index(dataset.keys[0])))


def test_a_person_decides(dirty: Path, tmp_path: Path) -> None:
    out, saved = tmp_path / "out", tmp_path / "decisions.json"
    clean(dirty, pattern_teacher(), out)
    page = (out / "index.html").read_text("utf-8")
    boxes = re.findall(r'<input type="checkbox" data-about="([^"]*)"( checked)?>', page)
    about = [json.loads(unescape(text)) for text, _ in boxes]
    rows = _findings(out)
    assert len(boxes) == len(rows) and page.count("<img") > len(rows)
    assert sum(bool(tick) for _, tick in boxes) == sum(row["done"] != "nothing" for row in rows)
    decisions = [row | {"accept": row["kind"] not in ("swapped", "split")} for row in about]
    decisions.append({"kind": "swapped", "image": "gone.png", "person": "p00", "other": "", "accept": True})
    saved.write_text(json.dumps({"decisions": decisions}))
    clean(dirty, pattern_teacher(), out, decisions=saved)
    keys = open_source(out).keys
    assert "p10/stranger.png" in keys and "p02/copy.png" not in keys
    assert {"again", "p03"} <= set(open_dataset(out).class_names)
    assert {row["done"] for row in _findings(out) if row["kind"] in ("swapped", "split")} == {"nothing"}


def test_people_of_an_evaluation_set_are_left_out(tmp_path: Path) -> None:
    shared = [f"p{i:02}" for i in range(6)]
    draw_people(tmp_path / "faces", PEOPLE, IMAGES)
    for person in shared:
        (tmp_path / "test" / person).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "faces" / person / f"{i}.png").rename(tmp_path / "test" / person / f"{i}.png")
    done = clean(tmp_path / "faces", pattern_teacher(), tmp_path / "out", against=[tmp_path / "test"])
    assert done.acted["overlap"] == 6
    assert set(shared).isdisjoint(open_dataset(tmp_path / "out").class_names)
    row = next(row for row in _findings(tmp_path / "out") if row["person"] == "p03")
    assert row["other"] == "test: p03" and row["done"] == "person left out"


def test_a_copy_under_another_name_stays_where_it_fits(tmp_path: Path) -> None:
    draw_people(tmp_path / "faces", PEOPLE, IMAGES)
    (tmp_path / "faces" / "p00" / "9.png").write_bytes((tmp_path / "faces" / "p09" / "4.png").read_bytes())
    clean(tmp_path / "faces", pattern_teacher(), tmp_path / "out")
    keys = open_source(tmp_path / "out").keys
    assert "p09/4.png" in keys and "p00/9.png" not in keys


def test_blurred_images_are_left_out_unless_the_teacher_is_sure(tmp_path: Path) -> None:
    draw_people(tmp_path / "faces", PEOPLE, IMAGES)
    Image.new("RGB", (32, 32), (90, 80, 70)).save(tmp_path / "faces" / "p04" / "blank.png")
    clean(tmp_path / "faces", pattern_teacher(), tmp_path / "out")
    rows = {row["image"]: row["kind"] for row in _findings(tmp_path / "out") if row["done"] != "nothing"}
    assert rows["p04/blank.png"] in ("unclear", "swapped")


def test_the_command(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_(["clean", str(tiny.photos), "--teacher", str(tiny.teacher), "--out", str(tmp_path / "out"),
           "--against", str(tiny.pairs)])  # fmt: skip
    text = capsys.readouterr().out
    assert "of 72 images" in text and "index.html" in text
    assert len(open_source(tmp_path / "out")) <= 72


def main_(words: list[str]) -> None:
    try:
        main(words)
    except SystemExit as e:
        assert not e.code


def test_bad_input(dirty: Path, tmp_path: Path) -> None:
    teacher = pattern_teacher()
    with pytest.raises(UsageError, match=r"precision 1\.5; expected a share"):
        clean(dirty, teacher, tmp_path / "out", precision=1.5)
    with pytest.raises(UsageError, match=r"is inside .*, which stays as it is"):
        clean(dirty, teacher, dirty / "cleaned")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="`clean` did not make it"):
        clean(dirty, teacher, tmp_path / "mine")
    for text in ("{", "[]", '{"decisions": [{"kind": "swapped"}]}', '{"decisions": 3}'):
        (tmp_path / "d.json").write_text(text)
        with pytest.raises(UserError, match=r"d\.json: no decisions .* expected the file that the page saves"):
            clean(dirty, teacher, tmp_path / "out", decisions=tmp_path / "d.json")
    row = {"kind": "swaped", "image": "", "person": "", "other": "", "accept": True}
    (tmp_path / "d.json").write_text(json.dumps({"decisions": [row]}))
    with pytest.raises(UserError, match=r"no kind 'swaped' \(did you mean 'swapped'\?\)"):
        clean(dirty, teacher, tmp_path / "out", decisions=tmp_path / "d.json")
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"bad: no.* image"):
        clean(tmp_path / "bad", teacher, tmp_path / "out")
    assert not (tmp_path / "out" / "selection.csv").exists()
