"""The pairs.txt of LFW, XQLFW and other sets in LFW's form, with the images beside it.

The first line has the number of folds and of pairs of each kind in a fold ("10 300"), or that number alone. Then, fold
by fold, the pairs of one person, "name 1 4", and the pairs of two, "name 1 other 2", between tabs or spaces. Image 4 of
a person is name/name_0004.jpg.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facedistill.data.sources.pair_list import PairList
from facedistill.data.sources.reading import IMAGE_SUFFIXES, is_hidden, read_lines
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError, some

EXPECTED = 'expected the pairs.txt of LFW or XQLFW: "10 300", then "name 1 4" or "name 1 other 2" on each line'
Image = tuple[str, int]  # a person and a number


class LfwPairs(PairList):
    """Pairs of images in the order of a pairs.txt, whose folds are positional. Keys: "name/name_0004.jpg"."""

    expected = "LFW's pairs.txt"
    suffixes = ()

    @classmethod
    def opens(cls, path: Path) -> bool:
        return path.is_file() and path.name.lower().endswith("pairs.txt")

    @classmethod
    def open(cls, argument: str) -> PairList:
        return load_lfw_pairs(argument)


def load_lfw_pairs(path: str | Path) -> PairList:
    """Read a pairs.txt. The images are in its folder, or in a folder there, whatever that is called.

    Raises:
        UserError: names the line that is no pair; says which image is missing, in which folders the images could be,
            or how many pairs the first line promises.
    """
    path = Path(path)
    pairs = list(_pairs(path))
    images = list(dict.fromkeys(image for pair in pairs for image in pair))
    root, ending = _found(path, images[0])
    files = {}
    for person, number in images:
        key = f"{_stem(person, number)}{ending}"
        if not os.path.isfile(root / key):
            raise UserError(f"{path}: no image {root / key}; is the folder whole?")
        files[key] = size_and_time(root / key)
    place = {image: i for i, image in enumerate(images)}
    numbers = np.array([[place[a], place[b]] for a, b in pairs], dtype=np.int64)
    same = np.array([a[0] == b[0] for a, b in pairs])
    found = LfwPairs(path, files, numbers, same, [person for person, _ in images])
    found.folder = root
    return found


def _pairs(path: Path) -> Iterator[tuple[Image, Image]]:
    """Yield the pairs of the file, whose number the first line has to promise."""
    lines = [line.split() for line in read_lines(path, EXPECTED)]
    head = lines[0] if lines else []
    if len(head) not in (1, 2) or not all(map(_is_number, head)):
        raise UserError(f"{path}, line 1: '{' '.join(head)[:60]}'; {EXPECTED}")
    promised = 2 * int(np.prod([int(number) for number in head]))
    count = 0
    for line, cells in enumerate(lines[1:], 2):
        if not cells:
            continue
        numbers = cells[1:] if len(cells) == 3 else cells[1::2]
        if len(cells) not in (3, 4) or not all(map(_is_number, numbers)):
            raise UserError(f"{path}, line {line}: '{' '.join(cells)[:60]}'; {EXPECTED}")
        other = cells[0] if len(cells) == 3 else cells[2]
        yield (cells[0], int(cells[1])), (other, int(cells[-1]))
        count += 1
    if count != promised or not count:
        raise UserError(f"{path}: {count} pairs, but the first line promises {promised}; is the file whole?")


def _found(path: Path, image: Image) -> tuple[Path, str]:
    """Return the folder of the persons' folders, and the ending of the images' names, where the first image lies."""
    below = sorted(folder for folder in path.parent.iterdir() if folder.is_dir() and not is_hidden(folder.name))
    stem = _stem(*image)
    found = {
        root: suffix
        for root in (path.parent, *below)
        for suffix in IMAGE_SUFFIXES
        if os.path.isfile(root / f"{stem}{suffix}")
    }
    if not found:
        raise UserError(f"{path}: no image {stem}.jpg in its folder or in a folder there; put the images beside it")
    if len(found) > 1:
        raise UserError(
            f"{path}: its images are in several folders ({some([root.name for root in found])}); leave one beside it"
        )
    return next(iter(found.items()))


def _stem(person: str, number: int) -> str:
    return f"{person}/{person}_{number:04}"


def _is_number(cell: str) -> bool:
    return cell.isascii() and cell.isdigit() and len(cell) < 10
