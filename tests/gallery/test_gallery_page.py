"""The page of a gallery: right numbers, nobody's face unless asked, nothing that runs or fetches."""

import re
import stat
from pathlib import Path

import numpy as np
import pytest

from facedistill.gallery import Gallery, enroll, summary, write_page
from facedistill.gallery.holdings import BINS, likeness
from facedistill.models import load_model
from headless import find_browser, run_browser
from tiny_world import Tiny

DIM = 32
BAD = "<script>alert(1)</script>\x1b[31m\u202e"


def made(path: Path) -> Gallery:
    """Thirty people, one of them under two names, one with a name that is markup."""
    rng = np.random.default_rng(0)
    gallery = Gallery.create(path, space="s", dim=DIM)
    for i in range(30):
        centre = rng.normal(size=DIM)
        for name in {"Ada Lovelace": ("Ada Lovelace", "Ada King"), "p7": (BAD,)}.get(
            "Ada Lovelace" if i == 3 else f"p{i}", (f"p{i}",)
        ):
            gallery.add(name, centre + 0.2 * rng.normal(size=(3, DIM)), made_by="m")
    gallery.set_threshold("probe", "m", far=1e-3, value=0.7, interval=(0.6, 0.8), impostors=12, measured="<b>lfw</b>")
    return gallery


def test_scores_and_doubles_are_those_of_all_pairs(tmp_path: Path) -> None:
    with made(tmp_path / "g") as gallery:
        found, (vectors, person, names) = likeness(gallery), gallery.matrix()
    scores = vectors.astype(np.float64) @ vectors.T
    upper = np.triu(np.ones(scores.shape, bool), 1)
    same = person[:, None] == person
    assert np.array_equal(found.genuine, np.histogram(scores[upper & same], BINS)[0])
    share = found.impostor / found.impostor.sum()  # drawn with replacement
    assert np.abs(share - np.histogram(scores[upper & ~same], BINS)[0] / (upper & ~same).sum()).max() < 0.01
    assert found.doubles[0][1:] == ("Ada King", "Ada Lovelace") and found.looked_at == len(vectors)
    ada = scores[np.ix_(*(person == names.index(name) for name in found.doubles[0][1:]))].max()
    assert found.doubles[0][0] == pytest.approx(ada, abs=1e-6)


def test_the_page_is_inert_and_shows_no_face(tmp_path: Path) -> None:
    with made(tmp_path / "g") as gallery:
        write_page(gallery, tmp_path / "g.html")
    page = (tmp_path / "g.html").read_text("utf-8")
    assert "<script" not in page and "<b>lfw" not in page and "\x1b" not in page and "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page and "default-src 'none'" in page
    assert "<img" not in page and not re.search(r"(src|href)=", page)
    assert "31" in page and "93, at most 3 of one person" in page and "0.700 [0.600, 0.800]" in page
    assert stat.S_IMODE((tmp_path / "g.html").stat().st_mode) == 0o600


def test_faces_are_shown_when_asked(tmp_path: Path, tiny: Tiny) -> None:
    enroll(tmp_path / "g", tiny.photos, load_model(tiny.teacher))
    with Gallery.open(tmp_path / "g") as gallery:
        write_page(gallery, tmp_path / "g.html", tiny.photos)
    assert (tmp_path / "g.html").read_text("utf-8").count('src="data:image/jpeg;base64,') > 10


def test_an_empty_gallery_has_a_page(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        write_page(gallery, tmp_path / "g.html")
        assert summary(gallery).text().startswith(f"{tmp_path / 'g'}: 0 people")
    assert "Nobody." in (tmp_path / "g.html").read_text("utf-8")


def test_a_browser_shows_it(tmp_path: Path) -> None:
    browser = find_browser()
    with made(tmp_path / "g") as gallery:
        write_page(gallery, tmp_path / "g.html")
    shown = run_browser(browser, tmp_path / "profile", "--dump-dom", (tmp_path / "g.html").as_uri())
    assert "Who looks alike" in shown.stdout and "alert(1)" in shown.stdout
    assert "CONSOLE" not in shown.stderr
