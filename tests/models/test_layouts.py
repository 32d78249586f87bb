"""Networks of public projects: each is written here by its definition; imported, it gives the same embeddings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facedistill.backbones import create_backbone
from facedistill.errors import UserError
from facedistill.models.importers import import_model
from facedistill.models.model import Model

DIM, SIZE = 16, 32
WIDTHS = (8, 16, 32, 64)


def normalised(channels: int) -> nn.BatchNorm2d:
    """A normalisation that has seen data."""
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, std=0.1)
    nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return norm


class Branch(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, bn2: bool, excitation: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            pick = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(pick, normalised(outputs))
        layers = [normalised(inputs), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [normalised(outputs)] if bn2 else []
        layers += [nn.PReLU(outputs), nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)]
        layers += [normalised(outputs)]
        if excitation:
            layers.append(nn.ModuleDict({"fc1": nn.Conv2d(outputs, 2, 1), "fc2": nn.Conv2d(2, outputs, 1)}))
        self.res_layer = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IR(nn.Module):
    """IR-18 or IR-50 of face.evoLVe; AdaFace and CVLface have no weights in the last normalisation."""

    def __init__(
        self, blocks: tuple[int, ...] = (2, 2, 2, 2), bn2: bool = True, affine: bool = False, excitation: bool = False
    ) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False), normalised(first), nn.PReLU(first)
        )
        last = nn.BatchNorm1d(DIM, affine=affine)
        nn.init.normal_(last.running_mean)  # type: ignore[arg-type]
        flat = WIDTHS[-1] * (SIZE // 16) ** 2
        self.output_layer = nn.Sequential(
            normalised(WIDTHS[-1]), nn.Dropout(0.4), nn.Flatten(), nn.Linear(flat, DIM), last
        )
        inputs, body = first, []
        for width, count in zip(WIDTHS, blocks):
            for i in range(count):
                body.append(Branch(inputs, width, 1 if i else 2, bn2, excitation))
                inputs = width
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


class Convolution(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        padding = kernel // 2 if kernel == 3 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = normalised(outputs)
        if act:
            self.prelu = nn.PReLU(outputs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.prelu(x) if self.act else x


class Depthwise(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv = Convolution(inputs, groups, 1)
        self.conv_dw = Convolution(groups, groups, 3, stride, groups)
        self.project = Convolution(groups, outputs, 1, act=False)
        self.residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Repeated(nn.Module):
    def __init__(self, channels: int, count: int, groups: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(Depthwise(channels, channels, groups, 1) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class MobileFaceNet(nn.Module):
    """MobileFaceNet of InsightFace_Pytorch and FaceX-Zoo, in the order of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Convolution(3, 64, 3, 2)
        self.conv2_dw = Convolution(64, 64, 3, groups=64)
        self.conv_23, self.conv_3 = Depthwise(64, 64, 128, 2), Repeated(64, 4, 128)
        self.conv_34, self.conv_4 = Depthwise(64, 128, 256, 2), Repeated(128, 6, 256)
        self.conv_45, self.conv_5 = Depthwise(128, 128, 512, 2), Repeated(128, 2, 256)
        self.conv_6_sep = Convolution(128, 512, 1)
        self.conv_6_dw = Convolution(512, 512, SIZE // 16, groups=512, act=False)
        self.linear = nn.Linear(512, DIM, bias=False)
        self.bn = nn.BatchNorm1d(DIM)

    def forward(self, x: Tensor) -> Tensor:
        for part in list(self.children())[:-2]:
            x = part(x)
        return self.bn(self.linear(x.flatten(1)))


def same(model: Model, network: nn.Module) -> None:
    images = torch.randint(0, 256, (3, 3, model.input_size, model.input_size))
    with torch.no_grad():
        expected = network.eval()((images - 127.5) / 127.5)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"affine": True}, {"bn2": False, "affine": True}, {"blocks": (3, 4, 14, 3)}], ids=str
)
def test_ir_in_the_forms_of_adaface_tface_and_facex_zoo(tmp_path: Path, options: dict[str, Any]) -> None:
    network = IR(**options)
    model = import_model(saved(network.state_dict(), tmp_path / "net.pt"))
    same(model, network)
    assert model.backbone is not None
    assert model.backbone.spec["name"] == ("iresnet50" if "blocks" in options else "iresnet18")


def test_mobilefacenet_of_insightface_pytorch(tmp_path: Path) -> None:
    network = MobileFaceNet()
    same(import_model(saved(network.state_dict(), tmp_path / "net.pt")), network)
    old = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    same(import_model(saved(old, tmp_path / "old.pt")), network)


@pytest.mark.parametrize(
    "options", [{"excitation": True}, {"excitation": True, "bn2": False}, {"blocks": (1, 1, 1, 1)}]
)
def test_networks_that_are_nearly_known_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="unknown network"):
        import_model(saved(IR(**options).state_dict(), tmp_path / "net.pt"))


def test_a_part_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    for part in ("body.2.shortcut_layer.0.weight", "body.1.res_layer.2.bias", "input_layer.2.weight"):
        state = IR().state_dict()
        del state[part]
        with pytest.raises(UserError, match=r"is missing|unknown network"):
            import_model(saved(state, tmp_path / "net.pt"))
    with pytest.raises(UserError, match="unexpected tensors"):  # a part that would change the embedding
        import_model(saved(IR().state_dict() | {"neck.weight": torch.ones(3)}, tmp_path / "net.pt"))


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in plain().state_dict().items()}


def plain() -> nn.Module:
    torch.manual_seed(1)
    return create_backbone("iresnet18", DIM, SIZE, width=0.125)


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "backbone.", "model.", "student."]
PREFIXES += ["net.", "model.module.backbone.", "_fsdp_wrapped_module.net.", "features.module.", "encoder._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix(tmp_path: Path, prefix: str) -> None:
    same(import_model(saved(prefixed(prefix), tmp_path / "net.ckpt")), plain())


def _fsdp(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Blocks wrapped one by one, as FSDP and checkpointing of activations do."""
    wrapped = {name.replace("layer1.0.", "layer1.0._fsdp_wrapped_module."): t for name, t in state.items()}
    return {name.replace("layer2.1.", "layer2.1._checkpoint_wrapped_module."): t for name, t in wrapped.items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"momentum": torch.ones(DIM, 9)}}}},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"net": {f"module.{k}": v for k, v in s.items()}, "lr": 0.1},
        lambda s: {
            "epoch": 1,
            "pytorch-lightning_version": "2.4",
            "state_dict": {f"model.{k}": v for k, v in s.items()},
        },
        lambda s: {"state_dict_ema": s},
        lambda s: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": s, "state_dict_ema": {k: v + 1 for k, v in s.items()}},
        _fsdp,
    ],
)
def test_any_nesting(tmp_path: Path, content: Any) -> None:
    same(import_model(saved(content(plain().state_dict()), tmp_path / "net.bin")), plain())


def test_two_networks_in_one_file_are_not_chosen_from(tmp_path: Path) -> None:
    both = prefixed("student.") | prefixed("teacher.")
    with pytest.raises(UserError, match=r"2 networks .'student\.', 'teacher\.'.*save the one that is meant"):
        import_model(saved(both, tmp_path / "net.pt"))


@pytest.mark.parametrize(
    ("name", "turned"),
    [
        ("head.weight", False),
        ("head.kernel", True),
        ("criterion.weight", False),
        ("state_dict_softmax_fc.weight", False),
    ],
)
def test_the_head_of_the_same_file_is_w(tmp_path: Path, name: str, turned: bool) -> None:
    weight = torch.randn(5, DIM)
    content = {"state_dict": prefixed("backbone.") | {name: weight.T.contiguous() if turned else weight}}
    classifier = import_model(saved(content, tmp_path / "net.ckpt")).classifier
    assert classifier is not None
    torch.testing.assert_close(classifier.weight, nn.functional.normalize(weight, dim=1))


def test_of_a_network_with_moving_averages_neither_is_mixed(tmp_path: Path) -> None:
    weight = torch.randn(5, DIM)
    state = prefixed("backbone.") | {"head.weight": weight}
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    optimizer = {"state": {"head.weight": {"exp_avg": weight + 2}}}
    content = {"state_dict": state, "state_dict_ema": averaged, "optimizer": optimizer, 7: "seven"}
    model = import_model(saved(content, tmp_path / "net.pt"))
    same(model, plain())
    assert model.classifier is not None
    torch.testing.assert_close(model.classifier.weight, nn.functional.normalize(weight))


def test_of_two_heads_none_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = prefixed("backbone.") | {"head.a.weight": torch.ones(5, DIM), "head.b.weight": torch.ones(7, DIM)}
    assert import_model(saved(content, tmp_path / "net.pt")).classifier is None
    assert "2 heads (head.a.weight, head.b.weight)" in capsys.readouterr().out


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    path = saved(prefixed(""), tmp_path / "net.pt")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    import_model(path)
    assert torch.equal(torch.rand(4), expected)


def pocketnet_names(cells: int) -> list[str]:
    """The names in a file of PocketNet's authors, in their order, by their network's definition."""
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def norm(name: str) -> list[str]:
        return [f"{name}.{kind}" for kind in statistics]

    def separable(name: str) -> list[str]:
        return [*(f"{name}.net.{i}.weight" for i in range(3)), *norm(f"{name}.net.3")]

    def halving(name: str) -> list[str]:
        return [f"{name}.relu.weight", *(f"{name}.conv{i}.weight" for i in (11, 12, 21, 22)), *norm(f"{name}.bn")]

    kinds = {
        "normal": ["conv conv", "conv conv", "conv conv", "conv skip"],
        "reduce": ["conv conv", "skip conv", "pool skip", "pool pool"],
    }
    names = ["stem.0.weight", *norm("stem.1")]
    reductions = (cells // 3, 2 * cells // 3, cells - 1)
    for i in range(cells):
        names += (halving if i - 1 in reductions else separable)(f"cells.{i}.preproc0")
        names += separable(f"cells.{i}.preproc1")
        for node, edges in enumerate(kinds["reduce" if i in reductions else "normal"]):
            for edge, kind in enumerate(edges.split()):
                at = f"cells.{i}.dag.{node}.{edge}"
                names += {"conv": separable(at), "pool": norm(f"{at}.bn"), "skip": []}[kind]
    tail = [["tail.0.weight", "tail.1.weight"], norm("tail.2"), ["tail.3.weight", "tail.4.weight"], norm("tail.5")]
    return [*names, *(n for part in tail for n in part), "tail.6.weight", *norm("tail.7")]


def test_pocketnet_of_its_authors(tmp_path: Path) -> None:
    network = create_backbone("pocketnet_m", 128, 32).eval()
    state = {
        theirs: tensor[:, :, None, None] if theirs == "tail.6.weight" else tensor
        for theirs, tensor in zip(pocketnet_names(9), network.state_dict().values(), strict=True)
    }
    torch.save(state, tmp_path / "295672backbone.pth")
    found = import_model(tmp_path / "295672backbone.pth")
    same(found, network)


@pytest.mark.parametrize("name", ["edgeface_xxs", "edgeface_xs"])
def test_edgeface_of_its_authors(tmp_path: Path, name: str) -> None:
    """Its names are timm's, which tests/backbones/test_edgeface.py ran against; the file adds `model.`."""
    network = create_backbone(name).eval()
    torch.save({f"model.{n}": t for n, t in network.state_dict().items()}, tmp_path / "edgeface.pt")
    same(import_model(tmp_path / "edgeface.pt"), network)


def test_vit_of_arcface_torch(tmp_path: Path) -> None:
    network = create_backbone("vit_t", 16, 36).eval()
    torch.save({"mask_token": torch.zeros(1, 1, 256), **network.state_dict()}, tmp_path / "model.pt")
    same(import_model(tmp_path / "model.pt"), network)


def test_mixfacenet_is_refused_because_shuffling_leaves_no_trace(tmp_path: Path) -> None:
    names = ("feautre_layer.pw_conv.conv.weight", "features.init_block.conv1.conv.weight", "tail.conv.weight")
    torch.save({name: torch.zeros(4, 4, 1, 1) for name in names}, tmp_path / "mixfacenet.pth")
    with pytest.raises(UserError, match=r"mixfacenet.pth: a MixFaceNet, whose file does not say .* shuffled"):
        import_model(tmp_path / "mixfacenet.pth")
