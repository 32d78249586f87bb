"""The verb hallucinate: train, compose, and write faces, from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from facedistill.cli import main
from facedistill.hallucination.fhn import PRESETS, Preset
from facedistill.models import load_model
from tiny_world import Tiny

DATA = "data.train=synthetic:identities=4,images=2,size=32,seed=1,priors=true"
SHORT = [DATA, "data.hold_out=0", "schedule.epochs=1", "schedule.batch=4", "hallucination.size=32"]


def run(*words: object) -> None:
    try:
        main([str(word) for word in words])
    except SystemExit as e:  # a verb that is done, too
        if e.code:
            raise


def test_from_a_shipped_recipe_to_a_composed_model(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", Preset(4, 1, 1))
    out = tmp_path / "fhn"
    for stage in ("priors", "pairs"):
        run("hallucinate", "train", "fhn", "--out", out, "--stage", stage, "--json", tmp_path / "r.json", *SHORT)
        told = capsys.readouterr().out
        assert f"stage {stage}, 8 training images" in told and "is an invention, and no evidence" in told
        assert json.loads((tmp_path / "r.json").read_text())["stage"] == stage
    run("hallucinate", out, tiny.photos, "--out", tmp_path / "faces")
    told = capsys.readouterr().out
    assert "72 faces of 32 x 32 pixels are in" in told and "no evidence of anything" in told
    assert len(list((tmp_path / "faces").rglob("*.png"))) == 72
    run("hallucinate", "compose", out, tiny.student, "--out", tmp_path / "model")
    assert "32 x 32 pixels -> 16 dimensions" in capsys.readouterr().out
    assert load_model(tmp_path / "model").space == load_model(tiny.teacher).space


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "fhn", "--out", "x", "--stage", "pears"], 2, "pears"),
        (["train", "proxylesskd", "--out", "x"], 2, "schedule.optimizer=sgd; set schedule.optimizer=adamw"),
        (["train", "fhn", "--out", "x", "--stage", "adversarial", *SHORT], 2, "needs a finished x/pairs"),
        (
            ["train", "fhn", "--out", "x", *SHORT, "hallucination.priors=none"],
            1,
            "hallucination.priors none: no such fol",
        ),
        (["none", "photos", "--out", "x"], 1, "none/fhn.safetensors: cannot be read"),
        (["compose", "none", "run", "--out", "x"], 1, "expected a hallucination network, fhn.safetensors"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run("hallucinate", *words)
    told: Any = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == code and message in told[-1]
    assert sum(line.startswith("facedistill:") for line in told) == 1
