"""Embedding a data set: order, flips, cache, modes, damage."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facedistill.backbones.base import Backbone
from facedistill.data.dataset import Dataset
from facedistill.data.embeddings import Embeddings
from facedistill.data.loader import decoded
from facedistill.data.sources.source import Source
from facedistill.errors import UserError
from facedistill.models.embed import embed_blocks, embed_dataset
from facedistill.models.model import InputSpec, Model


class Noise(Source):
    """Random pixels; reading the images `broken` fails."""

    def __init__(self, images: int, broken: tuple[int, ...] = (), seed: int = 0) -> None:
        self.path, self.broken = "noise", broken
        self.keys = [f"image {i}" for i in range(images)]
        self.labels = np.arange(images, dtype=np.int64) % 3
        self.class_names = ["a", "b", "c"]
        self.fingerprint = f"{images} {seed}"
        self.pixels = np.random.default_rng(seed).integers(0, 256, (images, 16, 16, 3)).astype(np.uint8)
        self.reads = 0

    def read(self, i: int) -> np.ndarray:
        self.reads += 1
        if i in self.broken:
            raise ValueError("truncated")
        return self.pixels[i]


class Tiny(Backbone):
    """A linear layer and a batch normalisation, so that training mode would show; counts its calls."""

    def __init__(self) -> None:
        super().__init__(5, 16)
        self.linear, self.norm, self.calls = nn.Linear(3 * 16 * 16, 5), nn.BatchNorm1d(5), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += len(x)
        return self.norm(self.linear(x.flatten(1)))


def tiny() -> Model:
    return Model(Tiny(), InputSpec(size=16), offset=torch.arange(5.0), space="space")


def network(model: Model) -> Tiny:
    assert isinstance(model.backbone, Tiny)
    return model.backbone


def pixels(source: Noise) -> Tensor:
    return torch.from_numpy(source.pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_rows_in_the_order_of_the_data_both_flips(batch: int) -> None:
    source, model = Noise(30), tiny()
    table = embed_dataset(model, Dataset(source), batch=batch)
    model.eval()
    with torch.no_grad():
        expected = torch.stack([model(pixels(source)), model(pixels(source).flip(-1))], 1)
    np.testing.assert_allclose(table.vectors, expected, atol=1e-5)
    assert table.vectors.dtype == np.float32
    assert table.keys == source.keys
    np.testing.assert_array_equal(table.labels, source.labels)
    assert (table.class_names, table.space) == (source.class_names, "space")
    assert source.reads <= 60  # each image once, and one look at the first 32 for their size


def test_fused_agrees_with_the_model(capsys: pytest.CaptureFixture) -> None:
    source, model = Noise(9), tiny()
    table = embed_dataset(model, Dataset(source))
    for flip in ("sum", "concat", "none"):
        fused = table.fused(flip)
        np.testing.assert_allclose(fused, model.embed(pixels(source), flip), atol=1e-6)
        assert fused.dtype == np.float32
    assert embed_dataset(model, Dataset(source), flips=False).vectors.shape == (9, 1, 5)


def test_zero_embedding_stays_zero() -> None:
    table = Embeddings(["k"], ["c"], np.zeros(1, np.int64), np.zeros((1, 2, 4), np.float32))
    assert table.fused("sum").tolist() == [[0, 0, 0, 0]]


def test_modes_are_restored_and_statistics_untouched() -> None:
    model = tiny().train()
    inner = network(model)
    inner.norm.eval()
    assert inner.norm.running_mean is not None
    before = inner.norm.running_mean.clone()
    embed_dataset(model, Dataset(Noise(20)))
    assert model.training
    assert inner.linear.training
    assert not inner.norm.training
    assert torch.equal(inner.norm.running_mean, before)
    assert not torch.is_inference(inner.linear.weight)


def test_cache_knows_model_data_and_flips(tmp_path: Path) -> None:
    model, source = tiny(), Noise(10)
    first = embed_dataset(model, Dataset(source), cache=tmp_path)
    calls = network(model).calls
    again = embed_dataset(model, Dataset(source), cache=tmp_path)
    plain = embed_dataset(model, Dataset(source), flips=False, cache=tmp_path)
    assert network(model).calls == calls == 20
    np.testing.assert_array_equal(again.vectors, first.vectors)
    np.testing.assert_array_equal(plain.vectors, first.vectors[:, :1])
    embed_dataset(model, Dataset(Noise(10, seed=1)), cache=tmp_path)
    assert network(model).calls == calls + 20
    with torch.no_grad():
        network(model).linear.weight[0, 0] += 1
    changed = embed_dataset(model, Dataset(source), cache=tmp_path)
    assert network(model).calls == calls + 40
    assert changed.model != first.model
    assert model.offset is not None
    model.offset += 1
    assert embed_dataset(model, Dataset(source), cache=tmp_path).model != changed.model


def test_a_subset_reads_its_rows_from_the_table_of_the_whole(tmp_path: Path) -> None:
    model, whole = tiny(), Dataset(Noise(12, broken=(4,)), max_unreadable=0.5)
    part = whole.subset(np.array([1, 10, 4, 7]))
    made = embed_dataset(model, part)
    embed_dataset(model, whole, cache=tmp_path)
    calls = network(model).calls
    for of in (part, whole.subset(range(1, 12)).subset([0, 9, 3, 6])):
        for flips in (True, False):
            read = embed_dataset(model, of, flips, cache=tmp_path)
            assert (read.keys, read.class_names, read.data) == (made.keys, made.class_names, of.fingerprint)
            np.testing.assert_array_equal(read.labels, made.labels)
            np.testing.assert_allclose(read.vectors, made.vectors[:, : 2 if flips else 1], rtol=1e-5, atol=1e-6)
        assert of.unreadable[-1:] == ["image 4"]
    assert network(model).calls == calls
    embed_dataset(tiny(), part, cache=tmp_path)  # another model's table serves nobody else


def test_cache_knows_when_files_changed(tmp_path: Path) -> None:
    """Other pixels in files of the same names and sizes: the fingerprint is the same, the stamp is not."""
    model, source = tiny(), Noise(10)
    embed_dataset(model, Dataset(source), cache=tmp_path)
    list(embed_blocks(model, Dataset(source), cache=tmp_path))
    changed = Noise(10, seed=1)
    changed.fingerprint, changed.stamp = source.fingerprint, "later"
    expected = embed_dataset(model, Dataset(changed)).vectors
    np.testing.assert_array_equal(embed_dataset(model, Dataset(changed), cache=tmp_path).vectors, expected)
    blocks = embed_blocks(model, Dataset(changed), cache=tmp_path)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)


def test_a_cache_that_cannot_be_written_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, source, cache = tiny(), Noise(23), tmp_path / "a file"
    cache.touch()
    expected = embed_dataset(model, Dataset(source)).vectors
    found = embed_dataset(model, Dataset(source), cache=cache)
    assert capsys.readouterr().err.startswith(f"the embeddings are not cached: cannot write {cache}")
    blocks = list(embed_blocks(model, Dataset(source), batch=10, cache=cache))
    assert capsys.readouterr().err.count("\n") == 1
    for vectors in (found.vectors, np.concatenate(blocks)):
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_cache_that_fails_in_the_middle_loses_no_block(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    resource = pytest.importorskip("resource", reason="limits of the size of files are Unix's")
    model, source = tiny(), Noise(23)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    blocks = embed_blocks(model, Dataset(source), batch=10, cache=tmp_path)
    first = next(blocks)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        rest = list(blocks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in capsys.readouterr().err and not list(tmp_path.iterdir())
    expected = embed_dataset(model, Dataset(source)).vectors
    np.testing.assert_allclose(np.concatenate([first, *rest]), expected, atol=1e-5)


def _damaged(table: Embeddings, path: Path) -> Iterator[str]:
    """Write the table to `path` in damaged forms, one after the other; yield what is wrong."""
    table.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    yield "truncated"
    flipped = bytearray(whole)
    flipped[whole.index(table.vectors.tobytes()) + 5] ^= 8
    path.write_bytes(flipped)
    yield "a flipped bit"
    holed = table.vectors.copy()
    holed[3, 0, 2] = np.nan
    moved = [*table.keys[1:], table.keys[0]]
    changes: dict[str, dict[str, Any]] = {
        "NaN": {"vectors": holed},
        "other images": {"keys": [f"other {key}" for key in table.keys]},
        "other order": {"keys": moved},
        "other labels": {"labels": table.labels[::-1].copy()},
        "other names": {"class_names": ["x", "y", "z"]},
        "another model": {"model": "0" * 16},
        "other data": {"data": "0" * 16},
        "other dimensions": {"vectors": table.vectors[:, :, :4]},
    }
    for what, change in changes.items():
        replace(table, **change).save(path)
        yield what


def test_a_damaged_cache_is_made_again_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, source = tiny(), Noise(10)
    first = embed_dataset(model, Dataset(source), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    for what in _damaged(first, file):
        found = embed_dataset(model, Dataset(source), cache=tmp_path)
        np.testing.assert_array_equal(found.vectors, first.vectors, err_msg=what)
        assert (found.keys, found.class_names) == (first.keys, first.class_names), what
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(file) in said and "are made anew" in said, what
        embed_dataset(model, Dataset(source), cache=tmp_path)
        assert not capsys.readouterr().err, f"{what}: the new cache serves"


def test_damaged_blocks_are_made_again_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, source = tiny(), Noise(23)
    first = np.concatenate(list(embed_blocks(model, Dataset(source), cache=tmp_path)))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 8
    np.save(tmp_path / "other.npy", first[:5])
    other = (tmp_path / "other.npy").read_bytes()
    (tmp_path / "other.npy").unlink()
    for content in (whole[:100], whole[:-40], whole[:-1], bytes(flipped), other, b"", b"PK\x03\x04"):
        file.write_bytes(content)
        found = np.concatenate(list(embed_blocks(model, Dataset(source), cache=tmp_path)))
        np.testing.assert_array_equal(found, first)
        assert capsys.readouterr().err.count("are made anew") == 1
        assert file.read_bytes() == whole


def test_only_the_owner_may_read_cached_embeddings(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        embed_dataset(tiny(), Dataset(Noise(5)), cache=tmp_path / "cache")
        list(embed_blocks(tiny(), Dataset(Noise(5)), cache=tmp_path / "cache"))
    finally:
        os.umask(before)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "cache").iterdir()] == [0o600, 0o600]


def test_unreadable_images_have_no_row() -> None:
    dataset = Dataset(Noise(40, broken=(0, 17)), max_unreadable=0.1)
    table = embed_dataset(tiny(), dataset, batch=8)
    assert len(table) == 38
    assert table.keys == [f"image {i}" for i in range(40) if i not in (0, 17)]
    assert dataset.unreadable == ["image 0", "image 17"]
    whole = embed_dataset(tiny(), Dataset(Noise(40)))
    assert whole.labels[[i for i in range(40) if i not in (0, 17)]].tolist() == table.labels.tolist()


def test_unreadable_images_are_counted_and_named_when_the_embeddings_come_from_the_cache(tmp_path: Path) -> None:
    model, source = tiny(), Noise(40, broken=(0, 17))
    embed_dataset(model, Dataset(source, max_unreadable=0.1), cache=tmp_path)
    reads, again = source.reads, Dataset(source, max_unreadable=0.1)
    assert len(embed_dataset(model, again, cache=tmp_path)) == 38
    assert again.unreadable == ["image 0", "image 17"] and source.reads == reads
    with pytest.raises(UserError, match="2 of 40 images cannot be read"):
        embed_dataset(model, Dataset(source), cache=tmp_path)


def test_a_batch_of_unreadable_images_alone_is_judged_like_any_other() -> None:
    dataset = Dataset(Noise(41, broken=(40,)), max_unreadable=0.1)
    assert len(embed_dataset(tiny(), dataset, batch=8)) == 40  # the last batch is image 40
    assert dataset.unreadable == ["image 40"]
    assert [len(block) for block in embed_blocks(tiny(), dataset, batch=20)] == [20, 20]
    with pytest.raises(UserError, match="1 of 41 images cannot be read"):
        embed_dataset(tiny(), Dataset(Noise(41, broken=(40,))), batch=8)


def test_too_many_unreadable_images() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        embed_dataset(tiny(), Dataset(Noise(40, broken=tuple(range(20)))), batch=30)


def test_leaving_early_stops_the_threads() -> None:
    source = Noise(1000)
    batches = decoded(Dataset(source), 10)
    next(batches)
    batches.close()
    assert source.reads < 200


def test_embeddings_that_are_not_finite() -> None:
    model = tiny()
    with torch.no_grad():
        network(model).linear.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="image 0 is not finite"):
        embed_dataset(model, Dataset(Noise(5)))


def test_save_and_load(tmp_path: Path) -> None:
    table = embed_dataset(tiny(), Dataset(Noise(7)))
    table.save(tmp_path / "t.npz")
    again = Embeddings.load(tmp_path / "t.npz")
    assert (again.keys, again.class_names) == (table.keys, table.class_names)
    assert (again.space, again.model, again.data) == (table.space, table.model, table.data)
    np.testing.assert_array_equal(again.vectors, table.vectors)
    np.testing.assert_array_equal(again.labels, table.labels)


def test_load_a_table_made_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    np.savez(file, keys=["x", "y"], class_names=["c"], labels=np.zeros(2, np.int32), vectors=np.ones((2, 4)))
    table = Embeddings.load(file)
    assert table.vectors.shape == (2, 1, 4)
    assert (table.vectors.dtype, table.labels.dtype, table.space) == (np.float32, np.int64, "")
    np.testing.assert_allclose(table.fused("sum"), np.full((2, 4), 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": None}, "no array 'vectors'"),
        ({"vectors": np.ones((3, 4))}, "2 keys"),
        ({"keys": np.array([], str), "labels": np.zeros(0), "vectors": np.ones((0, 4))}, "0 keys"),
        ({"labels": np.array([0, 5])}, "labels 0 to 5"),
        ({"keys": np.array([{}, {}])}, "not a table"),
    ],
)
def test_load_refuses(change: dict, message: str, tmp_path: Path) -> None:
    arrays = {"keys": ["x", "y"], "class_names": ["c"], "labels": np.zeros(2, np.int64), "vectors": np.ones((2, 4))}
    np.savez(tmp_path / "t.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
    with pytest.raises(UserError, match=message):
        Embeddings.load(tmp_path / "t.npz")


def test_blocks_are_the_rows_of_the_table_and_come_from_the_file_the_next_time(tmp_path: Path) -> None:
    source, model = Noise(23, broken=(4, 20)), tiny()
    whole = embed_dataset(model, Dataset(source, max_unreadable=0.5)).vectors
    for cache in (None, tmp_path):
        blocks = list(embed_blocks(model, Dataset(source, max_unreadable=0.5), batch=10, cache=cache))
        assert [len(block) for block in blocks] == [9, 10, 2]
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)
    (file,) = tmp_path.iterdir()
    stored = np.load(file, allow_pickle=False)
    assert stored.shape == (23, 2, 5) and np.flatnonzero(np.isnan(stored).all(axis=(1, 2))).tolist() == [4, 20]
    source.reads, dataset = 0, Dataset(source, max_unreadable=0.5)
    again = np.concatenate(list(embed_blocks(model, dataset, batch=10, cache=tmp_path)))
    assert source.reads == 0 and dataset.unreadable == ["image 4", "image 20"]
    np.testing.assert_allclose(again, whole, atol=1e-5)
    with pytest.raises(UserError, match="2 of 23 images cannot be read"):
        list(embed_blocks(model, Dataset(source), cache=tmp_path))


def test_blocks_that_are_not_read_to_their_end_leave_no_file(tmp_path: Path) -> None:
    blocks = embed_blocks(tiny(), Dataset(Noise(30)), batch=10, cache=tmp_path)
    next(blocks)
    blocks.close()
    assert not list(tmp_path.iterdir())
