"""Reading genotypes: what is no pair of cells is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from facedistill.backbones import GENOTYPES, genotype_from, read_genotype
from facedistill.errors import UsageError, UserError


def published() -> dict[str, Any]:
    return GENOTYPES["pocketnet"].to_json()


def test_a_genotype_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(published()))
    assert read_genotype(str(file)) == GENOTYPES["pocketnet"] == read_genotype("pocketnet")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"genotype 'pocketnets' \(did you mean 'pocketnet'\?\): expected a file, or"):
        read_genotype("pocketnets")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2", b"[" * 100_000])
def test_no_json(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cells.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"cells\.json: no JSON"):
        read_genotype(str(file))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((), [], r"expected the cells 'normal' and 'reduce', found \[\]"),
        ((), {"normal": []}, "expected the cells 'normal' and 'reduce'"),
        (("normal",), [], "cell 'normal': expected 4 nodes, found 0"),
        (("reduce",), None, "cell 'reduce': expected 4 nodes, found None"),
        (("normal", 1), [["skip_connect", 0]], "cell 'normal', node 3: expected 2 edges, found 1"),
        (("normal", 1), "ab", "node 3: expected 2 edges, found 'ab'"),
        (("normal", 1, 0), "skip_connect", r"expected an edge \[operation, state\], found 'skip_connect'"),
        (("normal", 1, 0), ["skip_conect", 0], r"unknown operation 'skip_conect' \(did you mean 'skip_connect'\?\)"),
        (("normal", 1, 0), ["none", 0], "unknown operation 'none'"),
        (("normal", 1, 0), [7, 0], "unknown operation 7"),
        (("normal", 1, 0), [["skip_connect"], 0], "unknown operation"),
        (("reduce", 1, 0), ["skip_connect", 3], "node 3: an edge reads state 3, but only states 0 to 2 come before"),
        (("reduce", 0, 1), ["skip_connect", 5], "node 2: an edge reads state 5, but only states 0 to 1"),
        (("reduce", 0, 1), ["skip_connect", -1], "reads state -1"),
        (("reduce", 0, 1), ["skip_connect", 1.0], "reads state 1.0"),
        (("reduce", 0, 1), ["skip_connect", True], "reads state True"),
    ],
)
def test_what_is_no_genotype(place: tuple, value: Any, message: str) -> None:
    content: Any = published()
    if not place:
        content = value
    else:
        *path, last = place
        inner = content
        for part in path:
            inner = inner[part]
        inner[last] = value
    with pytest.raises(UserError, match=message):
        genotype_from(content)
