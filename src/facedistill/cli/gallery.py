"""The verbs of a gallery: enroll, identify, forget, merge."""

from pathlib import Path
from typing import Annotated, Literal

from facedistill.cli.app import File, Flag, Json, Many, answer, app
from facedistill.errors import UserError, printable

SHOWN = 20  # refused images that are printed


@app.command(sort_key=9.1)
def enroll(
    gallery: File,
    photos: str,
    /,
    *,
    model: Path,
    detector: str | None = None,
    name: str | None = None,
    precision: Literal["float32", "int8"] | None = None,
    json_: Json = None,
) -> None:
    """Add people to a gallery, which is made if it is absent.

    A person is added whole or not at all, and the same image is never added twice: after a stop, the same command goes
    on. No photo is stored. Blurred, tiny and faceless photos, and those of two people, are refused with their measure.

    Examples:

    `facedistill enroll door.gallery photos --model teacher`

    `facedistill enroll door.gallery albums --model teacher --detector yunet`

    `facedistill enroll door.gallery ada.jpg --name "Ada Lovelace" --model teacher`

    Parameters
    ----------
    gallery:
        The file.
    photos:
        A data set with a class for each person; with --name, a photo or a folder of photos of this person.
    model:
        A model folder, a run, or an .onnx: usually the teacher.
    detector:
        Finds the faces in photos, as in `prepare`: yunet, or an ONNX file. Without it, the images are aligned crops.
    name:
        The person's name.
    precision:
        Of a new gallery. int8 takes a quarter of the space. [default: float32]
    json_:
        Also write what was done, with every refused image, to this file.
    """
    from facedistill.gallery import enroll as enroll_photos
    from facedistill.models import load_model

    loaded = load_model(model, classifier=False)
    done = enroll_photos(gallery, photos, loaded, detector=detector, precision=precision, name=name)
    for key, why in list(done.refused.items())[:SHOWN]:
        answer(f"refused: {printable(key)}: {why}", json_)
    if len(done.refused) > SHOWN:
        answer(f"and {len(done.refused) - SHOWN:,} more; --json FILE lists all", json_)
    answer(f"{gallery}: {done.text()}", json_, vars(done))


@app.command(sort_key=9.2)
def identify(
    gallery: Path,
    photos: Annotated[list[Path], Many],
    /,
    *,
    model: Path,
    far: float = 1e-4,
    top: int = 5,
    by: Literal["best", "mean", "top-mean"] = "best",
    detector: str | None = None,
    together: Annotated[bool, Flag] = False,
    calibrate: str | None = None,
    index: Annotated[bool, Flag] = False,
    json_: Json = None,
) -> None:
    """Say who is on photos, or that it is nobody enrolled.

    The model must be of the gallery's space: the teacher that enrolled, or its student. The threshold is that of
    exactly this pair of models. A photo with several faces gets an answer for each.

    Examples:

    `facedistill identify door.gallery visitor.jpg --model run --detector yunet`

    `facedistill identify door.gallery crops --model run --calibrate strangers --far 1e-3 --json answers.json`

    Parameters
    ----------
    gallery:
        A file that `enroll` made.
    photos:
        Photos, or folders of photos.
    model:
        A model folder, a run, or an .onnx: usually the student.
    far:
        The false-accept rate of comparing a stranger with one vector. In a gallery of N vectors, a stranger is accepted
        about N times as often.
    top:
        People to name.
    by:
        The score of a person with several vectors: the best, the mean, or the mean of the three best.
    detector:
        Finds the faces in photos, as in `prepare`: yunet, or an ONNX file. Without it, the images are aligned crops.
    together:
        All photos show one person.
    calibrate:
        A data set of people who are not enrolled: measure the threshold of this pair of models first, and keep it in
        the gallery.
    index:
        Search with an index beside the gallery, which is made if it is absent; needs the extra `search`.
    json_:
        Also write the answers to this file.
    """
    from facedistill.gallery import Gallery, identify as identify_photos
    from facedistill.models import load_model

    if not 0 < far < 1:
        raise UserError(f"identify: --far {far:g}; expected a rate above 0 and below 1")
    loaded = load_model(model, classifier=False)
    with Gallery.open(gallery) as opened:
        found = identify_photos(
            opened,
            photos,
            loaded,
            far=far,
            top=top,
            by=by,
            detector=detector,
            together=together,
            strangers=calibrate,
            index=index,
        )
        recall = opened.index_recall() if index else None
    content = {"schema": 1, "answers": [one.to_json() for one in found]}
    answer("\n".join(one.text() for one in found), json_, content)
    if recall is not None:
        answer(f"index: finds the nearest vector of {100 * recall:.1f}% of probes", json_)
    if all(one.refused for one in found):
        raise UserError("identify: no face could be searched for")


@app.command(sort_key=9.3)
def forget(gallery: Path, names: Annotated[list[str], Many], /) -> None:
    """Remove people from a gallery for good: their vectors, their names, and what the file still held of both.

    Example: `facedistill forget door.gallery "Ada Lovelace" "Charles Babbage"`

    Parameters
    ----------
    gallery:
        A file that `enroll` made.
    names:
        The people. If one is not there, nobody is forgotten.
    """
    from facedistill.gallery import Gallery

    with Gallery.open(gallery) as opened:
        removed = opened.forget(*names)
        people = len(set(names))
        answer(f"{gallery}: {people:,} forgotten, {removed:,} vectors erased; {len(opened.names()):,} people remain")


@app.command(sort_key=9.4)
def merge(gallery: Path, others: Annotated[list[Path], Many], /) -> None:
    """Add the people of other galleries of the same space. Each of them is added whole or not at all.

    Example: `facedistill merge door.gallery office.gallery garage.gallery`

    Parameters
    ----------
    gallery:
        The gallery that grows.
    others:
        Galleries; they do not change.
    """
    from facedistill.gallery import Gallery, merge as merge_galleries

    with Gallery.open(gallery) as into:
        for path in others:
            with Gallery.open(path) as other:
                added, people = merge_galleries(into, other)
            answer(f"{path}: {added:,} vectors added, {people:,} people new")
