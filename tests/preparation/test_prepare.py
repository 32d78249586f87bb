"""From photos to a data set: what is found, cropped and refused; resuming, adding, and bad input."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drawn_detector import POINTS, photo, save_detector
from facedistill.data import open_dataset
from facedistill.data.align import align
from facedistill.errors import UsageError, UserError
from facedistill.preparation import prepare
from facedistill.preparation.journal import Journal, Row
from facedistill.preparation.photos import list_photos

CORNER = np.array([104, 96])  # of the face in ada/1.png


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("detector") / "d.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for person, count in (("ada", 3), ("b\N{LATIN SMALL LETTER O WITH DIAERESIS}b \N{GRINNING FACE}", 2)):
        (root / person).mkdir(parents=True)
        for i in range(count):
            photo((320, 240), [(96 + 8 * i, 96)]).save(root / person / f"{i}.png")
    return root


def _index(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "index.csv", encoding="utf-8", newline="") as file:
        return {f"{row['source']}#{row['face']}": row for row in csv.DictReader(file)}


def test_a_folder_of_photos_becomes_a_data_set(photos: Path, detector: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(photos.rglob("*.png"))}
    done = prepare(photos, tmp_path / "faces", detector=detector, workers=1)
    assert (done.photos, done.kept, done.people, done.refused) == (5, 5, 2, {})
    dataset = open_dataset(tmp_path / "faces")
    assert dataset.class_names == sorted(["ada", "b\N{LATIN SMALL LETTER O WITH DIAERESIS}b \N{GRINNING FACE}"])
    expected = align(np.asarray(Image.open(photos / "ada" / "1.png")), POINTS + CORNER)
    found = dataset.image(dataset.keys.index("ada/1.jpg"))
    assert found.shape == (112, 112, 3) and np.abs(found.astype(int) - expected).mean() < 1.5
    row = _index(tmp_path / "faces")["ada/1.png#0"]
    assert row["kept"] == "1" and row["crop"] == "ada/1.jpg" and float(row["score"]) > 0.99
    np.testing.assert_allclose([float(row["x1"]), float(row["y1"])], POINTS[0] + CORNER, atol=0.01)
    assert abs(float(row["yaw"])) < 1 and abs(float(row["roll"])) < 1
    assert before == {path: path.read_bytes() for path in sorted(photos.rglob("*.png"))}
    page = (tmp_path / "faces" / "index.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == 5 and "5 faces of 2 people from 5 photos" in page


def test_a_file_name_of_two_photos_has_no_landmarks(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("0.png,38,51,73,51,56,71,41,92,70,92\n")
    with pytest.raises(UserError, match=r"points\.csv: 0\.png may be any of 2 photos \(ada/0\.png, .*write paths"):
        prepare(photos, tmp_path / "out", landmarks=tmp_path / "points.csv", workers=1)
    assert not (tmp_path / "out").exists()


def test_no_two_photos_share_a_crop(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.jpg.png", "x/b.jpg", "x__b.jpg", "c.jpg", "C.JPG"]
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(b"x")
    stems = {photo.source: photo.stem for photo in list_photos(tmp_path)}
    assert len(set(stems.values())) == len(names) and stems["p/c.jpg"] == "c" and stems["p/a.png"] == "a.png"


@pytest.mark.parametrize(("faces", "kept"), [("largest", 1), ("central", 1), ("all", 3)])
def test_which_faces(faces: Any, kept: int, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "p").mkdir(parents=True)
    photo((480, 320), [(80, 80), (240, 160), (400, 240)]).save(tmp_path / "photos" / "p" / "x.png")
    done = prepare(tmp_path / "photos", tmp_path / "out", detector=detector, faces=faces, workers=1)
    assert done.kept == kept
    if faces == "central":
        np.testing.assert_allclose(float(_index(tmp_path / "out")["p/x.png#0"]["x3"]), 240, atol=0.01)
    names = sorted(path.name for path in (tmp_path / "out" / "p").iterdir())
    assert names == (["x_0.jpg", "x_1.jpg", "x_2.jpg"] if faces == "all" else ["x.jpg"])


def test_photos_of_every_kind(detector: Path, tmp_path: Path) -> None:
    """EXIF, grey, CMYK, palette, 16 bits, animation: the same face. What cannot be used is refused with its reason."""
    folder, face = tmp_path / "photos" / "p", photo((320, 240), [(96, 96)])
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    face.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    face.convert("CMYK").save(folder / "cmyk.tif")
    face.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    face.save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", face.size)])
    face.save(folder / "name_lies.jpg", "PNG")
    (folder / "empty.jpg").write_bytes(b"")
    cut = io.BytesIO()
    face.save(cut, "PNG")
    (folder / "cut.png").write_bytes(cut.getvalue()[:300])
    Image.new("RGB", (320, 240), (90, 90, 90)).save(folder / "nobody.png")
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0"
    start = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(start + cut.getvalue()[33:])
    done = prepare(tmp_path / "photos", tmp_path / "out", detector=detector, workers=1)
    rows = _index(tmp_path / "out")
    kept = {key.partition("#")[0].removeprefix("p/") for key, row in rows.items() if row["kept"] == "1"}
    assert kept == {"turned.png", "cmyk.tif", "palette.png", "moving.gif", "name_lies.jpg"}
    for name in kept:
        np.testing.assert_allclose(float(rows[f"p/{name}#0"]["x3"]), 96, atol=0.01, err_msg=name)
    assert done.refused == {"unreadable": 3, "no face": 1}
    assert "the file is empty" in rows["p/empty.jpg#0"]["why"] and "pixels" in rows["p/bomb.png#0"]["why"]


def test_small_faces_and_landmarks_that_no_face_has(photos: Path, detector: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no face was kept of 5 photos"):
        prepare(photos, tmp_path / "out", detector=detector, min_size=100, workers=1)
    lines = ["name,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5", "2.png" + ",50" * 10, "ada/0.png" + ",50" * 10]
    lines.append("ada/1.png," + ",".join(str(v) for v in (POINTS + CORNER).ravel()))
    (tmp_path / "points.csv").write_text("\n".join(lines))
    done = prepare(photos, tmp_path / "given", landmarks=tmp_path / "points.csv", min_size=0, workers=1)
    assert done.kept == 1 and done.refused == {"landmarks that no face has": 2, "not in the file of landmarks": 2}
    expected = align(np.asarray(Image.open(photos / "ada" / "1.png")), POINTS + CORNER)
    found = open_dataset(tmp_path / "given").image(0)
    assert np.abs(found.astype(int) - expected).mean() < 1.5


def test_a_large_photo_is_decoded_small_and_cropped_sharp(detector: Path, tmp_path: Path) -> None:
    """The face is found at an eighth of the size; the crop, which is larger than it there, comes from the whole."""
    large = np.asarray(photo((640, 480), [(96, 96)]).resize((5120, 3840), Image.Resampling.NEAREST)).copy()
    large[920:940:2, 800:1000] = 255  # lines that vanish when the photo shrinks
    (tmp_path / "photos" / "p").mkdir(parents=True)
    Image.fromarray(large).save(tmp_path / "photos" / "p" / "x.jpg", quality=95, subsampling=0)
    for size in (64, 640):
        prepare(tmp_path / "photos", tmp_path / str(size), detector=detector, size=size, workers=1)
        row = _index(tmp_path / str(size))["p/x.jpg#0"]
        middle = (96 + 0.5) * 8 - 0.5
        np.testing.assert_allclose(float(row["x3"]), middle, atol=0.05)
        np.testing.assert_allclose(float(row["bottom"]) - float(row["top"]), 640, atol=0.05)
    crop = open_dataset(tmp_path / "640").image(0).astype(int)
    lines = np.abs(crop[2:] - crop[:-2]).mean(2)
    assert (lines > 20).sum() > 500


def test_parquet(photos: Path, detector: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for _ in range(2):
        prepare(photos, tmp_path / "out", detector=detector, form="parquet", workers=1)
        dataset = open_dataset(tmp_path / "out" / "train.parquet")
        assert len(dataset) == 5 and dataset.class_names[0] == "ada" and dataset.image(0).shape == (112, 112, 3)
        photo((320, 240), [(96, 96)]).save(photos / "ada" / "0.png")  # changed: looked at again


def test_added_photos_are_taken_in_and_others_left(photos: Path, detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(photos, out, detector=detector, workers=1)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*.jpg")}
    photo((320, 240), [(160, 96)]).save(photos / "ada" / "new.png")
    assert prepare(photos, out, detector=detector, workers=1).kept == 6
    assert times.items() <= {path: path.stat().st_mtime_ns for path in out.glob("*/*.jpg")}.items()


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"7",
        b"{",
        b'{"source": "ada/0.png"}',
        b'{"source": "ada/0.png", "stamp": [1, 2], "rows": [7]}',
        b'{"source": "ada/0.png", "stamp": [1, 2], "rows": [{"source": "a", "person": "b", "box": [1]}]}',
        b'{"source": "ada/0.png", "stamp": "x", "rows": []}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_a_damaged_line_of_the_journal_is_made_again(line: bytes, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "journal.jsonl"
    rows = [Row("ada/1.png", "ada", crop="ada/1.jpg", box=[1, 2, 3, 4], points=[0.5] * 10, score=0.9)]
    Journal(file).write([("ada/1.png", [3, 4], rows), ("b\udcff", [5, 6], [Row("b\udcff", "b", why="no face")])])
    file.write_bytes(line + b"\n" + file.read_bytes())
    found = Journal(file)
    assert found.done == {"ada/1.png": rows, "b\udcff": [Row("b\udcff", "b", why="no face")]}
    assert found.has("ada/1.png", [3, 4]) and not found.has("ada/0.png", [1, 2])
    assert capsys.readouterr().err.count("1 lines are damaged; their photos are prepared again") == 1


def test_killed_and_started_again_it_ends_with_the_same_data_set(detector: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i in range(120):
        (root / f"p{i % 7}").mkdir(parents=True, exist_ok=True)
        photo((640, 480), [(96 + 8 * (i % 20), 96)], shade=60 + i).save(root / f"p{i % 7}" / f"{i}.jpg", quality=90)
    prepare(root, tmp_path / "whole", detector=detector, workers=1)
    command = [sys.executable, "-m", "facedistill", "prepare", str(root), "--out", str(tmp_path / "out")]
    command += ["--detector", str(detector), "--workers", "2"]
    journal = tmp_path / "out" / ".prepare" / "journal.jsonl"
    for least in (1, 2000):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if journal.exists() and journal.stat().st_size > least:
                break
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if journal.exists():
        with open(journal, "a") as file:
            file.write('{"source": "p0/0.j')  # as if it was killed while it wrote
    subprocess.run(command, check=True, capture_output=True)
    for name in ("whole", "out"):
        for extra in (tmp_path / name).glob("*/.*"):
            assert extra.parent.name == ".prepare", extra  # no temporary file stays
    files = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in sorted((tmp_path / "out").rglob("*.jpg"))}
    assert len(files) == 120
    assert files == {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.jpg")}
    assert (tmp_path / "out" / "index.csv").read_bytes() == (tmp_path / "whole" / "index.csv").read_bytes()


def test_what_is_no_photo_is_counted_and_named(
    photos: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "ada" / "loop").symlink_to(photos)
    (photos / "ada" / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (photos / "ada" / "notes.txt").write_text("x")
    for name in (".DS_Store", "Thumbs.db"):
        (photos / "ada" / name).write_text("x")
    for name in ("__MACOSX", "@eaDir", ".cache"):
        (photos / name).mkdir()
        photo((320, 240), [(96, 96)]).save(photos / name / "x.png")
    assert prepare(photos, tmp_path / "out", detector=detector, workers=1).people == 2
    told = capsys.readouterr().err
    assert "passed over, no photos: 3 (" in " ".join(told.split())
    assert "a dead link" in told and "a link back" in " ".join(told.split())


def test_bad_input(photos: Path, detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for change, message in (
        ({"detector": None}, "needs a detector"),
        ({"detector": "yunett"}, "did you mean 'yunet'"),
        ({"landmarks": "x.csv"}, "give one of them"),
        ({"faces": "biggest"}, "expected one of largest"),
        ({"form": "zip"}, "expected one of folder"),
        ({"size": 3}, "size 3"),
        ({"size": 100_000}, "size 100000; expected 16 to 4,096"),
        ({"min_size": float("nan")}, "min_size nan"),
        ({"min_size": -1}, "min_size -1"),
        ({"workers": 0}, "workers 0; expected 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            prepare(photos, out, **({"detector": detector} | change))
    with pytest.raises(UserError, match="no such folder"):
        prepare(tmp_path / "nowhere", out, detector=detector)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photos; expected"):
        prepare(tmp_path / "empty", out, detector=detector)
    (tmp_path / "points.txt").write_text("no points")
    with pytest.raises(UserError, match=r"points\.txt: no landmarks"):
        prepare(photos, out, landmarks=tmp_path / "points.txt")
    assert not out.exists()
    for inside in (photos, photos / "faces"):
        with pytest.raises(UsageError, match=r"is inside .*, which stays as it is"):
            prepare(photos, inside, detector=detector)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="`prepare` did not make it"):
        prepare(photos, tmp_path / "mine", detector=detector)
    prepare(photos, out, detector=detector, workers=1)
    with pytest.raises(UsageError, match=r"made with other settings \(there: size = 112\)"):
        prepare(photos, out, detector=detector, size=96)


def test_a_name_in_the_index_is_no_formula(photos: Path, detector: Path, tmp_path: Path) -> None:
    (photos / "ada").rename(photos / "=SUM(A1)")
    prepare(photos, tmp_path / "out", detector=detector, workers=1)
    row = _index(tmp_path / "out")["'=SUM(A1)/1.png#0"]
    assert (row["person"], row["crop"]) == ("'=SUM(A1)", "'=SUM(A1)/1.jpg")
