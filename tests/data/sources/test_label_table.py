"""A table of labels beside a folder of images: the layouts of ODIR-5K and RFMiD, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedistill.data import hold_out, open_dataset, open_source, open_union
from facedistill.errors import UsageError, UserError

# The head of ODIR-5K's annotations (its sheet, saved as CSV): a patient a row, an image of either eye.
ODIR = """\
ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,\
N,D,G,C,A,H,M,O
0,69,Female,0_left.jpg,0_right.jpg,cataract,normal fundus,0,0,0,1,0,0,0,0
1,57,Male,1_left.jpg,1_right.jpg,normal fundus,normal fundus,1,0,0,0,0,0,0,0
2,42,Male,2_left.jpg,2_right.jpg,"laser spot, moderate retinopathy",moderate retinopathy,0,1,0,0,0,0,0,1
"""
# The same in the copy that most people have: an image a row, and the labels of its patient.
ODIR_FULL = """ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,N,D,G,C,A,H,M,O,filepath,labels,target,filename
0,69,Female,0_left.jpg,0_right.jpg,0,0,0,1,0,0,0,0,../input/0_right.jpg,['N'],"[1, 0, 0, 0, 0, 0, 0, 0]",0_right.jpg
0,69,Female,0_left.jpg,0_right.jpg,0,0,0,1,0,0,0,0,../input/0_left.jpg,['C'],"[0, 0, 0, 1, 0, 0, 0, 0]",0_left.jpg
1,57,Male,1_left.jpg,1_right.jpg,1,0,0,0,0,0,0,0,../input/1_right.jpg,['N'],"[1, 0, 0, 0, 0, 0, 0, 0]",1_right.jpg
"""
# RFMiD: an image a row, its number for a name; Disease_Risk only says that there is any disease.
RFMID = "ID,Disease_Risk,DR,ARMD,MH\n1,1,1,0,0\n2,1,1,0,1\n3,0,0,0,0\n"
PLAIN = "image,glaucoma,cataract,patient\na.png,1,0,ann\nb.png,0.0,1.0,bob\nc.png,True,false,ann\n"


def images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(np.full((8, 8, 3), 20 * i % 256, np.uint8)).save(folder / name)
    return folder


def test_odir(tmp_path: Path) -> None:
    images(tmp_path / "train", *(f"{i}_{side}.jpg" for i in range(3) for side in ("left", "right")))
    (tmp_path / "odir.csv").write_text(ODIR)
    found = open_source(f"labels:table={tmp_path}/odir.csv,images={tmp_path}/train")
    assert list(found.label_names) == list("NDGCAHMO")
    assert found.keys == [f"{i}_{side}.jpg" for i in range(3) for side in ("left", "right")]
    assert found.multi_hot is not None
    assert [np.flatnonzero(row).tolist() for row in found.multi_hot] == [[3], [3], [0], [0], [1, 7], [1, 7]]
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2] and found.unlabelled is None
    assert found.read(1) == (tmp_path / "train" / "0_right.jpg").read_bytes()


def test_commas_in_paths_and_options_given_twice(tmp_path: Path) -> None:
    images(tmp_path / "eyes, 2024", "a.png", "b.png", "c.png")
    table = tmp_path / "eyes, 2024" / "t.csv"
    table.write_text(PLAIN)
    assert len(open_source(f"labels:table={table},image=image")) == len(open_source(f"labels:table={table}")) == 3
    with pytest.raises(UsageError, match=r"LabelTable: '.*t\.csv' is no option; expected name=value, as in table="):
        open_source(f"labels:{table}")
    with pytest.raises(UsageError, match="LabelTable: the option 'image' is given twice"):
        open_source(f"labels:table={table},image=image,image=file")


def test_odir_with_an_image_a_row(tmp_path: Path) -> None:
    images(tmp_path, "0_left.jpg", "0_right.jpg", "1_right.jpg")
    (tmp_path / "full_df.csv").write_text(ODIR_FULL)
    with pytest.raises(UserError, match="name the same images; say which to read: image=filename"):
        open_source(f"labels:table={tmp_path}/full_df.csv")
    found = open_source(f"labels:table={tmp_path}/full_df.csv,image=filename,group=ID")
    assert found.keys == ["0_right.jpg", "0_left.jpg", "1_right.jpg"]
    assert [found.class_names[i] for i in found.labels] == ["0", "0", "1"] and len(found.label_names) == 8


def test_rfmid(tmp_path: Path) -> None:
    images(tmp_path / "Training", "1.png", "2.png", "3.png")
    (tmp_path / "RFMiD_Training_Labels.csv").write_text(RFMID)
    spec = f"labels:table={tmp_path}/RFMiD_Training_Labels.csv,images={tmp_path}/Training,without=Disease_Risk"
    found = open_source(spec)
    assert found.keys == ["1.png", "2.png", "3.png"] and list(found.label_names) == ["DR", "ARMD", "MH"]
    assert found.multi_hot is not None and found.multi_hot.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert found.unlabelled is not None and found.unlabelled.all()  # nobody knows of whom an image is
    images(tmp_path / "Training", "2.jpg")
    with pytest.raises(UserError, match=r"line 3: '2' may be any of 2\.jpg, 2\.png in .*; write the ending, too"):
        open_source(spec)


def test_chosen_columns_groups_and_subset(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "t.csv").write_text(PLAIN)
    spec = f"labels:table={tmp_path}/t.csv,group=patient"
    data = open_dataset(spec)
    assert data.label_names == data.targets == ["glaucoma", "cataract"] and data.target_counts.tolist() == [2, 1]
    assert data.class_names == ["ann", "bob"]
    assert open_source(f"{spec},columns=cataract+glaucoma").label_names == ["cataract", "glaucoma"]
    part = data.with_labels(["cataract"])
    assert part.keys == ["b.png"] and part.label_names == ["cataract"] and part.multi_hot is not None
    assert part.in_memory().label_names == ["cataract"] and part.fingerprint != data.fingerprint
    assert pickle.loads(pickle.dumps(data)).multi_hot.tolist() == [[1, 0], [0, 1], [1, 0]]
    both = open_union([spec, spec])
    assert both.multi_hot is not None and both.multi_hot.shape == (6, 2)
    with pytest.raises(UserError, match="differ in labels"):
        open_union([spec, f"{spec},columns=cataract"])


def test_labels_may_be_yes_and_no(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("image,glaucoma,cataract\na.png,yes,0\nb.png,No,1\n")
    found = open_source(f"labels:table={tmp_path}/labels.csv")
    assert list(found.label_names) == ["glaucoma", "cataract"]
    assert found.multi_hot is not None and found.multi_hot.tolist() == [[True, False], [False, True]]


def test_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images(tmp_path, "a.png", "b.png")
    columns = {"file": ["a.png", "b.png"], "old": [True, False], "young": [0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = open_source(f"labels:table={tmp_path}/t.parquet")
    assert found.multi_hot is not None and found.multi_hot.tolist() == [[1, 0], [0, 1]]
    pq.write_table(pa.table(columns | {"young": [1.0, None]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="line 2: label 'young' is ''; expected 0 or 1"):
        open_source(f"labels:table={tmp_path}/t.parquet")


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({}, PLAIN.replace("0.0", "nan"), "line 3: label 'glaucoma' is 'nan'; expected 0 or 1 in every row"),
        ({}, PLAIN.replace("0.0", ""), "line 3: label 'glaucoma' is ''"),
        ({"columns": "glaucoma+patient"}, PLAIN, "line 2: label 'patient' is 'ann'"),
        ({"columns": "glaucom"}, PLAIN, "columns=glaucom: no such column .did you mean 'glaucoma'"),
        ({"group": "who"}, PLAIN, "group=who: no such column"),
        ({"without": "glaucoma+cataract"}, PLAIN, "no column of 0 and 1"),
        ({}, PLAIN.replace("c.png", "d.png"), "line 4: no image 'd.png' in"),
        ({}, PLAIN.replace("c.png", "../c.png"), "line 4: the row names a file outside"),
        ({}, PLAIN.replace("c.png", "b.png"), "b.png is named twice"),
        ({}, "image,glaucoma\n", "no row under a header"),
        ({}, "image,glaucoma,glaucoma\na.png,1,0\n", "two columns are called 'glaucoma'"),
        ({}, "image,note,glaucoma\na.png,red, swollen,1\n", "line 2: 4 cells for 3 columns"),
        ({}, "glaucoma,cataract\n1,0\n", "no column holds names of images"),
        ({"group": "patient"}, PLAIN.replace("bob", ""), "line 3: the column patient is empty"),
        ({"images": "/nowhere"}, PLAIN, "/nowhere: No such file"),
    ],
)
def test_refused(tmp_path: Path, options: dict[str, Any], text: str, message: str) -> None:
    images(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "t.csv").write_text(text)
    given = {"table": tmp_path / "t.csv"} | options
    with pytest.raises(UserError, match=message):
        open_source("labels:" + ",".join(f"{name}={value}" for name, value in given.items()))


def test_a_hold_out_keeps_patients_together_and_has_every_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(f"{i}.png", f"p{i // 2}", *(rng.random(3) < (0.5, 0.2, 0.06)).astype(int)) for i in range(200)]
    images(tmp_path, *(row[0] for row in rows))
    text = "".join(",".join(map(str, row)) + "\n" for row in [("image", "patient", "a", "b", "c"), *rows])
    (tmp_path / "t.csv").write_text(text)
    data = open_dataset(f"labels:table={tmp_path}/t.csv,group=patient")
    train, held = hold_out(data, 0.25, seed=3)
    assert not set(train.class_names) & set(held.class_names) and len(train) + len(held) == 200
    wanted = 0.25 * data.target_counts
    assert (abs(held.target_counts - wanted) <= 2).all() and abs(len(held) - 50) <= 2
    again = hold_out(data, 0.25, seed=3)[1]
    assert again.keys == held.keys != hold_out(data, 0.25, seed=4)[1].keys
    with pytest.raises(UserError, match="is empty; hold out more"):
        hold_out(data, 0.002, seed=3)
