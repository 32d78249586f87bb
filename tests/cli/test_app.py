"""The last handler: every error is one line, whatever it is; what an answer goes to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from facedistill.cli.app import answer, app, main
from facedistill.errors import UserError


def _raising(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple:
    """The exit code and stderr of a verb that raises `error`."""

    def verb(*_: Any) -> None:
        raise error

    monkeypatch.setattr("facedistill.cli.listing.listing", verb)
    with pytest.raises(SystemExit) as ended:
        main(["list", "methods"])
    found = capsys.readouterr()
    assert found.err.count("\n") == 1 and "Traceback" not in found.err and not found.out
    return ended.value.code, found.err.strip()


def test_an_unexpected_error_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, line = _raising(monkeypatch, capsys, KeyError("Andr\udce9\n\x1b[2J"))
    (file,) = tmp_path.iterdir()
    assert code == 1 and line.startswith("facedistill: unexpected KeyError: ") and line.endswith(str(file))
    assert "\x1b" not in line
    text = file.read_text()
    assert "Traceback (most recent call last)" in text and "in verb" in text and file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "facedistill: stopped"),
        (MemoryError(), 1, "facedistill: out of memory; use smaller batches"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), 1, "out of memory;"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), 1, "out of memory;"),
        (RuntimeError("DataLoader worker (pid(s) 71) exited unexpectedly"), 1, "data.workers=0"),
        (UserError("photos/a\x1b]0;x\x07.jpg: broken"), 1, r"facedistill: photos/a\x1b]0;x\x07.jpg: broken"),
        (PermissionError(13, "Permission denied", "b\x9bx"), 1, r"facedistill: b\x9bx: Permission denied"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_known_errors_say_what_to_do(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, line = _raising(monkeypatch, capsys, error)
    assert found == code and words in line


def test_what_torch_really_says_when_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**52)
    assert "out of memory; use smaller batches" in _raising(monkeypatch, capsys, caught.value)[1]


def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    arguments = ["train", "scratch", "--out", str(tmp_path / "run"), "data=synthetic:identities=300,images=50,size=48"]
    process = subprocess.Popen(
        [sys.executable, "-m", "facedistill", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"FACEDISTILL_CACHE": str(tmp_path / "cache")},
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a job in the background ignores it
    )
    until = time.monotonic() + 120
    while not (tmp_path / "run" / "recipe.yaml").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and error.splitlines()[-1] == "facedistill: stopped", error
    assert "Traceback" not in error and "Exception ignored" not in error


def test_json_to_a_dash_is_all_that_stdout_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer("a table\x07", Path("-"), {"a": 1})
    found = capsys.readouterr()
    assert json.loads(found.out) == {"a": 1} and found.err == "a table\\x07\n"
    answer("a table", tmp_path / "r.json", {"a": 1})
    assert capsys.readouterr().out == "a table\n" and json.loads((tmp_path / "r.json").read_text()) == {"a": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "nowhere", "--data", "d", "--json"],
        ["evaluate", "nowhere", "--on", "d", "--json"],
        ["evaluate", "nowhere", "--on", "d", "--report"],
        ["compare", "nowhere", "--json"],
        ["import", "nowhere.onnx", "--out"],
        ["embed", "nowhere", "d", "--out"],
        ["export", "nowhere", "--to", "onnx", "--out"],
        ["bench", "nowhere", "--report"],
        ["train", "scratch", "--out"],
        ["distill", "--teacher", "nowhere", "--data", "d", "--out"],
        ["sweep", "scratch", "--out"],
        ["demo", "--out"],
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, str(tmp_path / "file" / "x.npz")])
    assert ended.value.code == 1
    assert f"cannot write {tmp_path / 'file' / 'x.npz'}: Not a directory" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        f"{sys.executable} -m facedistill list methods | true", shell=True, stderr=subprocess.PIPE, text=True
    )
    error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error and "Exception ignored" not in error


def test_every_verb_with_an_output_checks_it() -> None:
    """A new verb's --out, --json and --report are one of the types that look first."""
    for name in (n for n in app if not n.startswith("-")):
        for argument in app[name].assemble_argument_collection():
            if argument.name in ("--out", "--json", "--report"):
                assert argument.parameter.validator, f"{name} {argument.name}"
