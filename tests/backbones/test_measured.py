"""What networks took here: noted only for the network of the row, shown only on a processor of the same kind."""

from pathlib import Path

import pytest

from facedistill.backbones import COSTS, measured, note_latency, noted_latency

MACS = round(COSTS["mobilefacenet"].macs * 1e6)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "latency"


def test_a_note_is_read_again() -> None:
    assert noted_latency("mobilefacenet") is None
    note_latency("mobilefacenet", MACS + 100_000, 12.5)  # another embedding size
    assert noted_latency("mobilefacenet") == 12.5
    note_latency("mobilefacenet", MACS, 11.5)
    assert noted_latency("mobilefacenet") == 11.5 and noted_latency("iresnet18") is None


@pytest.mark.parametrize(("network", "macs"), [("mobilefacenet", MACS // 4), ("genotype", MACS), ("../x", 1), ("", 0)])
def test_other_networks_and_sizes_are_not_noted(cache: Path, network: str, macs: int) -> None:
    note_latency(network, macs, 12.5)
    assert not cache.exists()


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    note_latency("mobilefacenet", MACS, 12.5)
    monkeypatch.setattr(measured, "processor", lambda: "another")
    assert noted_latency("mobilefacenet") is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"ms": 3.0}', b"[" * 100_000])
def test_a_damaged_note_is_none(cache: Path, content: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / "mobilefacenet.json").write_bytes(content)
    assert noted_latency("mobilefacenet") is None


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    note_latency("mobilefacenet", MACS, 12.5)
    assert noted_latency("mobilefacenet") is None
