"""Import foreign teachers as Models: arcface_torch checkpoints, ONNX files, tables of embeddings."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from facedistill.data import Dataset, Embeddings, form_of, open_dataset
from facedistill.errors import UsageError, UserError, closest, some
from facedistill.files import fingerprint
from facedistill.head import Margin, centres, check_scale, fit_classifier as fit, make_margin
from facedistill.models.arcface_torch import (
    Names,
    Paths,
    check_count,
    class_names,
    find_backbone,
    find_shards,
    load_classifier,
)
from facedistill.models.embed import embed_dataset
from facedistill.models.layouts import heads, load_network, one_network
from facedistill.models.model import InputSpec, Model, make_space
from facedistill.models.onnx_file import onnx_model, size_taken
from facedistill.models.state_dict import named_tensors, read_tensors

TOLD_BY = 256  # images tell rows from columns of a square W
CLEARLY = 3  # times as many of them find their own class
TABLES = (".csv", ".tsv")  # read as a list of names; as data such a file would be pairs, whose names no W has


def import_model(
    path: str | Path,
    kind: str = "auto",
    classes: Names | None = None,
    classifier: Paths | None = None,
    colour: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    centre: str | Path | Dataset | None = None,
    fit_classifier: str | Path | Dataset | None = None,
    margin: str | Margin = "arcface",
    scale: float = 64.0,
    cache: Path | None = None,
    size: int | None = None,
    output: str | None = None,
) -> Model:
    """Return the Model made of a foreign file or run folder.

    Args:
        kind: "arcface_torch", "onnx", "embeddings", or "auto" to tell it from `path`.
        classes: the name of every row of W, in order: names, a text file with one a line, or a data set. Without it the
            rows are named by label number, as the classes of a RecordIO pack are.
        classifier: the file, shards, or folder of shards that hold W, if they are not beside the backbone.
        colour, mean, std: the input that the network expects, if it differs from the format's convention.
        centre: a data set whose mean embedding becomes the origin of the space (`Model.subtract_mean`). A classifier
            that came with the network belongs to the old space: it is dropped, and a printed line says so.
        fit_classifier: a data set. A W is trained on its embeddings; the network does not change.
        margin, scale: of the margin softmax of `fit_classifier`; a margin by its name, or one made by hand.
        cache: a folder that keeps the embeddings of both data sets, see `embed_dataset`.
        size: H = W of an ONNX graph that leaves them open. output: the embedding's name in one with several outputs.

    Raises:
        UsageError: an unknown kind or margin, or an option that the format does not have.
        UserError: a file is missing or damaged, or holds code, an unknown network or a W that does not fit.
    """
    check_scale(scale)  # both fail before the work, not after it
    if isinstance(margin, str):
        margin = make_margin(margin)
    given = {"classifier": classifier, "colour": colour, "mean": mean, "std": std, "size": size, "output": output}
    given = {name: value for name, value in given.items() if value is not None}
    images = _images(classes)
    model = _imported(Path(path), kind, _names(classes, images), given, images)
    if centre is not None:
        embeddings = embed_dataset(model, _dataset(centre), cache=cache)
        if model.classifier is not None:
            print("centre makes a new space; the teacher's own classifier belongs to the old one and is left out")
        model.subtract_mean(torch.from_numpy(embeddings.vectors.mean((0, 1))))
    if fit_classifier is not None:
        model.classifier = fit(embed_dataset(model, _dataset(fit_classifier), cache=cache), margin, scale)
    return model


def _dataset(data: str | Path | Dataset) -> Dataset:
    return data if isinstance(data, Dataset) else open_dataset(data)


def _images(classes: Names | None) -> Dataset | None:
    """Return the data set whose classes are W's, or None if `classes` are names alone."""
    if not isinstance(classes, str | Path) or _is_list(Path(classes)):
        return None
    return open_dataset(classes)


def _is_list(file: Path) -> bool:
    return file.is_file() and (form_of(file) is None or file.suffix.lower() in TABLES)


def _names(classes: Names | None, images: Dataset | None) -> Names | None:
    """Return the class names of a data set; return names, and the path of a text file of names, unchanged.

    The names of a data set include classes without an image, because W may have a row for them.
    """
    return classes if images is None else images.source.class_names


def _imported(path: Path, kind: str, classes: Names | None, given: dict[str, Any], images: Dataset | None) -> Model:
    """Return the Model of the file, without `centre` and `fit_classifier`. `given`: the options that are not None."""
    if kind not in FORMATS:
        raise UsageError(f"kind '{kind}'{closest(kind, FORMATS)}: expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected a checkpoint, a run folder, .onnx or .npz")
    if (path / "config.json").exists():
        raise UserError(f"{path}: already a model folder; use it as it is")
    kind = _detect(path) if kind == "auto" else kind
    reason, refused = REFUSED[kind]
    if wrong := [name for name in given if name in refused]:
        raise UsageError(f"{path}: {reason}; drop {', '.join(wrong)}")
    if kind != "embeddings":
        given["images"] = images
    model = IMPORTERS[kind](path, classes, **given)
    if classes is not None and model.classifier is None:
        raise UserError(f"{path}: has no W for these class names; give the file of W as the classifier")
    return model


def _detect(path: Path) -> str:
    """Tell the format by the name, and a file of torch.save by its first bytes too."""
    kinds = {".onnx": "onnx", ".npz": "embeddings"}
    if path.suffix in kinds and path.is_file():
        return kinds[path.suffix]
    if path.is_dir() or path.suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        return "arcface_torch"
    with open(path, "rb") as file:
        if file.read(4).startswith((b"PK\x03\x04", b"\x80\x02")):
            return "arcface_torch"
    raise UserError(
        f"{path}: cannot tell what it is; expected .pt, .pth, .ckpt, .safetensors, .onnx, .npz or a run folder, or "
        "give --from"
    )


def import_arcface_torch(
    path: str | Path,
    classes: Names | None = None,
    classifier: Paths | None = None,
    images: Dataset | None = None,
    **input: Any,
) -> Model:
    """Return the Model of an arcface_torch state dict, checkpoint or run folder; see `import_model`.

    The network and its size are found from the state dict: IResNet-18/34/50/100, or insightface's `mbf`. Input:
    RGB, (x - 127.5) / 127.5, as arcface_torch trains. In a run folder the backbone is taken from the same
    checkpoint as the shards of W, if there is one, so that the two belong together.
    """
    path = Path(path)
    file = find_backbone(path) if path.is_dir() else path
    content = read_tensors(file)
    tensors = named_tensors(content, file)
    if not isinstance(content, dict) or (content and not tensors):
        raise UserError(f"{file}: no state dict of a backbone; expected a dict of tensor names and tensors")
    network = one_network(tensors, file)
    backbone = load_network(network, file)
    if classifier is None:
        found = list(heads(network.others, backbone.embedding_dim))
        if len(found) == 1:
            classifier = file  # one shard of several, perhaps: the others lie beside it
        elif path.is_dir() and find_shards(path):
            classifier = path
        elif found:
            print(
                f"{file}: no W is taken, because there are {len(found)} heads ({some(found)}); save one in a file alone"
            )
    made = {"by": "import", "from": "arcface_torch", "file": file.name}
    model = Model(backbone, InputSpec(backbone.input_size, **input), made=made).eval()
    model.space = make_space(model)
    if classifier is not None:
        model.classifier = load_classifier(
            classifier, model.embedding_dim, classes, partial(_tell, model, images, classes)
        )
    return model


def _tell(model: Model, images: Dataset | None, classes: Names | None, weight: Tensor) -> bool | None:
    """Return whether the rows of a square W are the classes of `images`, or its columns; None if that is not clear.

    Told by the share of images whose own class is the nearest.
    """
    names = {} if images is None or classes is None else {name: i for i, name in enumerate(class_names(classes))}
    if images is None or len(names) != len(weight):
        return None
    some_of_each = np.linspace(0, len(images) - 1, min(len(images), TOLD_BY)).astype(int)
    table = embed_dataset(model, images.subset(np.unique(some_of_each)), flips=False)
    own = torch.tensor([names[table.class_names[label]] for label in table.labels.tolist()])
    unit = torch.from_numpy(table.fused("none"))
    shares = [float(((unit @ normalize(w).T).argmax(1) == own).float().mean()) for w in (weight, weight.t())]
    least, most = sorted(shares)
    return shares[0] == most if most > max(0.05, CLEARLY * least) else None


def import_onnx(
    path: str | Path,
    classes: Names | None = None,
    classifier: Paths | None = None,
    size: int | None = None,
    output: str | None = None,
    images: Dataset | None = None,
    **input: Any,
) -> Model:
    """Return the Model of an ONNX file; default input: pixels 0..255, RGB, normalisation inside. See `import_model`."""
    path = Path(path)
    model = onnx_model(path, {"by": "import", "from": "onnx", "file": path.name}, size, output, **input)
    if size is None and (note := size_taken(model)):
        print(f"{path}{note}", file=sys.stderr)
    if classifier is not None:
        model.classifier = load_classifier(
            classifier, model.embedding_dim, classes, partial(_tell, model, images, classes)
        )
    return model


def import_embeddings(path: str | Path, classes: Names | None = None) -> Model:
    """Return a teacher without a network from a table of embeddings (`Embeddings`, .npz): W is its class centres.

    Args:
        classes: names of the classes in the order of the table's labels; they replace the table's own.
    """
    path = Path(path)
    table = Embeddings.load(path)
    if classes is not None:
        names = class_names(classes)
        check_count(names, len(table.class_names), path)
        table.class_names = names
    space = table.space or fingerprint(table.vectors, *table.keys)
    return Model(
        None, classifier=centres(table), space=space, made={"by": "import", "from": "embeddings", "file": path.name}
    )


# Each format, and the options that it refuses, with the reason.
IMPORTERS: dict[str, Callable[..., Model]] = {
    "arcface_torch": import_arcface_torch,
    "onnx": import_onnx,
    "embeddings": import_embeddings,
}
REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "arcface_torch": ("its weights say the size, and a checkpoint has one output", ("size", "output")),
    "onnx": ("", ()),
    "embeddings": (
        "a table of embeddings has no network and no W",
        ("classifier", "colour", "mean", "std", "size", "output"),
    ),
}
FORMATS = ("auto", *IMPORTERS)
