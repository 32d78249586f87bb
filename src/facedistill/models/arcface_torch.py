"""The files of a training run: its backbone, and its class matrix, whole or in one shard per process.

arcface_torch (insightface) has the backbone in `model.pt` or `backbone.pth`, and shards (C_local, d):
`checkpoint_gpu_{rank}.pt` (with the backbone in it), `softmax_fc_gpu_{rank}.pt` or `rank_{rank}_softmax_weight.pt`.
Other projects have other names. Shards are joined in the numeric order of their ranks, which is that of the labels.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from facedistill.errors import UserError, some
from facedistill.head import Classifier
from facedistill.models.folder import read_names
from facedistill.models.layouts import find_networks, heads
from facedistill.models.state_dict import named_tensors, read_tensors

BACKBONE_FILES = ("model.pt", "backbone.pth", "backbone.pt")
CHECKPOINT = re.compile(r"checkpoint_gpu_\d+\.pt")
ARCFACE_TORCH = (
    CHECKPOINT,
    re.compile(r"softmax_fc_gpu_\d+\.pt"),
    re.compile(r"rank[_:]\d+(_softmax_weight)?\.pt"),
)
# Names that mean shards of W without being asked: arcface_torch's, TFace's, CVLface's.
SHARDS = (
    *ARCFACE_TORCH,
    re.compile(r"HEAD_Epoch_\d+_Split_\d+_checkpoint\.pth"),
    re.compile(r"classifier\w*_rank\d+\.pt"),
)
SHARD = re.compile(r"(.*(?:gpu|rank|split|shard|part)[_:.-]?)(\d+)(.*)", re.IGNORECASE)
HEAD_KEYS = ("weight", "kernel", "weight_activated")

Paths = str | Path | Sequence[str | Path]
Names = str | Path | Sequence[str]


def find_backbone(folder: Path) -> Path:
    """Return the file in a run folder that holds the backbone; the checkpoint with W in it comes first.

    Raises UserError if there is none, or several under names that say no more than "backbone".
    """
    shards = find_shards(folder, (CHECKPOINT,))
    named = [folder / name for name in BACKBONE_FILES if (folder / name).exists()]
    called = sorted(p for p in folder.iterdir() if p.name.lower().startswith("backbone") and p.is_file())
    found = shards[:1] or named[:1] or called
    if len(found) != 1:
        expected = ", ".join((*BACKBONE_FILES, "checkpoint_gpu_0.pt"))
        there = f"{len(found)} backbones ({some([p.name for p in found])})" if found else "no backbone"
        raise UserError(f"{folder}: {there} in this folder; expected one of {expected}, or give the file itself")
    return found[0]


def load_classifier(
    files: Paths, dim: int, classes: Names | None = None, tell: Callable[[Tensor], bool | None] = lambda rows: None
) -> Classifier:
    """Return W from one file, a list of shards, or a folder of shards; rows of any norm.

    A single file may hold (C, d) or (d, C): whichever side is `dim` long is the embedding. Shards under the names of
    arcface_torch are (C_local, d) by definition. Without `classes` the rows are named "0", "1", ...: by their label.

    Args:
        tell: whether the rows of a square matrix are its classes; None if that cannot be told.

    Raises:
        UserError: a rank is missing, no side or both sides are `dim` long, or names and rows differ in number.
    """
    paths = _classifier_files(files)
    weight = torch.cat([_rows(path, dim, tell) for path in paths])
    names = [str(i) for i in range(len(weight))] if classes is None else class_names(classes)
    check_count(names, len(weight), paths[0] if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} shards)")
    return Classifier(weight, names, "teacher")


def _classifier_files(files: Paths) -> list[Path]:
    if not isinstance(files, str | Path):
        return in_order([Path(f) for f in files])
    path = Path(files)
    if path.is_dir():
        shards = find_shards(path) or _only_family(path)
    else:  # one shard of several means all: the others are beside it
        family = _family(path)
        shards = [p for p in path.parent.iterdir() if _family(p) == family] if family and path.exists() else [path]
    if not shards:
        raise UserError(f"{path}: no shards of a classifier; expected files such as softmax_fc_gpu_0.pt")
    return in_order(shards)


def find_shards(folder: Path, kinds: Sequence[re.Pattern[str]] = SHARDS) -> list[Path]:
    """Return the shards in `folder` of the first of `kinds` that occurs, in numeric order; empty if there are none.

    Raises UserError if one below the highest is missing. (If the highest ones are missing, only the number of class
    names can show it.)
    """
    groups = ([p for p in folder.iterdir() if kind.fullmatch(p.name)] for kind in kinds)
    return in_order(next((g for g in groups if g), []))


def _family(path: Path) -> tuple[str, ...] | None:
    """Return what the names of all shards of one W have in common; None for a name that is not of a shard."""
    match = SHARD.fullmatch(path.name)
    return None if match is None else (match[1], match[3])


def _only_family(folder: Path) -> list[Path]:
    """Return the shards of any name in the folder. Raises UserError if they are of several matrices."""
    families = {family for p in folder.iterdir() if (family := _family(p))}
    if len(families) > 1:
        examples = ", ".join(sorted("N".join(family) for family in families))
        raise UserError(f"{folder}: shards of {len(families)} kinds ({examples}); give the files of one kind")
    return [p for p in folder.iterdir() if _family(p) in families]


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Return the shards in the order of the number in their names, whatever the order in which they are given.

    Raises UserError if the names do not show an order, or a number is missing.
    """
    if len(paths) < 2:
        return list(paths)
    pieces = [re.split(r"(\d+)", str(p)) for p in paths]
    differing = {column for column in zip(*pieces) if len(set(column)) > 1}  # text stands at the even places
    numbers = {tuple(map(int, column)) for column in differing if all(map(str.isdigit, column))}
    alike = len({len(p) for p in pieces}) == len(numbers) == 1 and all(all(map(str.isdigit, c)) for c in differing)
    placed = dict(zip(next(iter(numbers), ()), paths))
    if not alike or len(placed) < len(paths):
        raise UserError(
            f"{paths[0].parent}: the names of the shards ({some([p.name for p in paths])}) do not show their order; "
            "name them alike but for one number: 0, 1, 2, ..."
        )
    first = 0 if any(kind.fullmatch(paths[0].name) for kind in SHARDS) else min(min(placed), 1)
    total = re.search(r"of[-_]?(\d+)", paths[0].name)
    count = max(placed) + 1 - first if total is None else int(total[1])
    for number in range(first, first + count):
        if number not in placed:
            raise UserError(
                f"{paths[0].parent}: the classifier shard of rank {number} is missing (found ranks {sorted(placed)}); "
                "without it every later class would get another class's row: copy all shards"
            )
    return [placed[number] for number in sorted(placed)]


def _rows(path: Path, dim: int, tell: Callable[[Tensor], bool | None]) -> Tensor:
    """Return W or a shard of it as (C, dim), float32."""
    if not path.exists():
        raise UserError(f"{path}: no such file; expected the teacher's classifier")
    weight = class_matrix(named_tensors(read_tensors(path), path), path, dim)
    if not weight.is_floating_point():
        kind = str(weight.dtype).removeprefix("torch.")
        raise UserError(f"{path}: W is {kind}; expected floating-point rows: dequantise them")
    if any(kind.fullmatch(path.name) for kind in ARCFACE_TORCH):
        if weight.shape[1] != dim:
            raise UserError(
                f"{path}: shard of {list(weight.shape)}; expected rows of {dim}, the teacher's embedding size"
            )
        return weight.float()
    if weight.shape == (dim, dim):
        classes_are_rows = tell(weight.float())
        if classes_are_rows is None:
            raise UserError(
                f"{path}: W is {dim} x {dim}, so rows and columns cannot be told apart; give a data set of its classes "
                "(--classes DATASET), whose images tell, or save it as (classes, dimensions) under the name "
                "softmax_fc_gpu_0.pt, which means just that"
            )
        return (weight if classes_are_rows else weight.t()).float()
    if dim not in weight.shape:
        raise UserError(f"{path}: W is {list(weight.shape)}; expected one side of {dim}, the teacher's embedding size")
    return (weight if weight.shape[1] == dim else weight.t()).float()


def class_matrix(tensors: dict[str, Tensor], path: Path, dim: int) -> Tensor:
    """Return the class matrix among the tensors of a file, as it is there.

    The matrices of a network in the same file are not taken for it. If the network is unknown, only a matrix of a part
    that is called a head can be W.

    Raises UserError if there is none, or several.
    """
    for network in find_networks(tensors):
        tensors = {name: t for name, t in tensors.items() if name in network.others}
    unknown = any(t.ndim > 2 or name.endswith("running_mean") for name, t in tensors.items())
    matrices = {name: t for name, t in tensors.items() if t.ndim == 2 and t.numel()}
    of_dim = heads(tensors, dim)
    if not of_dim and not unknown:
        of_dim = {name: t for name, t in matrices.items() if dim in t.shape} or matrices
    for key in HEAD_KEYS:
        if len(of_dim) > 1:
            of_dim = {name: t for name, t in of_dim.items() if name.split(".")[-1] == key} or of_dim
    if len(of_dim) != 1:
        shown = some(list(of_dim or tensors)) or "a network and nothing else"
        raise UserError(f"{path}: no class matrix (found {shown}); expected a tensor named {' or '.join(HEAD_KEYS)}")
    return next(iter(of_dim.values()))


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
