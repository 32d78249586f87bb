"""The files of arcface_torch (insightface): backbones and sharded class matrices, read without running code in them.

A run holds its backbone in `model.pt` or `backbone.pth`, and the class matrix in one shard per process,
(C_local, d): `checkpoint_gpu_{rank}.pt` (with the backbone in it), `softmax_fc_gpu_{rank}.pt` or
`rank_{rank}_softmax_weight.pt`. Shards are joined in the numeric order of their ranks, which is that of the labels.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facedistill.backbones import CHANNELS, DEPTHS, Backbone, create_backbone
from facedistill.errors import UserError
from facedistill.head import Classifier
from facedistill.models.folder import check_tensors, read_names

SHARD_KINDS = ("checkpoint_gpu_", "softmax_fc_gpu_", "rank_", "rank:")
SHARD = re.compile(rf"({'|'.join(SHARD_KINDS)})(\d+)(?:_softmax_weight)?\.pt")
BACKBONE_FILES = ("model.pt", "backbone.pth", "backbone.pt")
HEAD_KEYS = ("weight", "kernel", "weight_activated")

Paths = str | Path | Sequence[str | Path]
Names = str | Path | Sequence[str]


def read_torch(path: Path) -> Any:
    """Return what torch.save wrote to `path`, on the CPU; only tensors and plain containers, never code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises half a dozen unrelated classes here
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise UserError(
            f"{path}: not a PyTorch file of plain tensors ({reason}); expected a state dict written by "
            "torch.save(model.state_dict(), path)"
        ) from e


def find_backbone(folder: Path) -> Path:
    """Return the file in a run folder that holds the backbone; the checkpoint with W in it comes first."""
    shards = find_shards(folder, ("checkpoint_gpu_",))
    named = [folder / name for name in BACKBONE_FILES if (folder / name).exists()]
    found = shards[:1] or named
    if not found:
        expected = ", ".join((*BACKBONE_FILES, "checkpoint_gpu_0.pt"))
        raise UserError(f"{folder}: no backbone in this folder; expected one of {expected}")
    return found[0]


def backbone_from_state(content: Any, path: Path) -> Backbone:
    """Return the network that a state dict (or a checkpoint with "state_dict_backbone") belongs to, with its weights.

    Raises:
        UserError: the network is unknown, or a tensor is missing or has another shape.
    """
    state = content.get("state_dict_backbone", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: no state dict of a backbone; expected a dict of tensor names and tensors")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    with torch.random.fork_rng(devices=[]):
        backbone = _recognised(state)
    if backbone is None:
        first = next(iter(state), "none")
        raise UserError(
            f"{path}: unknown network ({len(state)} tensors, first '{first}'); expected an IResNet-18/34/50/100 or mbf "
            "of arcface_torch: export another network to ONNX and import that"
        )
    expected = backbone.state_dict()
    if "conv_sep.layers.0.weight" in state:
        state = _rename(state, expected)
    for name, tensor in expected.items():  # old PyTorch did not write this counter
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, tensor)
    check_tensors(state, expected, path)
    backbone.load_state_dict(state)
    return backbone


def _recognised(state: dict[str, Tensor]) -> Backbone | None:
    if {"conv1.weight", "fc.weight", "features.weight", "layer4.0.conv1.weight"} <= state.keys():
        return _iresnet(state)
    if {"conv_sep.layers.0.weight", "features.layers.0.layers.0.weight", "features.layers.2.weight"} <= state.keys():
        kernel = state["features.layers.0.layers.0.weight"].shape[-1]
        return create_backbone("mobilefacenet_large", len(state["features.layers.2.weight"]), kernel * 16)
    return None


def _iresnet(state: dict[str, Tensor]) -> Backbone | None:
    blocks = tuple(len({n.split(".")[1] for n in state if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    depth = next((depth for depth, count in DEPTHS.items() if count == blocks), None)
    if depth is None:
        return None
    dim, flat = state["fc.weight"].shape
    side = math.isqrt(flat // len(state["layer4.0.conv1.weight"]))
    width = len(state["conv1.weight"]) / CHANNELS[0]
    return create_backbone(f"iresnet{depth}", dim, side * 16, **({} if width == 1 else {"width": width}))


def _rename(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of insightface's mbf: our layers in our order, which the last parts of the names confirm."""
    if [n.split(".")[-1] for n in state] != [n.split(".")[-1] for n in expected]:
        return state
    return dict(zip(expected, state.values()))


def load_classifier(files: Paths, dim: int, classes: Names | None = None) -> Classifier:
    """Return W from one file, a list of shards, or a folder of shards; rows of any norm.

    A single file may hold (C, d) or (d, C): whichever side is `dim` long is the embedding. Shards under the names of
    arcface_torch are (C_local, d) by definition. Without `classes` the rows are named "0", "1", ...: by their label.

    Raises:
        UserError: a rank is missing, no side or both sides are `dim` long, or names and rows differ in number.
    """
    paths = _classifier_files(files)
    weight = torch.cat([_rows(path, dim) for path in paths])
    names = [str(i) for i in range(len(weight))] if classes is None else class_names(classes)
    check_count(names, len(weight), paths[0] if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} shards)")
    return Classifier(weight, names, "teacher")


def _classifier_files(files: Paths) -> list[Path]:
    if not isinstance(files, str | Path):
        paths = [Path(f) for f in files]
        return _in_rank_order(paths) if all(SHARD.fullmatch(p.name) for p in paths) else paths
    path = Path(files)
    shard = SHARD.fullmatch(path.name)
    if path.is_dir():
        shards = find_shards(path)
    else:  # one shard of several means all: the others are beside it
        shards = find_shards(path.parent, (shard[1],)) if shard and path.exists() else [path]
    if not shards:
        raise UserError(f"{path}: no shards of a classifier; expected files such as softmax_fc_gpu_0.pt")
    return shards


def find_shards(folder: Path, kinds: Sequence[str] = SHARD_KINDS) -> list[Path]:
    """Return the shards in `folder` of the first of `kinds` that occurs, in rank order; empty if there are none.

    Raises UserError if a rank below the highest is missing. (If the highest ones are missing, only the number of class
    names can show it.)
    """
    found = [p for p in folder.iterdir() if SHARD.fullmatch(p.name)]
    groups = ([p for p in found if p.name.startswith(kind)] for kind in kinds)
    return _in_rank_order(next((g for g in groups if g), []))


def _in_rank_order(paths: Iterable[Path]) -> list[Path]:
    ranks = {int(m[2]): path for path in paths if (m := SHARD.fullmatch(path.name))}
    for rank in range(max(ranks, default=-1)):
        if rank not in ranks:
            folder = ranks[max(ranks)].parent
            raise UserError(
                f"{folder}: the classifier shard of rank {rank} is missing (found ranks {sorted(ranks)}); without it "
                "every later class would get another class's row: copy all shards"
            )
    return [ranks[rank] for rank in sorted(ranks)]


def _rows(path: Path, dim: int) -> Tensor:
    """Return W or a shard of it as (C, dim), float32."""
    if not path.exists():
        raise UserError(f"{path}: no such file; expected the teacher's classifier")
    weight = _head_tensor(read_torch(path), path)
    if SHARD.fullmatch(path.name):
        if weight.shape[1] != dim:
            raise UserError(
                f"{path}: shard of {list(weight.shape)}; expected rows of {dim}, the teacher's embedding size"
            )
        return weight.float()
    if weight.shape == (dim, dim):
        raise UserError(
            f"{path}: W is {dim} x {dim}, so rows and columns cannot be told apart; save it as (classes, dimensions) "
            "under the name softmax_fc_gpu_0.pt, which means just that"
        )
    if dim not in weight.shape:
        raise UserError(f"{path}: W is {list(weight.shape)}; expected one side of {dim}, the teacher's embedding size")
    return (weight if weight.shape[1] == dim else weight.t()).float()


def _head_tensor(content: Any, path: Path) -> Tensor:
    if isinstance(content, dict):
        content = content.get("state_dict_softmax_fc", content)
    if isinstance(content, dict):
        matrices = {str(k): v for k, v in content.items() if isinstance(v, Tensor) and v.ndim == 2 and v.numel()}
        named = [matrices[k] for k in HEAD_KEYS if k in matrices]
        if not named and len(matrices) != 1:
            shown = ", ".join(list(map(str, content))[:4])
            raise UserError(
                f"{path}: no class matrix (found {shown}); expected a tensor named {' or '.join(HEAD_KEYS)}"
            )
        content = named[0] if named else next(iter(matrices.values()))
    if not isinstance(content, Tensor) or content.ndim != 2:
        raise UserError(f"{path}: no class matrix; expected a tensor of classes x dimensions")
    return content


def class_names(classes: Names) -> list[str]:
    """Return the names, or the lines of the text file that holds them."""
    return read_names(Path(classes)) if isinstance(classes, str | Path) else list(classes)


def check_count(names: Sequence[str], count: int, where: object) -> None:
    """Raise UserError unless there is one name for each of `count` classes."""
    if len(names) != count:
        raise UserError(
            f"{where}: {count} classes, but {len(names)} class names; expected one name for each, in order: is a shard "
            "missing, or is this another data set's list?"
        )
