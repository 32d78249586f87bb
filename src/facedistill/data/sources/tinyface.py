"""TinyFace, low-resolution 1:N identification: Gallery_Match, Probe and Gallery_Distractor.

Images of the first two are named <id>_<n>.jpg: the person is the number before the first "_". The three folders are in
Testing_Set of the published data set; public evaluators also use a folder of aligned faces.
"""

from pathlib import Path

from facedistill.data.sources.numbered import Files, NumberedFaces, images_below, person_of
from facedistill.data.sources.source import Source
from facedistill.errors import UserError, some

MATCH, PROBE, DISTRACTOR = "Gallery_Match", "Probe", "Gallery_Distractor"


def is_tinyface(path: str | Path) -> bool:
    """Return True for a folder that holds Gallery_Match, directly or in Testing_Set or aligned_*."""
    return bool(_roots(Path(path)))


def open_tinyface(path: str | Path) -> dict[str, Source]:
    """Open "gallery", "probes" and, if its folder exists, "distractors".

    Gallery and probes share `class_names`, the persons by number, so their labels agree. All distractors have the one
    class "distractor". Aligned faces are preferred.

    Raises:
        UserError: another layout, several folders of aligned faces, no images, or a file name without a person.
    """
    roots = _roots(Path(path))
    if not roots:
        raise UserError(f"{path}: not TinyFace; expected the folders {MATCH}, {PROBE} and {DISTRACTOR}, or Testing_Set")
    if len(roots) > 1:
        raise UserError(f"{path}: several TinyFace sets ({some([root.name for root in roots])}); name one of them")
    root = roots[0]
    match, probe = _files(root, MATCH), _files(root, PROBE)
    persons = {key: person_of(root, key) for key in (*match, *probe)}
    class_names = [str(person) for person in sorted(set(persons.values()))]

    def part(files: Files) -> Source:
        return NumberedFaces("tinyface", root, files, [str(persons[key]) for key in files], class_names)

    found = {"gallery": part(match), "probes": part(probe)}
    if (root / DISTRACTOR).is_dir():
        files, name = _files(root, DISTRACTOR), "distractor"
        found["distractors"] = NumberedFaces("tinyface", root, files, [name] * len(files), [name])
    return found


def _roots(path: Path) -> list[Path]:
    """Return the folders that hold a whole TinyFace: `path` itself, else its aligned ones, else Testing_Set."""
    for candidates in ([path], sorted(path.glob("aligned_*")), [path / "Testing_Set"]):
        if found := [folder for folder in candidates if (folder / MATCH).is_dir()]:
            return found
    return []


def _files(root: Path, folder: str) -> Files:
    return images_below(root, folder, f"TinyFace has {MATCH}, {PROBE} and {DISTRACTOR} side by side")
