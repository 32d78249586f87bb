"""What every form shares: which names are a person's own files, and reading files and lists of text."""

import csv
import io
import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from facedistill.errors import UserError, some

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".heic", ".heif", ".avif"),
)
# What macOS, Windows, NAS boxes and file systems put beside a person's files.
SYSTEM = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "#recycle", "$recycle.bin", "system volume information"}
SYSTEM |= {"lost+found"}
YES_OR_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte-order marks
PART = re.compile(r"(?P<name>.+)-(?P<part>\d+)-of-(?P<parts>\d+)(?P<rest>.*)")
SPLIT = re.compile(r"(train|validation|valid|val|dev|test|eval)(?:[-_.]?\d+)?")


def is_hidden(name: str) -> bool:
    """Return True if any part of a path is hidden, or is made by the system and never by a person."""
    return any(
        part.lower() in SYSTEM or (part.startswith(".") and part not in (".", ".."))
        for part in name.replace(os.sep, "/").split("/")
    )


def is_image(name: str) -> bool:
    """Return True for the path of a file that has an image's extension and is not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def read_file(path: str | os.PathLike) -> bytes:
    """Return the content of a regular file. Raises OSError for anything else: a pipe or a device may never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{os.fspath(path)} is not a regular file")
    with open(path, "rb") as f:
        return f.read()


def read_text(path: str | os.PathLike, expected: str = "expected text in UTF-8", errors: str = "strict") -> str:
    """Return a text file's content without its byte-order mark: UTF-8, or UTF-16 if it has the mark of that.

    Raises UserError if it cannot be read.
    """
    try:
        data = read_file(path)
        code = next((code for mark, code in MARKS.items() if data.startswith(mark)), "utf-8")
        return data.decode(code, errors)
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text (byte {e.start}: {e.reason}); {expected}") from e
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; {expected}") from e


def read_lines(
    path: str | os.PathLike, expected: str = "expected one name a line", errors: str = "strict"
) -> list[str]:
    """Return the lines of a text file, of any system, without empty ones at its end."""
    lines = read_text(path, expected, errors).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_table(path: str | os.PathLike, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row of a CSV that is not empty, without empty cells at its end.

    The delimiter is a comma, a tab or a semicolon. Raises UserError if the file is no such text.
    """
    text = read_text(path, expected)
    first = next(filter(str.strip, text.splitlines()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max("\t;,", key=first.count))
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                yield reader.line_num, cells
    except csv.Error as e:
        raise UserError(f"{path}, line {reader.line_num}: {e}; {expected}") from e


def read_headed(path: str | os.PathLike, expected: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the header of a CSV, and an iterator of its rows with their line numbers; an empty file has neither.

    Raises UserError if two columns have the same name; the iterator, if a row has more cells than there are columns.
    """
    table = read_table(path, expected)
    _, header = next(table, (0, []))
    if twice := next((name for name in header if name and header.count(name) > 1), None):
        raise UserError(f"{path}: two columns are called {twice!r}; give each another name")

    def rows() -> Iterator[tuple[int, list[str]]]:
        for line, cells in table:
            if len(cells) > len(header):
                raise UserError(f"{path}, line {line}: {len(cells)} cells for {len(header)} columns; {expected}")
            yield line, cells

    return header, rows()


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the files in `folder` that match, without hidden ones, in the order of their names."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path.name))


def shards(path: str | Path, pattern: str) -> list[Path]:
    """Return the file `path` itself, or the files of a set in the folder `path`.

    Raises UserError if the folder holds several splits, or a part of `NAME-00000-of-00002` is missing.
    """
    if os.path.isfile(path):
        return [Path(path)]
    files = files_in(Path(path), pattern)
    names = [file.name.removesuffix("".join(PurePosixPath(file.name).suffixes[-1:])) for file in files]
    found = [match for name in names if (match := PART.fullmatch(name))]
    splits = {match["name"] for match in found} | {m[1] for name in names if (m := SPLIT.fullmatch(name))}
    if len(splits) > 1:
        raise UserError(
            f"{path}: holds several splits ({', '.join(sorted(splits))}); name one file, or put the files of one split "
            "into a folder of their own"
        )
    for parts in sorted({match["parts"] for match in found}):
        _stop_if_one_is_missing(path, [match for match in found if match["parts"] == parts])
    return files


def _stop_if_one_is_missing(path: str | Path, there: list[re.Match[str]]) -> None:
    """Raise UserError if the files `there` are not all parts of the number that their names give."""
    one, numbers = there[0], {int(match["part"]) for match in there}
    count = int(one["parts"])
    if len(numbers) < len(there):
        raise UserError(f"{path}: a part of {one['name']}-*-of-{one['parts']} is there twice; remove the older ones")
    first = 1 if 0 not in numbers and count in numbers else 0  # some programs count from 1
    absent = (part for part in range(first, first + count) if part not in numbers)
    if missing := [f"{one['name']}-{part:0{len(one['part'])}}-of-{one['parts']}" for part in islice(absent, 4)]:
        raise UserError(
            f"{path}: {len(numbers):,} of {count:,} parts are there; missing: {some(missing)}; add what is missing, or "
            "name one file"
        )
