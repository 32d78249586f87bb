"""The verbs that make training data: prepare, clean."""

from pathlib import Path
from typing import Annotated, Literal

from facedistill.cli.app import Folder, Many, answer, app


@app.command(sort_key=0.5)
def prepare(
    photos: Path,
    /,
    *,
    out: Folder,
    detector: str | None = None,
    faces: Literal["largest", "central", "all"] = "largest",
    size: int = 112,
    landmarks: Path | None = None,
    min_size: float = 40,
    form: Literal["folder", "parquet"] = "folder",
    workers: int | None = None,
) -> None:
    """Find the faces in photos, align them, and write a data set.

    A photo's person is the first folder on its way down. The data set holds index.csv, a line for each face, and
    index.html, a page to look at. Nothing of the photos is changed. The same command goes on where it was stopped, and
    takes in photos that came since.

    Examples:

    `facedistill prepare photos --out faces --detector yunet`

    `facedistill prepare loose_crop --out faces --landmarks name_5pts_score.txt`

    Parameters
    ----------
    photos:
        A folder with a folder for each person.
    out:
        The data set to write.
    detector:
        An ONNX file with the outputs of YuNet or SCRFD; or yunet, which is fetched once (230 kB, licence MIT).
    faces:
        Which faces of a photo.
    size:
        Of a crop, in pixels.
    landmarks:
        A file of points instead of a detector: an image's name and x, y of five landmarks on each line.
    min_size:
        The least shorter side of a face, in pixels of the photo.
    form:
        OUT/person/photo.jpg, or OUT/train.parquet.
    workers:
        Processes. [default: one a core]
    """
    from facedistill.preparation import prepare as prepare_photos

    done = prepare_photos(
        photos,
        out,
        detector=detector,
        faces=faces,
        size=size,
        landmarks=landmarks,
        min_size=min_size,
        form=form,
        workers=workers,
    )
    print(done.text())
    print(f"look at {done.path / 'index.html'}")


@app.command(sort_key=0.7)
def clean(
    data: str,
    /,
    *,
    teacher: str,
    out: Folder,
    against: Annotated[list[str] | None, Many] = None,
    precision: float = 0.95,
    decisions: Path | None = None,
) -> None:
    """Find wrong labels, copies and overlap in a data set, and write a clean selection of it.

    OUT holds selection.csv, which opens as data; findings.csv, a line for each finding; and index.html, a page to look
    through the findings and save decisions. Nothing of the data set is changed.

    Examples:

    `facedistill clean faces --teacher teacher --out cleaned`

    `facedistill clean faces --teacher teacher --out cleaned --against lfw.bin --decisions decisions.json`

    `facedistill distill --teacher teacher --data cleaned --out run`

    Parameters
    ----------
    data:
        A data set: a path of any form.
    teacher:
        A model whose embeddings tell people apart.
    out:
        The folder to write.
    against:
        Evaluation sets; people who stand in one are left out.
    precision:
        The share of the findings acted on that are right.
    decisions:
        A file that the page saved.
    """
    from facedistill.cleaning import clean as clean_data

    done = clean_data(data, teacher, out, against=against or (), precision=precision, decisions=decisions)
    answer(done.text())
    answer(f"look at {done.path / 'index.html'}")
