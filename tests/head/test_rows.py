"""Rows of a frozen W: storage, shares, files that stay on disk."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UserError
from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.head.frozen_softmax import FrozenMarginSoftmax
from facedistill.head.margins import ArcFace
from facedistill.head.rows import Rows, Stored, load_rows, quantise, save_rows, share
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import Model


def _weight(classes: int = 10, dim: int = 8) -> torch.Tensor:
    return F.normalize(torch.randn(classes, dim), dim=1)


def test_int8_rows_are_near_the_originals() -> None:
    weight = _weight(100, 512)
    rows = quantise(weight)
    assert rows.values.dtype == torch.int8 and rows.values.abs().max() == 127
    back = rows.of(torch.arange(100))
    assert rows.scales is not None
    assert (back - weight).abs().max() <= rows.scales.max() / 2 + 1e-7
    assert F.cosine_similarity(back, weight).min() > 0.9999


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_a_block_in_the_buffers_type(kind: str) -> None:
    weight = _weight()
    rows = {"float32": Rows(weight), "bfloat16": Rows(weight.bfloat16()), "int8": quantise(weight)}[kind]
    for dtype in (torch.float32, torch.bfloat16):
        block = rows.read(4, 99, torch.empty(16, 8, dtype=dtype))
        assert block.dtype == dtype and len(block) == 6
        torch.testing.assert_close(block.float(), weight[4:], rtol=0.02, atol=0.01)
    if kind != "int8":
        stored = rows.read(4, 6, torch.empty(16, 8, dtype=rows.values.dtype))
        assert stored.data_ptr() == rows.values[4:].data_ptr()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_a_file_is_mapped_not_read(kind: str, tmp_path: Path) -> None:
    weight = _weight(64, 512)
    rows = {"float32": Rows(weight), "bfloat16": Rows(weight.bfloat16()), "int8": quantise(weight)}[kind]
    save_rows(rows, tmp_path / "w.safetensors")
    found = load_rows(tmp_path / "w.safetensors")
    assert torch.equal(found.values, rows.values) and (found.total, found.dim, found.sharded) == (64, 512, False)
    torch.testing.assert_close(found.scales, rows.scales)
    maps = Path("/proc/self/maps")
    if maps.exists():
        at = found.values.data_ptr()
        ranges = (line.split() for line in maps.read_text().splitlines() if "w.safetensors" in line)
        assert any(int(r[0].split("-")[0], 16) <= at < int(r[0].split("-")[1], 16) for r in ranges)


def test_each_process_maps_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = _weight(11)
    save_rows(Rows(weight), tmp_path / "w.safetensors")
    monkeypatch.setattr(parallel, "world", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(load_rows(tmp_path / "w.safetensors"))
    assert [len(p) for p in parts] == [4, 4, 3] and [p.first for p in parts] == [0, 4, 8]
    assert all(p.sharded and p.total == 11 for p in parts)
    assert torch.equal(torch.cat([p.values for p in parts]), weight)


@given(st.integers(0, 1000), st.integers(1, 16))
def test_shares_cover_all_classes_once(classes: int, world: int) -> None:
    shares = [share(classes, rank, world) for rank in range(world)]
    assert [c for s in shares for c in s] == list(range(classes))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_head_takes_rows_and_classifiers() -> None:
    classifier = Classifier(torch.randn(5, 8), list("abcde"))
    x, labels = torch.randn(4, 8), torch.tensor([0, 1, 4, 4])
    losses = [FrozenMarginSoftmax(c, ArcFace())(x, labels) for c in (classifier, Rows(classifier.weight))]
    assert torch.equal(*losses)


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torch.float16 of shape \[2, 3\]"):
        Rows(torch.zeros(2, 3, dtype=torch.float16))
    with pytest.raises(UserError, match="need one scale per row"):
        Rows(torch.zeros(2, 3, dtype=torch.int8))
    with pytest.raises(UserError, match=r"2 rows do not fit scales of shape \[3\]"):
        Rows(torch.zeros(2, 3, dtype=torch.int8), torch.ones(3))
    with pytest.raises(UserError, match="2 rows from 9 on do not fit 10 classes"):
        Rows(torch.zeros(2, 3), classes=10, first=9)
    with pytest.raises(UserError, match="no such file"):
        load_rows(tmp_path / "w.safetensors")
    save_file({"bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no tensor 'weight'"):
        load_rows(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"damaged, and long enough")
    with pytest.raises(UserError, match=r"damaged .* copy it again"):
        load_rows(tmp_path / "w.safetensors")


def _mapped(path: Path) -> int:
    """Bytes of the file that lie in this process's memory."""
    found, of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            of_file = line.endswith(str(path))
        elif of_file and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's account of mapped files")
@pytest.mark.parametrize("stored", ["fp32", "bf16", "int8"])
def test_of_a_model_folders_w_a_process_reads_its_own_rows_alone(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = F.normalize(torch.randn(160_003, 64), dim=1)
    names = [f"c{i}" for i in range(len(weight))]
    save_model(Model(None, classifier=Classifier(weight, names), space="abc"), tmp_path / "teacher")
    monkeypatch.setattr(parallel, "world", lambda: 4)
    monkeypatch.setattr(parallel, "rank", lambda: 2)
    file = tmp_path / "teacher" / "classifier.safetensors"
    classifier = load_model(tmp_path / "teacher").classifier
    assert classifier is not None and classifier.select(names) is classifier and _mapped(file) < 3e6
    held = ClassWeight(classifier, "nothing", stored=stored, whole=False)
    assert weight.nbytes / 4 < _mapped(file) + 1e6 < weight.nbytes / 4 + 4e6  # the system reads a little around it
    assert (held.rows.total, held.rows.first, len(held.rows)) == (160_003, 80_002, 40_001)
    error = {"fp32": 1e-6, "bf16": 2e-3, "int8": 4e-3}[stored]
    torch.testing.assert_close(
        held.rows.read_at(torch.arange(40_001)).float(), weight[80_002:120_003], rtol=0, atol=error
    )


@pytest.mark.parametrize("row", [float("nan"), 3.0])
def test_rows_of_a_file_that_was_edited(row: float, tmp_path: Path) -> None:
    save_model(
        Model(None, classifier=Classifier(torch.randn(70_000, 3), [f"c{i}" for i in range(70_000)]), space="abc"),
        tmp_path / "t",
    )
    weight = load_file(tmp_path / "t" / "classifier.safetensors")["weight"].clone()
    weight[66_000] = row
    save_file({"weight": weight}, tmp_path / "t" / "classifier.safetensors")
    classifier = load_model(tmp_path / "t").classifier
    assert classifier is not None
    with pytest.raises(UserError, match=r"row 66000 has length .*, expected 1; the classifier's file was edited"):
        ClassWeight(classifier, "nothing")
