"""create_backbone, and what all networks have in common."""

import pickle

import pytest
import torch
from torch.nn import functional as F

from facedistill.backbones import BACKBONES, Backbone, count_macs, count_parameters, create_backbone
from facedistill.errors import UsageError

# Options that make each network small.
SMALL: dict[str, dict] = {
    "genotype": {"file": "pocketnet", "channels": 8, "depth": 4},
    "pocketnet_s": {"width": 0.5},
    "pocketnet_m": {"width": 0.25},
    "ghostfacenet_v1": {"width": 0.25},
    "ghostfacenet_v2": {"width": 0.25},
    "mixfacenet_s": {"width": 0.25},
    "mixfacenet_m": {"width": 0.25},
    "shufflefacenet": {"width": 0.5},
    "residual": {"options": {"width": 0.125}},
    **{name: {} for name in ("mixfacenet_xs", "edgeface_xxs", "edgeface_xs", "edgeface_s", "vit_t")},
}

NETWORKS = [name for name in BACKBONES if name not in ("vit_s", "mlp")]  # a wide vit_t; no images, see test_mlp.py


def small(name: str, dim: int, size: int) -> Backbone:
    return create_backbone(name, dim, size, **SMALL.get(name, {"width": 0.125}))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [64, 112])
def test_every_network_gives_embeddings_and_four_stage_maps(name: str, size: int) -> None:
    network = small(name, 24, size).eval()
    x = torch.randn(2, 3, size, size)
    embedding, maps = network.with_features(x)
    assert embedding.shape == (2, 24) and torch.equal(embedding, network(x))
    sizes = [m.shape[-1] for m in maps]
    halved = [sizes[0], *((s + s % 2 * (size == 112 and "ghost" in name)) // 2 for s in sizes[:-1])]
    assert sizes == ([size // 9] * 4 if name.startswith("vit") else halved)


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_format_does_not_change_the_embedding(name: str) -> None:
    network = small(name, 16, 64).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = network(x)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(F.normalize(found), F.normalize(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_embeddings_are_fp32_under_bf16_autocast_and_every_trained_weight_has_a_gradient(name: str) -> None:
    network = small(name, 16, 64).train()
    with torch.autocast("cpu", torch.bfloat16):
        embedding = network(torch.randn(2, 3, 64, 64))
    assert embedding.dtype == torch.float32
    (embedding * torch.randn(2, 16)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns(name: str) -> None:
    """A hundred steps on eight images that are to be told apart."""
    torch.manual_seed(0)
    network = small(name, 16, 64).train()
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(100):
        loss = F.cross_entropy(10 * F.normalize(network(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 20.0 + 3 and losses[-1] < 0.2 * losses[0]  # cosines of -1 and 1 cost 20


@pytest.mark.parametrize(("output", "trained"), [("plain", []), ("bias", ["bias"]), ("affine", ["weight", "bias"])])
def test_output_block_trains_what_it_says(output: str, trained: list[str]) -> None:
    for name, block in (("mobilefacenet", "output.norm"), ("iresnet18", "features")):
        network = create_backbone(name, 8, 32, width=0.125, output=output)
        norm = network.get_submodule(block)
        assert [n for n, p in norm.named_parameters() if p.requires_grad] == trained


def test_spec_makes_the_same_network_again() -> None:
    network = create_backbone("mobilefacenet", 16, 64, width=0.5)
    again = create_backbone(network.spec["name"], **network.spec["options"])
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again.eval()(x), network.eval()(x))
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_counting_leaves_the_mode_and_the_statistics_alone() -> None:
    network = create_backbone("mobilefacenet", 16, 32, width=0.25).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    assert count_macs(network, 32) > 0
    assert network.training and all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_macs_of_a_known_layer() -> None:
    layer = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5)
    )
    assert count_parameters(layer) == 3 * 8 * 9 + 8 * 16 * 5 + 5
    assert count_macs(layer, 4) == 16 * 8 * 27 + 8 * 16 * 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilfacenet", {}, "did you mean 'mobilefacenet'"),
        ("mobilefacenet", {"widht": 0.5}, "did you mean 'width'"),
        ("mobilefacenet", {"input_size": 100}, "multiple of 16"),
        ("iresnet18", {"input_size": 16}, "from 32 up"),
        ("iresnet18", {"width": 0}, "above 0"),
        ("mobilefacenet", {"output": "none"}, "plain, bias, affine"),
        ("mobilefacenet", {"width": "half"}, "option 'width': .* valid number.*found 'half'"),
        ("iresnet18", {"dropout": 2}, "option 'dropout': Input should be less than or equal to 1"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_backbone(name, **options)
