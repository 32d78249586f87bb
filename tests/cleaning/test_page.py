"""The page of findings in a real browser: ticks are saved as a file, and the next `clean` follows it."""

import csv
import json
import os
from pathlib import Path

import pytest

from facedistill.cleaning import clean
from facedistill.data import open_source
from headless import download, find_browser
from planted_people import draw_people, pattern_teacher

PEOPLE, IMAGES = 40, 8
ODD = 'Zoë "😀" <i>&\'' + os.fsdecode(b"\xff")  # a folder that one could have, the last byte no text
# Whoever reads the page: clicks on some findings, then saves.
READER = """<script>
for (const box of document.querySelectorAll("input[data-about]"))
  if (IMAGES.includes(JSON.parse(box.dataset.about).image)) box.click();
document.getElementById("save").click();
</script>"""


def _read(browser: str, out: Path, profile: Path, clicked: list[str]) -> Path:
    """Click on the findings about these images, save, and return the file."""
    page = profile / "read.html"
    profile.mkdir()
    page.write_bytes((out / "index.html").read_bytes() + READER.replace("IMAGES", json.dumps(clicked)).encode())
    return download(browser, profile, page, "decisions.json")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))


def test_a_person_looks_ticks_and_saves(tmp_path: Path) -> None:
    browser, faces, out = find_browser(), tmp_path / "faces", tmp_path / "out"
    draw_people(faces, PEOPLE, IMAGES)
    (faces / "p00").rename(faces / ODD)
    (faces / "p20" / "7.png").rename(faces / ODD / "kept.png")
    (faces / "p21" / "7.png").rename(faces / "p01" / "stranger.png")
    (faces / "p02" / "copy.png").write_bytes((faces / "p02" / "0.png").read_bytes())
    clean(faces, pattern_teacher(), out)
    before = open_source(out).keys
    assert {f"{ODD}/kept.png", "p01/stranger.png", "p02/copy.png"}.isdisjoint(before)
    saved = _read(browser, out, tmp_path / "first", [f"{ODD}/kept.png", "p02/copy.png"])
    accepted = {row["image"]: row["accept"] for row in json.loads(saved.read_bytes())["decisions"]}
    assert (accepted[f"{ODD}/kept.png"], accepted["p02/copy.png"], accepted["p01/stranger.png"]) == (False, False, True)
    clean(faces, pattern_teacher(), out, decisions=saved)
    assert set(open_source(out).keys) - set(before) == {f"{ODD}/kept.png", "p02/copy.png"}
    with open(out / "findings.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        done = {row["image"]: row["done"] for row in csv.DictReader(file)}
    assert done[f"{ODD}/kept.png"] == "nothing" and done["p01/stranger.png"] == "image left out"
    saved = _read(browser, out, tmp_path / "second", ["p02/copy.png"])  # its box has no tick now: a click sets one
    clean(faces, pattern_teacher(), out, decisions=saved)
    assert set(open_source(out).keys) - set(before) == {f"{ODD}/kept.png"}
