"""A frozen teacher: from its cache or by its network, and never when nothing is asked."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facedistill.data.batch import Batch, Output
from facedistill.data.embeddings import Embeddings
from facedistill.errors import UserError
from facedistill.models.model import Model
from facedistill.training.teacher import Teacher


class _Network(nn.Module):
    """Stands for a Model: the embedding is a linear map of the mean colour of the left half of the image."""

    space, embedding_dim = "space-1", 5

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 5), nn.BatchNorm1d(5)
        self.ran: list[bool] = []

    def outputs(self, images: Tensor, features: bool = True) -> Output:
        self.ran.append(features)
        assert not torch.is_autocast_enabled("cpu")
        left = images.float()[..., : images.shape[-1] // 2].mean((2, 3))
        return Output(self.norm(self.linear(left)), (left, 2 * left) if features else ())


def _batch(pixels: Tensor, index: list[list[int]]) -> Batch:
    rows = torch.tensor(index)
    images = torch.stack([pixels[i].flip(-1) if flip else pixels[i] for i, flip in index])
    labels = torch.zeros(len(rows), dtype=torch.long)
    return Batch(images, images, [(labels, 1.0)], rows, 0.0, labels)


PIXELS = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
INDEX = [[4, 0], [4, 1], [0, 1], [2, 0]]


def _teacher(network: _Network, **options: Any) -> Teacher:
    return Teacher("t", cast(Model, network), **options)


def _cache(network: _Network) -> Embeddings:
    with torch.no_grad():
        both = [network.eval().outputs(p).embedding for p in (PIXELS, PIXELS.flip(-1))]
    network.ran.clear()
    vectors = torch.stack(both, 1).numpy()
    return Embeddings([str(i) for i in range(6)], ["a"], np.zeros(6, dtype=np.int64), vectors)


def test_frozen_in_eval_mode_with_its_space() -> None:
    network = _Network().train()
    teacher = _teacher(network)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert (teacher.space, teacher.dim) == ("space-1", 5)


def test_the_cache_answers_by_image_and_flip_without_the_network() -> None:
    network = _Network()
    cached = _teacher(network, cache=_cache(network))
    online = _teacher(network)
    for needs in ({"embedding"}, {"logits"}, {"embedding", "logits"}):
        network.ran.clear()
        found = cached(_batch(PIXELS, INDEX), needs)
        assert found is not None and not network.ran and not found.features
        expected = online(_batch(PIXELS, INDEX), needs)
        assert expected is not None and network.ran == [False]
        torch.testing.assert_close(found.embedding, expected.embedding)
    assert found is not None
    assert not torch.allclose(found.embedding[0], found.embedding[1])  # the mirror image is another row


def test_features_are_asked_of_the_network_even_with_a_cache() -> None:
    network = _Network()
    teacher = _teacher(network, cache=_cache(network))
    found = teacher(_batch(PIXELS, INDEX), {"embedding", "features"})
    assert found is not None and network.ran == [True] and len(found.features) == 2


def test_nothing_needed_nothing_runs() -> None:
    network = _Network()
    assert _teacher(network)(_batch(PIXELS, INDEX), frozenset()) is None
    assert network.ran == []


def test_it_sees_its_own_images() -> None:
    network = _Network()
    batch = _batch(PIXELS, INDEX)
    batch.images = torch.zeros_like(batch.images)
    found = _teacher(network)(batch, {"embedding"})
    expected = _teacher(network)(_batch(PIXELS, INDEX), {"embedding"})
    assert found is not None and expected is not None and torch.equal(found.embedding, expected.embedding)


@pytest.mark.parametrize("cache", [True, False])
def test_no_gradient_but_usable_in_the_students_graph(cache: bool) -> None:
    network = _Network()
    teacher = _teacher(network, cache=_cache(network) if cache else None)
    assert network.norm.running_mean is not None
    statistics = network.norm.running_mean.clone()
    with torch.autocast("cpu", torch.bfloat16):
        found = teacher(_batch(PIXELS, INDEX), {"embedding"} if cache else {"embedding", "features"})
    assert found is not None and not found.embedding.requires_grad and found.embedding.dtype == torch.float32
    student = torch.randn(4, 5, requires_grad=True)
    loss = (student * found.embedding).sum() + sum((student.sum() * f).sum() for f in found.features)
    loss.backward()  # autograd may keep the teacher's tensors for it
    assert student.grad is not None and all(p.grad is None for p in network.parameters())
    assert torch.equal(network.norm.running_mean, statistics)


def test_an_answer_may_be_changed_without_touching_the_cache() -> None:
    network = _Network()
    teacher = _teacher(network, cache=_cache(network))
    batch = _batch(PIXELS, INDEX)
    first = teacher(batch, {"embedding"})
    assert first is not None
    kept = first.embedding.clone()
    first.embedding.zero_()
    again = teacher(batch, {"embedding"})
    assert again is not None and torch.equal(again.embedding, kept)


def test_a_cache_without_mirror_images_serves_batches_that_have_none() -> None:
    network = _Network()
    cache = _cache(network)
    cache.vectors = cache.vectors[:, :1]
    teacher = _teacher(network, cache=cache)
    got = teacher(_batch(PIXELS, [[4, 0], [2, 0]]), {"embedding"})
    assert got is not None and torch.equal(got.embedding, torch.from_numpy(cache.vectors[[4, 2], 0]))
    with pytest.raises(UserError, match=r"teacher 't': its cache has no mirror images.*data.mirror=false"):
        teacher(_batch(PIXELS, INDEX), {"embedding"})


def test_start_epoch_changes_nothing_by_default() -> None:
    network = _Network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    _teacher(network).start_epoch(3)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_weights_of_an_epoch_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = _Network()
    save_file(network.state_dict(), tmp_path / "0000.safetensors")
    save_file({"linear.weight": torch.ones(4, 3)}, tmp_path / "0001.safetensors")
    teacher = _teacher(network, epochs=[tmp_path / f"000{e}.safetensors" for e in (0, 1, 2)])
    before = network.linear.weight.clone()
    network.linear.weight.data.zero_()
    teacher.start_epoch(0)
    assert torch.equal(network.linear.weight, before)
    with pytest.raises(UserError, match=r"0001\.safetensors: tensor 'linear\.weight' has shape \[4, 3\]; expected"):
        teacher.start_epoch(1)
    with pytest.raises(UserError, match=r"0002\.safetensors: missing"):
        teacher.start_epoch(2)
