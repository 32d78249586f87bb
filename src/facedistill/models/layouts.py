"""The networks of public projects that ours have the weights of, recognised by the names in a state dict.

A row of LAYOUTS is a layout: the names that it must have, and the function that makes our network and our names of it.
The names may have any prefix: the projects wrap their networks in `backbone.`, `model.`, `features.module.` and so on.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facedistill.backbones import CHANNELS, DEPTHS, Backbone, create_backbone, outline
from facedistill.errors import UsageError, UserError
from facedistill.models.state_dict import check_tensors

State = dict[str, Tensor]
Converted = tuple[str, dict[str, Any], State]
COPY = re.compile(r"(^|[._])(ema|averaged|shadow)([._]|$)")  # a copy, where the network itself is there too
# What a training module holds beside its network. Other parts could belong to the network, so they are an error.
STATE = re.compile(r"(^|[._])optim\w*\.|\.(exp_avg|exp_avg_sq|momentum_buffer)$")  # of an optimiser
HEADS = {"head", "heads", "classifier", "criterion", "loss", "margin", "margin_softmax", "partial_fc"}
HEADS |= {"state_dict_softmax_fc"}
BESIDE = {*HEADS, "n_averaged"}


@dataclass
class Layout:
    """The names that the state dict has (the first shows where it begins), and how it becomes one of our networks.

    `convert` returns the backbone's name, its options, and the weights under our names; None for a network of this kind
    that we do not have.
    """

    names: Sequence[str]
    convert: Callable[[State], "Converted | None"]


@dataclass
class Network:
    """A network found in a file.

    Attributes:
        prefix: of its names in the file.
        state: its tensors, by their names without the prefix. others: the file's tensors that are not its own.
    """

    prefix: str
    layout: Layout
    state: State
    others: State


def find_networks(tensors: State) -> list[Network]:
    """Return every network of LAYOUTS in the file."""
    found = []
    for layout in LAYOUTS:
        anchor = layout.names[0]
        prefixes = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
        for prefix in (p for p in prefixes if p == "" or p.endswith(".")):
            inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            if set(layout.names) <= inside.keys():
                state = {n: t for n, t in inside.items() if n.split(".")[0] not in BESIDE}
                own = {prefix + n for n in state}
                others = {n: t for n, t in tensors.items() if n not in own}
                found.append(Network(prefix, layout, state, others))
    return found


def heads(tensors: State, dim: int) -> State:
    """Return the matrices with a side of `dim` in parts that are called heads; moving averages only if alone."""
    found = {name: t for name, t in tensors.items() if not HEADS.isdisjoint(name.split(".")[:-1])}
    found = {name: t for name, t in found.items() if t.ndim == 2 and dim in t.shape and not STATE.search(name)}
    return {name: t for name, t in found.items() if not COPY.search(name)} or found


def one_network(tensors: State, path: Path) -> Network:
    """Return the network of the file. Of a network and its moving average (EMA), the network is taken; a line says so.

    Raises UserError if there is none, or several.
    """
    found = find_networks(tensors)
    if not found:
        raise _unknown(tensors, path)
    plain = [n for n in found if not COPY.search(n.prefix)] or found
    if len(plain) > 1:
        names = ", ".join(f"'{n.prefix}'" for n in found)
        raise UserError(f"{path}: holds {len(found)} networks ({names}); save the one that is meant in a file alone")
    if len(found) > 1:
        copies = ", ".join(f"'{n.prefix}'" for n in found if n is not plain[0])
        print(f"{path}: the network '{plain[0].prefix}' is taken; its moving average {copies} is left out")
    return plain[0]


def load_network(network: Network, path: Path) -> Backbone:
    """Return our network with the weights. Raises UserError if a tensor is missing or has another shape."""
    try:
        converted = network.layout.convert(network.state)
    except UsageError:  # a size that no network of ours has
        converted = None
    if converted is None:
        raise _unknown(network.state, path)
    name, options, state = converted
    expected = outline(name, **options)
    for key, tensor in expected.items():  # old PyTorch did not write this counter
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, torch.zeros(tensor.shape, dtype=tensor.dtype))
    check_tensors(state, expected, path)
    with torch.random.fork_rng(devices=[]):
        backbone = create_backbone(name, **options)
    backbone.load_state_dict(state)
    return backbone


def _unknown(tensors: State, path: Path) -> UserError:
    return UserError(
        f"{path}: unknown network ({len(tensors)} tensors, first '{next(iter(tensors), 'none')}'); expected an "
        "IResNet-18/34/50/100, mbf or MobileFaceNet, in a layout that docs/model.md lists: export another network to "
        "ONNX and import that"
    )


def _iresnet(state: State) -> Converted | None:
    blocks = [len(_numbers(state, f"layer{i}")) for i in range(1, 5)]
    found = _iresnet_spec(blocks, state["conv1.weight"], state["layer4.0.conv1.weight"], state["fc.weight"])
    return found and (*found, state)


def _iresnet_spec(
    blocks: Sequence[int], first: Tensor, last: Tensor, linear: Tensor
) -> tuple[str, dict[str, Any]] | None:
    """Return name and options: blocks of each stage, first and last convolution, linear layer."""
    depth = next((depth for depth, count in DEPTHS.items() if count == tuple(blocks)), None)
    if depth is None or linear.ndim != 2:
        return None
    dim, flat = linear.shape
    width = len(first) / CHANNELS[0]
    options = {"embedding_dim": dim, "input_size": math.isqrt(flat // max(1, len(last))) * 16}
    return f"iresnet{depth}", options | ({} if width == 1 else {"width": width})


def _numbers(state: State, part: str) -> set[int]:
    """The numbers that follow `part` in the names."""
    found = (re.match(rf"{re.escape(part)}\.(\d+)\.", name) for name in state)
    return {int(m[1]) for m in found if m}


# The layers of a residual branch, by their number: FaceX-Zoo's has no bn2.
BRANCHES = {
    6: ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3"),
    5: ("bn1", "conv1", "prelu", "conv2", "bn3"),
}


def _ir(state: State) -> Converted | None:
    """IR of face.evoLVe, and of AdaFace, CVLface, TFace and FaceX-Zoo after it: IResNet under other names.

    Two of its parts have no weights, and get some: the first shortcut, which takes every second pixel, is a convolution
    with the identity; a normalisation that is left out has mean 0 and variance 1.
    """
    branch = BRANCHES.get(len(_numbers(state, "body.0.res_layer")))
    depths = [len(state.get(f"body.{i}.res_layer.1.weight", ())) for i in sorted(_numbers(state, "body"))]
    stages = list(dict.fromkeys(depths))
    if branch is None or len(stages) != 4 or any(".fc1." in name for name in state):  # fc1: squeeze and excitation
        return None
    last, linear = state[f"body.{len(depths) - 1}.res_layer.1.weight"], state["output_layer.3.weight"]
    found = _iresnet_spec([depths.count(c) for c in stages], state["input_layer.0.weight"], last, linear)
    if found is None:
        return None
    options = found[1] | {"output": "affine" if "output_layer.4.weight" in state else "plain"}
    names = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu"}
    names |= {"output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}
    for block, depth in enumerate(depths):
        ours = f"layer{stages.index(depth) + 1}.{block - depths.index(depth)}"
        names |= {f"body.{block}.res_layer.{i}": f"{ours}.{layer}" for i, layer in enumerate(branch)}
        names |= {f"body.{block}.shortcut_layer.{i}": f"{ours}.downsample.{i}" for i in range(2)}
    renamed = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{kind}"] = tensor
    return found[0], options, _neutral(outline(found[0], **options), renamed, "bn2" not in branch)


def _neutral(expected: State, state: State, no_bn2: bool) -> State:
    """Return the state with weights for the parts that have none."""
    whole = any(name.startswith("layer1.0.downsample") for name in state)
    missing = [n for n in expected if (no_bn2 and ".bn2." in n) or (not whole and n.startswith("layer1.0.downsample"))]
    for name in missing:
        shape, kind = expected[name].shape, name.rpartition(".")[2]
        if len(shape) == 4:
            state[name] = torch.eye(*shape[:2])[:, :, None, None]
        elif kind != "num_batches_tracked":
            value = {"weight": 1.0, "running_var": 1 - 1e-5}.get(kind, 0.0)  # 1e-5 is added before the root
            state[name] = torch.full(shape, value)
    return state


def _mbf(state: State) -> Converted | None:
    kernel = state["features.layers.0.layers.0.weight"].shape[-1]
    options = {"embedding_dim": len(state["features.layers.2.weight"]), "input_size": kernel * 16}
    return _in_order("mobilefacenet_large", options, state)


def _mobilefacenet(state: State) -> Converted | None:
    """MobileFaceNet of InsightFace_Pytorch and FaceX-Zoo."""
    kernel = state["conv_6_dw.conv.weight"].shape[-1]
    options = {"embedding_dim": len(state["linear.weight"]), "input_size": kernel * 16, "output": "affine"}
    return _in_order("mobilefacenet", options, state)


def _in_order(name: str, options: dict[str, Any], state: State) -> Converted:
    """Rename the tensors: our layers in our order, which the last parts of the names confirm."""
    counted = any(n.endswith("num_batches_tracked") for n in state)
    ours = [n for n in outline(name, **options) if counted or not n.endswith("num_batches_tracked")]
    if [n.split(".")[-1] for n in state] != [n.split(".")[-1] for n in ours]:
        return name, options, state
    return name, options, dict(zip(ours, state.values()))


LAYOUTS = [
    Layout(("layer4.0.conv1.weight", "conv1.weight", "fc.weight", "features.weight"), _iresnet),
    Layout(("body.0.res_layer.1.weight", "input_layer.0.weight", "output_layer.3.weight"), _ir),
    Layout(("conv_sep.layers.0.weight", "features.layers.0.layers.0.weight", "features.layers.2.weight"), _mbf),
    Layout(("conv_6_dw.conv.weight", "conv_6_sep.prelu.weight", "linear.weight", "bn.running_mean"), _mobilefacenet),
]
