"""From the state dict of a public project's network to ours: its name, its options, and the weights under our names.

A function returns None for a network of its kind that we do not have.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from facedistill.backbones import CHANNELS, DEPTHS, outline
from facedistill.errors import UserError

State = dict[str, Tensor]
Converted = tuple[str, dict[str, Any], State]


def iresnet(state: State) -> Converted | None:
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


def ir(state: State) -> Converted | None:
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


def mbf(state: State) -> Converted | None:
    kernel = state["features.layers.0.layers.0.weight"].shape[-1]
    options = {"embedding_dim": len(state["features.layers.2.weight"]), "input_size": kernel * 16}
    return _in_order("mobilefacenet_large", options, state)


def mobilefacenet(state: State) -> Converted | None:
    """MobileFaceNet of InsightFace_Pytorch and FaceX-Zoo."""
    kernel = state["conv_6_dw.conv.weight"].shape[-1]
    options = {"embedding_dim": len(state["linear.weight"]), "input_size": kernel * 16, "output": "affine"}
    return _in_order("mobilefacenet", options, state)


def _in_order(name: str, options: dict[str, Any], state: State) -> Converted:
    """Rename the tensors: our layers in our order, which the last parts of the names confirm."""
    counted = any(n.endswith("num_batches_tracked") for n in state)
    expected = outline(name, **options)
    ours = [n for n in expected if counted or not n.endswith("num_batches_tracked")]
    if [n.split(".")[-1] for n in state] != [n.split(".")[-1] for n in ours]:
        return name, options, state
    return name, options, {n: _as_linear(t, expected[n]) for n, t in zip(ours, state.values())}


def _as_linear(tensor: Tensor, expected: Tensor) -> Tensor:
    """Return a 1x1 convolution over one place as the linear layer that it is; any other tensor as it is."""
    pointwise = tensor.ndim == 4 and expected.ndim == 2 and tensor.shape[2:] == (1, 1)
    return tensor[:, :, 0, 0] if pointwise else tensor


def pocketnet(state: State) -> Converted | None:
    """PocketNet of the authors, with their published cells."""
    cells = len(_numbers(state, "cells"))
    options = {"embedding_dim": len(state["tail.6.weight"]), "input_size": state["tail.4.weight"].shape[-1] * 16}
    name = {(64, 18): "pocketnet_s", (128, 9): "pocketnet_m"}.get((len(state["stem.0.weight"]), cells))
    return _in_order(name, options, state) if name else None


def mixfacenet(state: State) -> Converted | None:
    """MixFaceNet of the authors is refused: shuffling has no weights, so the file cannot say which network it is."""
    raise UserError(
        "a MixFaceNet, whose file does not say if its channels are shuffled (ShuffleMixFaceNet has the same weights), "
        "and the wrong network gives wrong embeddings: export it to ONNX with the authors' code, and import that"
    )


def edgeface(state: State) -> Converted | None:
    """EdgeFace of the authors, whose names are ours."""
    bias = state.get("head.fc.linear2.bias", state.get("head.fc.bias"))
    name = {24: "edgeface_xxs", 32: "edgeface_xs", 48: "edgeface_s"}.get(len(state["stem.0.bias"]))
    return (name, {"embedding_dim": len(bias)}, state) if name and bias is not None else None


def vit(state: State) -> Converted | None:
    """ViT-T and ViT-S of arcface_torch. The mask token, which only their training uses, is left out."""
    side = math.isqrt(state["pos_embed"].shape[1])
    options = {"embedding_dim": len(state["feature.2.weight"]), "input_size": 112 if side == 12 else side * 9}
    name = {(256, 12): "vit_t", (512, 12): "vit_s"}.get((state["pos_embed"].shape[2], len(_numbers(state, "blocks"))))
    return (name, options, {n: t for n, t in state.items() if n != "mask_token"}) if name else None
