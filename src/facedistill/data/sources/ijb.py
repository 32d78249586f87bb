"""IJB-B and IJB-C as insightface distributes them: loose crops, landmarks, templates, and lists of comparisons.

A template is a set of images and video frames of one person; a medium is one image, or one video.
"""

import codecs
import csv
import io
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from facedistill.data.align import align
from facedistill.data.decode import decode
from facedistill.data.sources.reading import read_file
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import MISSING, size_and_time
from facedistill.errors import UserError
from facedistill.files import fingerprint

LANDMARKS = "name_5pts_score.txt"
BLOCK_BYTES = 1 << 22  # bytes of the pair list at a time
SPACE, NEWLINE = b" \n"


def is_ijb(path: str | Path) -> bool:
    """Return True for a folder with meta/ijbb_name_5pts_score.txt or its counterpart of IJB-C."""
    return any(_landmark_files(Path(path)))


class IjbSource(Source):
    """The images of PATH/loose_crop in the order of the lists in PATH/meta; `read` aligns them by the given landmarks.

    The lists give no identity per image, so a class is a template, named by its id.

    Attributes:
        name: "ijbb" or "ijbc", the prefix of the lists' names.
        points: float32 (N, 5, 2), landmarks in pixels of the crop; detector_score: float32 (N,).
        template, media: int64 (N,), ids.

    Raises:
        UserError: a list is missing or has a malformed line, or the two lists of images differ.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.folder = str(path), Path(path)
        found = _landmark_files(self.folder)
        if len(found) != 1:
            raise UserError(f"{path}: {len(found)} files meta/ijb[bc]_{LANDMARKS}; expected one, beside loose_crop")
        self.name = found[0].name[: -len(LANDMARKS) - 1]
        self.keys, numbers = _images(found[0], "name x1 y1 ... x5 y5 score", 11, float)
        self.points = numbers[:, :10].reshape(-1, 5, 2).astype(np.float32)
        self.detector_score = numbers[:, 10].astype(np.float32)
        belongs = self._list("face_tid_mid.txt")
        names, numbers = _images(belongs, "name template media", 2, int)
        _stop_if_different(found[0], self.keys, belongs, names)
        self.template, self.media = numbers.T.copy()
        templates, labels = np.unique(self.template, return_inverse=True)
        self.class_names, self.labels = [str(t) for t in templates], labels.astype(np.int64)
        sizes, times = self._files().T
        lists = (self.points, self.detector_score, self.template, self.media, sizes)
        self.fingerprint = fingerprint(self.name, "\0".join(self.keys), *lists)
        self.stamp = fingerprint(times)

    def read(self, i: int) -> np.ndarray:
        return align(decode(read_file(self.folder / "loose_crop" / self.keys[i])), self.points[i])

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield blocks of the 1:1 list: two template ids, int64 (B,) each, and whether they are one person, bool (B,).

        A pair that is listed twice is yielded twice.
        """
        path = self._list("template_pair_label.txt")
        with _open(path) as f:
            lines = 0
            while block := f.read(BLOCK_BYTES) + f.readline():
                first, second, label = _triples(path, block, lines)
                wrong = np.flatnonzero((label != 0) & (label != 1))
                if len(wrong):
                    raise UserError(f"{path}, line {lines + wrong[0] + 1}: label {label[wrong[0]]}; expected 1 or 0")
                yield first, second, label == 1
                lines += len(label)

    def galleries(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Return the existing 1:N galleries: name ("G1"), template ids, int64 (G,), and their subjects, str (G,)."""
        files = sorted((self.folder / "meta").glob(f"{self.name}_1N_gallery_*.csv"))
        return [(path.stem.rpartition("_")[2], *_subjects(path)) for path in files]

    def probes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the 1:N probes: template ids, int64 (P,), and their subjects, str (P,)."""
        return _subjects(self._list("1N_probe_mixed.csv"))

    def _list(self, name: str) -> Path:
        return self.folder / "meta" / f"{self.name}_{name}"

    def _files(self) -> np.ndarray:
        """Return the size and time of every image file, int64 (N, 2)."""
        try:
            files = {entry.name: size_and_time(entry) for entry in os.scandir(self.folder / "loose_crop")}
        except OSError as e:
            raise UserError(f"{e.filename}: {e.strerror}; expected the images of {self.name}_{LANDMARKS}") from e
        return np.array([files.get(key, MISSING) for key in self.keys], dtype=np.int64).reshape(-1, 2)


def _landmark_files(folder: Path) -> list[Path]:
    return sorted((folder / "meta").glob(f"ijb[bc]_{LANDMARKS}"))


def _open(path: Path) -> BinaryIO:
    """Open a list after its byte-order mark, if it has one."""
    try:
        f = open(path, "rb")  # noqa: SIM115 - the caller closes it
        if f.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            f.seek(0)
        return f
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}; expected the lists of insightface's IJB release in meta") from e


def _images(path: Path, form: str, width: int, number: type[int] | type[float]) -> tuple[list[str], np.ndarray]:
    """Return the names at the start of the lines, and the `width` numbers after them, (N, width)."""
    names: list[str] = []
    numbers: array = array("d" if number is float else "q")
    with _open(path) as f:
        for count, line in enumerate(f, start=1):
            try:
                name, *rest = line.split()
                numbers.extend(map(number, rest))
                names.append(name.decode())
                if len(numbers) != count * width:
                    raise ValueError
            except (ValueError, OverflowError):
                raise UserError(f"{path}, line {count}: {_text(line)}; expected {form}") from None
    found = np.array(numbers).reshape(-1, width)
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(wrong):
        raise UserError(f"{path}, line {wrong[0] + 1}: a number that is not finite; expected {form}")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"{path}: image {twice} is listed twice; expected every image once")
    return names, found


def _stop_if_different(a: Path, names_a: list[str], b: Path, names_b: list[str]) -> None:
    if names_a == names_b:
        return
    same = next((i for i, pair in enumerate(zip(names_a, names_b, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        raise UserError(f"{b}: {len(names_b)} images, and {len(names_a)} in {a.name}; expected the same ones")
    raise UserError(
        f"{b}, line {same + 1}: image {names_b[same]}, and {names_a[same]} in {a.name}; expected the same order in both"
    )


def _triples(path: Path, block: bytes, lines: int) -> np.ndarray:
    """Parse whole lines of three integers, int64 (3, B). `lines` is the number of lines before, for messages."""
    text = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", np.uint8)
    gaps = text[text <= SPACE]
    digits = np.count_nonzero((text >= ord("0")) & (text <= ord("9")))
    plain = len(gaps) % 3 == 0 and len(gaps) + digits == len(text)
    if plain and (gaps.reshape(-1, 3) == [SPACE, SPACE, NEWLINE]).all():
        numbers = np.fromstring(block, np.int64, sep=" ")
        if len(numbers) == len(gaps):
            return numbers.reshape(-1, 3).T
    rows = []  # the block has tabs, carriage returns or a mistake
    for count, line in enumerate(block.splitlines(), start=lines + 1):
        try:
            first, second, label = map(_whole, line.split())
        except ValueError:
            raise UserError(f"{path}, line {count}: {_text(line)}; expected template template label") from None
        rows.append((first, second, label))
    return np.array(rows, dtype=np.int64).T


def _subjects(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct templates and their subjects in a table with the columns TEMPLATE_ID and SUBJECT_ID."""
    found: dict[int, str] = {}
    with io.TextIOWrapper(_open(path), "utf-8-sig", "replace", newline="") as f:
        reader = csv.reader(f)
        header = [name.strip().upper() for name in next(reader, [])]
        if not {"TEMPLATE_ID", "SUBJECT_ID"} <= set(header):
            raise UserError(f"{path}: columns {', '.join(header)}; expected TEMPLATE_ID and SUBJECT_ID among them")
        template, subject = header.index("TEMPLATE_ID"), header.index("SUBJECT_ID")
        for row in filter(None, reader):
            try:
                key, name = _whole(row[template]), row[subject].strip()
            except (ValueError, IndexError):
                raise UserError(
                    f"{path}, line {reader.line_num}: {','.join(row)}; expected {','.join(header)}"
                ) from None
            if found.setdefault(key, name) != name:
                raise UserError(
                    f"{path}, line {reader.line_num}: template {key} has subject {name} here, and {found[key]} before; "
                    "expected one subject per template"
                )
    return np.array(list(found), dtype=np.int64), np.array(list(found.values()), dtype=str)


def _whole(text: str | bytes) -> int:
    """Return a whole number. Raises ValueError if it is none, or has more than 63 bits."""
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} is too large")
    return number


def _text(line: bytes) -> str:
    return repr(line.strip()[:80].decode(errors="replace"))
