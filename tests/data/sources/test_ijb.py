"""IJB folders built byte by byte, line by line as insightface's release has them."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedistill.data.align import TEMPLATE, align
from facedistill.data.dataset import Dataset
from facedistill.data.decode import decode
from facedistill.data.sources import ijb
from facedistill.data.sources.ijb import IjbSource, is_ijb
from facedistill.errors import UserError

# name, five points, detector score, template, medium: as in ijbb_name_5pts_score.txt and ijbb_face_tid_mid.txt
LANDMARKS = """\
1.jpg 46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648 0.999
2.jpg 40.5 55.25 80.125 57 60 80.5 45 100 78 101.5 0.5
3.jpg 46 62 87 60 68 77 52 99 86 98 0.9994
4.jpg 30 40 60 41 45 55 33 70 58 71 0.1
"""
BELONGS = """\
1.jpg 1 69544
2.jpg 11065 69545
3.jpg 11065 69545
4.jpg 7 12
"""
PAIRS = "1 11065 1\n1 7 0\n7 11065 0\n1 7 0\n"
GALLERY = """\
TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y
1,1001,img/1.png,8,10,12
1,1001,"img/2, second.png",9,11,13
12,1002,frames/3.png,7,5,5
13,1002,frames/4.png,7,5,5
"""
PROBES = """\
template_id,subject_id
11065,1001
7,1003
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "IJBB"
    (root / "loose_crop").mkdir(parents=True)
    (root / "meta").mkdir()
    for name, text in {
        "ijbb_name_5pts_score.txt": LANDMARKS,
        "ijbb_face_tid_mid.txt": BELONGS,
        "ijbb_template_pair_label.txt": PAIRS,
        "ijbb_1N_gallery_S1.csv": GALLERY,
        "ijbb_1N_gallery_S2.csv": "TEMPLATE_ID,SUBJECT_ID\n2,1003\n",
        "ijbb_1N_probe_mixed.csv": PROBES,
    }.items():
        (root / "meta" / name).write_bytes(text.encode())
    for i in range(1, 5):
        noise = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(noise).resize((100 + 10 * i, 140 + i), Image.Resampling.BILINEAR).save(out, "JPEG")
        (root / "loose_crop" / f"{i}.jpg").write_bytes(out.getvalue())
    return root


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "meta" / name
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def listed(source: IjbSource) -> list[tuple[int, int, bool]]:
    return [pair for block in source.pairs() for pair in zip(*(part.tolist() for part in block), strict=True)]


def test_images_in_the_order_of_the_list(folder: Path) -> None:
    assert is_ijb(folder)
    assert not is_ijb(folder.parent)
    source = IjbSource(folder)
    assert source.name == "ijbb"
    assert source.keys == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert source.template.tolist() == [1, 11065, 11065, 7]
    assert source.media.tolist() == [69544, 69545, 69545, 12]
    np.testing.assert_array_equal(source.detector_score, np.array([0.999, 0.5, 0.9994, 0.1], np.float32))
    assert source.detector_score.dtype == np.float32
    assert source.points.shape == (4, 5, 2)
    np.testing.assert_allclose(source.points[0, 4], [86.45, 98.648], rtol=1e-6)
    assert source.class_names == ["1", "7", "11065"]
    assert source.labels.tolist() == [0, 2, 2, 1]


def test_read_aligns_by_the_given_landmarks(folder: Path) -> None:
    source = IjbSource(folder)
    crop = decode((folder / "loose_crop" / "2.jpg").read_bytes())
    points = [[40.5, 55.25], [80.125, 57], [60, 80.5], [45, 100], [78, 101.5]]
    assert source.read(1).shape == (112, 112, 3)
    np.testing.assert_array_equal(source.read(1), align(crop, np.array(points)))


def test_landmarks_on_the_template_leave_the_pixels(folder: Path) -> None:
    numbers = " ".join(str(v) for v in (TEMPLATE + np.array([3, 5])).round(4).ravel())
    edit(folder, "ijbb_name_5pts_score.txt", LANDMARKS.splitlines()[3], f"4.jpg {numbers} 1.0")
    crop = decode((folder / "loose_crop" / "4.jpg").read_bytes())
    assert np.abs(IjbSource(folder).read(3).astype(int) - crop[5:117, 3:115]).max() <= 1


def test_it_is_a_data_set_and_pickles(folder: Path) -> None:
    dataset = Dataset(pickle.loads(pickle.dumps(IjbSource(folder))))
    assert dataset.batch([0, 3]).images.shape == (2, 3, 112, 112)


def test_ijbc_by_its_names(folder: Path) -> None:
    for path in sorted((folder / "meta").iterdir()):
        path.rename(path.with_name(path.name.replace("ijbb", "ijbc").replace("_S", "_G")))
    source = IjbSource(folder)
    assert source.name == "ijbc"
    assert len(listed(source)) == 4
    assert [name for name, _, _ in source.galleries()] == ["G1", "G2"]


def test_a_missing_image_is_unreadable_not_fatal(folder: Path) -> None:
    (folder / "loose_crop" / "3.jpg").unlink()
    dataset = Dataset(IjbSource(folder), max_unreadable=0.5).in_memory()
    assert dataset.keys == ["1.jpg", "2.jpg", "4.jpg"]
    assert dataset.unreadable == ["3.jpg"]


def test_an_image_with_landmarks_of_no_face_is_unreadable(folder: Path) -> None:
    edit(folder, "ijbb_name_5pts_score.txt", "30 40 60 41 45 55 33 70 58 71", " ".join(["5"] * 10))
    assert Dataset(IjbSource(folder), max_unreadable=0.5).in_memory().unreadable == ["4.jpg"]


def test_the_fingerprint_sees_lists_and_image_sizes(folder: Path) -> None:
    seen = [IjbSource(folder).fingerprint]
    assert IjbSource(folder).fingerprint == seen[0]
    edit(folder, "ijbb_name_5pts_score.txt", "0.9994", "0.9995")
    seen.append(IjbSource(folder).fingerprint)
    edit(folder, "ijbb_face_tid_mid.txt", "4.jpg 7 12", "4.jpg 7 13")
    seen.append(IjbSource(folder).fingerprint)
    with open(folder / "loose_crop" / "1.jpg", "ab") as f:
        f.write(b"\0")
    seen.append(IjbSource(folder).fingerprint)
    assert len(set(seen)) == 4


def test_the_stamp_sees_an_image_that_changed_in_place(folder: Path) -> None:
    before = IjbSource(folder)
    os.utime(folder / "loose_crop" / "1.jpg", ns=(0, 1))
    after = IjbSource(folder)
    assert after.fingerprint == before.fingerprint and after.stamp != before.stamp


@pytest.mark.parametrize("block", [1, 9, 10, 11, 1 << 22])
def test_pairs_whatever_the_block(folder: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ijb, "BLOCK_BYTES", block)
    assert listed(IjbSource(folder)) == [(1, 11065, True), (1, 7, False), (7, 11065, False), (1, 7, False)]


@pytest.mark.parametrize(
    "text", [PAIRS[:-1], PAIRS.replace("\n", "\r\n"), PAIRS.replace(" ", "\t"), PAIRS.replace(" ", "  ")]
)
def test_pairs_however_they_are_spaced(folder: Path, text: str) -> None:
    (folder / "meta" / "ijbb_template_pair_label.txt").write_bytes(text.encode())
    assert listed(IjbSource(folder)) == [(1, 11065, True), (1, 7, False), (7, 11065, False), (1, 7, False)]


def test_many_pairs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ijb, "BLOCK_BYTES", 1000)
    rng = np.random.default_rng(0)
    expected = np.column_stack([rng.integers(1, 10**6, (5000, 2)), rng.integers(0, 2, 5000)])
    text = "".join(f"{a} {b} {label}\n" for a, b, label in expected.tolist())
    (folder / "meta" / "ijbb_template_pair_label.txt").write_bytes(text.encode())
    blocks = list(IjbSource(folder).pairs())
    assert len(blocks) > 50
    np.testing.assert_array_equal(np.concatenate([np.stack(block, axis=1) for block in blocks]), expected)
    assert [part.dtype for part in blocks[0]] == [np.int64, np.int64, bool]


@pytest.mark.parametrize("block", [1, 1 << 22])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 7 0\n1 7\n1 7 1\n", r"line 2: '1 7'; expected template template label"),
        ("1 7 0\n1 7\n1 7 1 1\n", r"line 2: '1 7'"),  # as many numbers as three lines should have
        ("1 7 0\n1 7 1 5\n", r"line 2: '1 7 1 5'"),
        ("1 7 0\n\n1 7 0\n", r"line 2: ''"),
        ("1 7 0\n1 a 0\n", r"line 2: '1 a 0'"),
        ("1 7 0\n1 7 0.5\n", r"line 2: '1 7 0.5'"),
        ("1 7 0\n1 7 1\n1 7 2\n", r"line 3: label 2; expected 1 or 0"),
        ("1 7 0\n1 7 -1\n", r"line 2: label -1"),
    ],
)
def test_a_wrong_pair_is_named(
    folder: Path, text: str, message: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ijb, "BLOCK_BYTES", block)
    (folder / "meta" / "ijbb_template_pair_label.txt").write_bytes(text.encode())
    with pytest.raises(UserError, match=r"ijbb_template_pair_label\.txt, " + message):
        listed(IjbSource(folder))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ijbb_name_5pts_score.txt", " 0.5\n", "\n", "line 2: '2.jpg .* 101.5'; expected name x1 y1"),
        ("ijbb_name_5pts_score.txt", "0.9994", "0.9 0.9", "line 3"),
        ("ijbb_name_5pts_score.txt", "40.5", "forty", "line 2"),
        ("ijbb_name_5pts_score.txt", "0.9994", "nan", "line 3: a number that is not finite"),
        ("ijbb_name_5pts_score.txt", "2.jpg", "1.jpg", "image 1.jpg is listed twice"),
        ("ijbb_face_tid_mid.txt", "4.jpg 7 12", "4.jpg 7", "line 4: '4.jpg 7'; expected name template media"),
        ("ijbb_face_tid_mid.txt", "11065 69545", "x 69545", "line 2"),
        ("ijbb_face_tid_mid.txt", "11065 69545", f"{10**20} 69545", "line 2"),
        ("ijbb_face_tid_mid.txt", "4.jpg 7 12\n", "", "3 images, and 4 in ijbb_name_5pts_score.txt"),
        ("ijbb_face_tid_mid.txt", "2.jpg", "5.jpg", "line 2: image 5.jpg, and 2.jpg in ijbb_name_5pts_score.txt"),
    ],
)
def test_a_wrong_list_of_images_is_named(folder: Path, name: str, old: str, new: str, message: str) -> None:
    edit(folder, name, old, new)
    with pytest.raises(UserError, match=message):
        IjbSource(folder)


def test_what_is_missing_is_named(folder: Path) -> None:
    source = IjbSource(folder)
    for name, use in {
        "ijbb_1N_probe_mixed.csv": source.probes,
        "ijbb_template_pair_label.txt": lambda: listed(source),
        "ijbb_face_tid_mid.txt": lambda: IjbSource(folder),
        "ijbb_name_5pts_score.txt": lambda: IjbSource(folder),
    }.items():
        (folder / "meta" / name).unlink()
        with pytest.raises(UserError, match=name if "5pts" not in name else "0 files meta/ijb"):
            use()


def test_a_missing_folder_of_images_is_named(folder: Path) -> None:
    (folder / "loose_crop").rename(folder / "crops")
    with pytest.raises(UserError, match="loose_crop: No such file"):
        IjbSource(folder)


def test_two_sets_in_one_folder_are_refused(folder: Path) -> None:
    (folder / "meta" / "ijbc_name_5pts_score.txt").write_text(LANDMARKS)
    with pytest.raises(UserError, match="2 files meta/ijb"):
        IjbSource(folder)


def test_galleries_and_probes(folder: Path) -> None:
    source = IjbSource(folder)
    first, second = source.galleries()
    assert (first[0], first[1].tolist(), first[2].tolist()) == ("S1", [1, 12, 13], ["1001", "1002", "1002"])
    assert (second[0], second[1].tolist(), second[2].tolist()) == ("S2", [2], ["1003"])
    templates, subjects = source.probes()
    assert (templates.tolist(), subjects.tolist()) == ([11065, 7], ["1001", "1003"])
    assert templates.dtype == np.int64
    for name in ("S1", "S2"):
        (folder / "meta" / f"ijbb_1N_gallery_{name}.csv").unlink()
    assert source.galleries() == []


def test_columns_are_found_by_name(folder: Path) -> None:
    table = "\ufeffFILENAME,Subject_Id, Template_ID \r\n\u00e9.png,0042,5\r\n\r\nx.png,p,6\r\n"
    (folder / "meta" / "ijbb_1N_probe_mixed.csv").write_bytes(table.encode())
    templates, subjects = IjbSource(folder).probes()
    assert (templates.tolist(), subjects.tolist()) == ([5, 6], ["0042", "p"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("12,1002", "1,1002", "line 4: template 1 has subject 1002 here, and 1001 before"),
        ("12,1002,frames/3.png,7,5,5", "12", "line 4: 12; expected TEMPLATE_ID,SUBJECT_ID"),
        ("12,1002", "twelve,1002", "line 4: twelve"),
        ("SUBJECT_ID", "SUBJECT", "expected TEMPLATE_ID and SUBJECT_ID among them"),
        (GALLERY, "", "expected TEMPLATE_ID and SUBJECT_ID among them"),
    ],
)
def test_a_wrong_table_is_named(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder, "ijbb_1N_gallery_S1.csv", old, new)
    with pytest.raises(UserError, match=r"ijbb_1N_gallery_S1\.csv.*" + message):
        IjbSource(folder).galleries()


def test_marks_of_editors_are_no_part_of_a_list(folder: Path) -> None:
    plain = IjbSource(folder)
    pairs = [block[0].tolist() for block in plain.pairs()]
    for file in (folder / "meta").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    marked = IjbSource(folder)
    assert marked.keys == plain.keys and [block[0].tolist() for block in marked.pairs()] == pairs
    assert marked.probes()[1].tolist() == plain.probes()[1].tolist()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ijbb_1N_gallery_S2.csv", "2,1003", f"{10**30},1003"),
        ("ijbb_1N_probe_mixed.csv", "7,1003", f"{-(10**30)},1003"),
        ("ijbb_template_pair_label.txt", "1 7 0\n7", f"1\t{10**30} 0\n7"),
    ],
)
def test_a_number_that_no_template_can_have_is_named(folder: Path, name: str, old: str, new: str) -> None:
    edit(folder, name, old, new)
    source = IjbSource(folder)
    with pytest.raises(UserError, match=name):
        source.galleries(), source.probes(), listed(source)
