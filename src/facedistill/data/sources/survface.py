"""QMUL-SurvFace, open-set 1:N identification of surveillance faces: gallery, mated_probe and unmated_probe.

The three folders are in Face_Identification_Test_Set of the published data set. Images of the first two are named
<id>_cam<n>_<n>.jpg: the person is the number before the first "_", as in the lists (.mat) beside them, which are not
needed. survface_pairs.py opens its verification pairs.
"""

from pathlib import Path

from facedistill.data.sources.numbered import Files, NumberedFaces, images_below, person_of
from facedistill.data.sources.source import Source
from facedistill.errors import UserError

GALLERY, MATED, UNMATED = "gallery", "mated_probe", "unmated_probe"
INSIDE = "Face_Identification_Test_Set"
STRANGER = "unmated"


def is_survface(path: str | Path) -> bool:
    """Return True for a folder that holds gallery and mated_probe, directly or in Face_Identification_Test_Set."""
    return _root(Path(path)) is not None


def open_survface(path: str | Path) -> dict[str, Source]:
    """Open "gallery" and "probes". The probes are mated_probe and, if its folder exists, unmated_probe.

    Both share `class_names`, the persons by number and last "unmated", which the gallery has no image of.

    Raises:
        UserError: another layout, no images, or a file name without a person.
    """
    root = _root(Path(path))
    if root is None:
        raise UserError(
            f"{path}: not QMUL-SurvFace; expected the folders {GALLERY}, {MATED} and {UNMATED}, or {INSIDE}"
        )
    gallery, mated = _files(root, GALLERY), _files(root, MATED)
    strangers = _files(root, UNMATED) if (root / UNMATED).is_dir() else {}
    persons = {key: person_of(root, key) for key in (*gallery, *mated)}
    class_names = [*(str(person) for person in sorted(set(persons.values()))), STRANGER]

    def part(files: Files) -> Source:
        return NumberedFaces("survface", root, files, [str(persons.get(key, STRANGER)) for key in files], class_names)

    return {"gallery": part(gallery), "probes": part(mated | strangers)}


def _root(path: Path) -> Path | None:
    candidates = (path, path / INSIDE)
    return next((root for root in candidates if (root / GALLERY).is_dir() and (root / MATED).is_dir()), None)


def _files(root: Path, folder: str) -> Files:
    return images_below(root, folder, f"QMUL-SurvFace has {GALLERY}, {MATED} and {UNMATED} side by side")
