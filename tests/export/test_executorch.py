"""A .pte file embeds as the model does, in ExecuTorch itself, and says what it is. See test_litert.py on int8."""

import sys
from pathlib import Path

import pytest

from facedistill.errors import UsageError, UserError
from facedistill.export import TARGETS, export_model
from facedistill.models import facts_of, load_model
from tiny_world import Tiny


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_embeds_as_the_model_and_says_what_it_is(
    tiny: Tiny, tmp_path: Path, precision: str, capfd: pytest.CaptureFixture
) -> None:
    pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
    capfd.readouterr()
    made = export_model(
        tiny.student,
        "executorch",
        tmp_path / "s.pte",
        precision=precision,  # type: ignore[arg-type]
        calibrate=tiny.photos,
        batch=2,
    )
    assert made.gate.mean_cosine > (0.95 if precision == "int8" else 0.9999), made.gate.text()
    facts = facts_of(TARGETS["executorch"]().facts(made.path), made.path)
    model = load_model(tiny.student)
    assert facts is not None and (facts.precision, facts.batch) == (precision, 2)
    assert (facts.space, facts.model, facts.macs) == (model.space, model.fingerprint(), model.macs())
    assert not [line for line in capfd.readouterr().err.splitlines() if "cpuinfo" in line or "Warning" in line]


def test_half_precision_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="executorch cannot write fp16; it writes fp32, int8"):
        export_model(tiny.student, "executorch", tmp_path / "s.pte", precision="fp16")


def test_a_missing_package_names_the_command(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "executorch" else sys)
    with pytest.raises(UserError, match=r"needs the package 'executorch'; pip install 'facedistill\[executorch\]'"):
        export_model(tiny.student, "executorch", tmp_path / "s.pte")
