"""A hundred mutants of every format that is read fast, two of the others, in children with limits; more: `make fuzz`.

What once failed is kept as a test beside the module that it is about.
"""

import json
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from facedistill.errors import UserError
from facedistill.recipe import load_recipe
from fuzz.children import Corpus, Outcome
from fuzz.corpus import FORMATS, Format
from fuzz.mutants import CANARY, CODE, mutant, rearranged

MANY, FEW = 100, 2


@pytest.mark.parametrize("name", FORMATS)
def test_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    corpus = Corpus(name, form, tmp_path)
    found = dict(corpus.run(range(MANY if form.weight > 5 else FEW)))
    wrong = {number: outcome for number, outcome in found.items() if outcome.kind not in ("accepted", "refused")}
    assert not wrong and found


def _believing(read: object) -> Format:
    """A format whose reader is not ours: what the harness says of bad readers."""
    return Format(lambda folder: (folder / "x.bin").write_bytes(bytes(range(256))), read, ("x.bin",), "refused")  # type: ignore[arg-type]


def _starts(folder: Path) -> object:
    import subprocess

    data = (folder / "x.bin").read_bytes()
    return data if data == bytes(range(256)) else subprocess.run(["true"])


def _leaves(folder: Path) -> object:
    if (folder / "x.bin").read_bytes() != bytes(range(256)):
        (folder / CANARY).touch()
    return 0


def _dies(folder: Path) -> object:
    import os
    import signal

    if (folder / "x.bin").read_bytes() != bytes(range(256)):
        os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def _hangs(folder: Path) -> object:
    if (folder / "x.bin").read_bytes() != bytes(range(256)):
        time.sleep(60)
    return 0


def _grows(folder: Path) -> object:
    if (folder / "x.bin").read_bytes() != bytes(range(256)):
        return len(np.ones(3 << 30, np.uint8))
    return 0


def _raises(folder: Path) -> object:
    return (folder / "x.bin").read_bytes().index(bytes(range(256)))


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (_starts, "code run"),
        (_leaves, "code run"),
        (_dies, "crash"),
        (_hangs, "hang"),
        (_grows, "memory"),
        (_raises, "traceback"),
        (lambda folder: (folder / "x.bin").read_bytes(), "silent"),
    ],
)
def test_the_harness_sees_every_kind_of_fault(read: object, kind: str, tmp_path: Path) -> None:
    found = list(Corpus("bad", _believing(read), tmp_path).run(range(2), seconds=0.5 if kind == "hang" else 30))
    assert [outcome.kind for _, outcome in found] == [kind, kind]
    assert [number for number, _ in found] == [0, 1]


def test_a_reader_that_refuses_everything_is_told_apart(tmp_path: Path) -> None:
    def refuses(folder: Path) -> object:
        raise UserError("no")

    with pytest.raises(AssertionError, match="the valid files are not read"):
        next(Corpus("bad", _believing(refuses), tmp_path).run(range(1)))
    assert Outcome("refused", "no").kind == "refused"


def test_a_number_is_always_the_same_mutant_and_never_the_file_itself(tmp_path: Path) -> None:
    for name in ("recipe", "tar", "image"):
        corpus = Corpus(name, FORMATS[name], tmp_path / name)
        mutants = [corpus.mutant(number) for number in range(40)]
        assert mutants == [corpus.mutant(number) for number in range(40)]
        assert all(content != corpus.files[file] for file, content in mutants)
        assert len({content for _, content in mutants}) > 35


def test_some_mutants_carry_code() -> None:
    carried = [mutant("a.bin", bytes(range(200)), Random(n), {"a.bin": bytes(99)}) for n in range(400)]
    assert all(any(code[:12] in content for content in carried) for code in CODE)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_a_recipe_of_any_structure_is_read_or_refused(random: Random) -> None:
    """Hypothesis chooses the changes, and makes what fails small."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        FORMATS["recipe"].make(Path(folder))
        file = Path(folder) / "recipe.yaml"
        file.write_text(json.dumps(rearranged(json.loads(file.read_text()), random)))
        try:
            load_recipe(str(file))
        except UserError as e:
            assert "\n" not in str(e)
