"""MixFaceNet: published sizes, and the embeddings of its authors' code."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone
from facedistill.backbones.layers import shuffle, unshuffle
from fixed_weights import fix_weights, unit_embedding

SIZES = {
    "mixfacenet_xs": (1_040_866, 76.56),
    "mixfacenet_s": (3_073_110, 218.14),
    "mixfacenet_m": (3_953_046, 303.39),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("shuffles", [False, True])
def test_published_parameters_and_macs(name: str, shuffles: bool) -> None:
    network = create_backbone(name, shuffle=shuffles)
    assert (count_parameters(network), round(count_macs(network, 112) / 1e6, 2)) == SIZES[name]


# Made by the code of fdbtrs/mixfacenets (ca3ef30) with the weights and the image of tests/toys/fixed_weights.py.
THEIRS = [
    ("mixfacenet_xs", False, [-0.0034461296, 0.0401792366, 0.0658576933, 0.0350939286], 0.1440046964700606),
    ("mixfacenet_s", True, [-0.0015548207, 0.051070918, -0.0335388165, -0.0453037932], 0.1679610497028481),
    ("mixfacenet_m", False, [0.0016443057, 0.0932586083, -0.0509072816, -0.050587818], 0.13524634283020365),
]


@pytest.mark.parametrize(("name", "shuffles", "first", "total"), THEIRS)
def test_the_embedding_is_that_of_the_authors_code(
    name: str, shuffles: bool, first: list[float], total: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the last layers are kept in fp32 otherwise
    network = create_backbone(name, shuffle=shuffles)
    fix_weights(network)
    embedding = unit_embedding(network)
    torch.testing.assert_close(embedding[:4], torch.tensor(first, dtype=torch.float64), rtol=0, atol=1e-9)
    assert embedding[::7].sum().item() == pytest.approx(total, abs=1e-9)


def test_shuffling_interleaves_and_is_undone() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert unshuffle(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(unshuffle(shuffle(x)), x)
