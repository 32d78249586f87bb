"""What an .npz announces, compared with what it holds, before memory is taken for it."""

import math
import os
import zipfile
from pathlib import Path

import numpy as np


def stop_if_larger(path: str | Path, most_compressed: int) -> None:
    """Raise ValueError if the arrays of an .npz announce more than it holds: numpy takes memory for that.

    `most_compressed`: the most times that they may be larger than the file.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        announced, there = sum(member.file_size for member in members), os.path.getsize(path)
        if announced > most_compressed * there:
            raise ValueError(f"{announced:,} bytes announced by a file of {there:,} bytes")
        for member in members:
            with archive.open(member) as file:
                major, minor = np.lib.format.read_magic(file)
                read_header = getattr(np.lib.format, f"read_array_header_{major}_{minor}")
                shape, _, dtype = read_header(file)
                if dtype.hasobject:
                    raise ValueError(
                        f"{member.filename} holds Python objects, which are never unpickled; "
                        "save text by array.astype(str)"
                    )
                size = math.prod(shape) * dtype.itemsize + file.tell()
            if size != member.file_size:
                raise ValueError(
                    f"{member.filename}: shape {shape} needs {size:,} bytes, {member.file_size:,} are there"
                )
