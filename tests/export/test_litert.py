"""A .tflite file embeds as the model does, in LiteRT itself, and says what it is.

The tiny student was trained for a second, on 72 photos, and loses more in int8 than the gate allows; docs/export.md has
the figures of the demo's student, which passes.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from facedistill.errors import UserError
from facedistill.export import TARGETS, export_model
from facedistill.models import facts_of, load_model
from tiny_world import Tiny

HERE = "the extra 'litert' is not installed"


def require_packages() -> None:
    pytest.importorskip("litert_torch", reason=HERE)
    pytest.importorskip("ai_edge_quantizer", reason=HERE)


@pytest.mark.parametrize("form", [{"precision": "int8", "layout": "nhwc"}, {"precision": "fp16", "pixels": "float32"}])
def test_a_file_embeds_as_the_model_and_says_what_it_is(
    tiny: Tiny, tmp_path: Path, form: dict[str, Any], capfd: pytest.CaptureFixture
) -> None:
    require_packages()
    capfd.readouterr()
    made = export_model(tiny.student, "litert", tmp_path / "s.tflite", calibrate=tiny.photos, **form)
    assert made.gate.mean_cosine > (0.95 if form["precision"] == "int8" else 0.9999), made.gate.text()
    facts = facts_of(TARGETS["litert"]().facts(made.path), made.path)
    model = load_model(tiny.student)
    assert facts is not None and facts.precision == form["precision"] and facts.input.size == 32
    assert (facts.space, facts.model, facts.macs) == (model.space, model.fingerprint(), model.macs())
    said = capfd.readouterr()
    assert "LiteRT" not in said.out + said.err and "INFO" not in said.err  # what its converter prints


def test_a_missing_package_names_the_command(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "litert_torch" else sys)
    with pytest.raises(UserError, match=r"needs the package 'litert_torch'; pip install 'facedistill\[litert\]'"):
        export_model(tiny.student, "litert", tmp_path / "s.tflite")
