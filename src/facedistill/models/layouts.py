"""The networks of public projects that ours have the weights of, recognised by the names in a state dict.

A row of LAYOUTS is a layout: the names that it must have, and the function that makes our network and our names of it.
The names may have any prefix: the projects wrap their networks in `backbone.`, `model.`, `features.module.` and so on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from facedistill.backbones import Backbone, create_backbone, outline
from facedistill.errors import UsageError, UserError
from facedistill.models.conversions import (
    Converted,
    State,
    edgeface,
    ir,
    iresnet,
    mbf,
    mixfacenet,
    mobilefacenet,
    pocketnet,
    vit,
)
from facedistill.models.state_dict import check_tensors

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
        beside = BESIDE - {name.split(".")[0] for name in layout.names}
        prefixes = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
        for prefix in (p for p in prefixes if p == "" or p.endswith(".")):
            inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            if set(layout.names) <= inside.keys():
                state = {n: t for n, t in inside.items() if n.split(".")[0] not in beside}
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
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
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
        "IResNet, mbf, MobileFaceNet, PocketNet, EdgeFace or ViT, in a layout that docs/model.md lists: export another "
        "network to ONNX and import that"
    )


LAYOUTS = [
    Layout(("layer4.0.conv1.weight", "conv1.weight", "fc.weight", "features.weight"), iresnet),
    Layout(("body.0.res_layer.1.weight", "input_layer.0.weight", "output_layer.3.weight"), ir),
    Layout(("conv_sep.layers.0.weight", "features.layers.0.layers.0.weight", "features.layers.2.weight"), mbf),
    Layout(("conv_6_dw.conv.weight", "conv_6_sep.prelu.weight", "linear.weight", "bn.running_mean"), mobilefacenet),
    Layout(("tail.6.weight", "stem.0.weight", "tail.4.weight", "cells.0.preproc1.net.1.weight"), pocketnet),
    Layout(
        ("feautre_layer.pw_conv.conv.weight", "features.init_block.conv1.conv.weight", "tail.conv.weight"), mixfacenet
    ),
    Layout(("stages.1.blocks.0.conv_dw.weight", "stem.0.bias", "head.norm.weight"), edgeface),
    Layout(("patch_embed.proj.weight", "pos_embed", "feature.2.weight", "feature.3.weight"), vit),
]
