"""A Model: a backbone with all that is needed to use it, and the folder it lives in.

A Model takes RGB pixels 0..255 and does resize, colour order and normalisation itself, so that nobody can feed it
wrongly. The folder holds config.json, model.safetensors or model.onnx, optionally classifier.safetensors with
classes.txt, and a README.md for its user; no pickle.
"""

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones import BACKBONES, Backbone, OnnxBackbone, count_macs, count_parameters, create_backbone
from facedistill.classifier import Classifier
from facedistill.errors import UsageError, UserError, closest
from facedistill.files import atomic_write, fingerprint
from facedistill.modelcard import model_card

SCHEMA = 1
FLIPS = ("sum", "concat", "none")
TEXT = ("utf-8", "surrogateescape")  # classes are often named after folders, whose names may be any bytes


@dataclass(frozen=True)
class InputSpec:
    """What the backbone expects: size x size, channels in `colour` order, x = (pixels 0..255 - mean) / std.

    `mean` and `std` are given in the backbone's channel order, for all channels or one for each.
    """

    size: int = 112
    colour: str = "rgb"
    mean: Sequence[float] = (127.5, 127.5, 127.5)
    std: Sequence[float] = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        if self.colour not in ("rgb", "bgr"):
            raise UsageError(f"colour '{self.colour}': expected rgb or bgr")
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            values = values * 3 if len(values) == 1 else values
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                raise UsageError(f"{name} {list(values)}: expected 1 or 3 numbers, std above 0, for pixels 0..255")
            object.__setattr__(self, name, values)


@dataclass
class Output:
    """What a network gives: `embedding` (B, d) raw, stage maps if asked for, and parts of a composed student."""

    embedding: Tensor
    features: tuple[Tensor, ...] = ()
    parts: dict[str, Any] = field(default_factory=dict)


class Model(nn.Module):
    """backbone -> projection -> minus offset, on RGB pixels 0..255.

    Args:
        backbone: None for a teacher of which only embeddings are known; it cannot run, only be inherited from.
        input: default: the backbone's size, RGB, (pixels - 127.5) / 127.5.
        classifier: W, in this model's space.
        offset: float (d,), subtracted from every embedding (`import --centre`).
        projection: a linear layer from the backbone's dimension to d, part of the model wherever it goes.
        space: id of the embedding space; `save_model` makes one where None.
        made: how the model was made, any JSON.
        thresholds: list of {"far", "value", "interval", "probe", "gallery", ...}, see `save_thresholds`.
        embedding_dim: needed only when backbone and classifier are None.

    Raises:
        UserError: dimensions of backbone, projection, offset and classifier do not fit.
    """

    mean: Tensor
    std: Tensor
    offset: Tensor | None

    def __init__(
        self,
        backbone: Backbone | None,
        input: InputSpec | None = None,
        classifier: Classifier | None = None,
        offset: Tensor | None = None,
        projection: nn.Linear | None = None,
        space: str | None = None,
        made: dict[str, Any] | None = None,
        thresholds: list[dict[str, Any]] | None = None,
        embedding_dim: int | None = None,
    ) -> None:
        super().__init__()
        if input is None:
            input = InputSpec() if backbone is None else InputSpec(size=backbone.input_size)
        if backbone is not None and backbone.input_size != input.size:
            raise UserError(f"model: input size {input.size}, but its backbone takes {backbone.input_size}")
        self.backbone, self.projection = backbone, projection
        self.input, self.space, self.made, self.thresholds = input, space, made or {}, thresholds or []
        self.embedding_dim = _embedding_dim(backbone, projection, classifier, offset, embedding_dim)
        self.classifier = classifier
        self.register_buffer("mean", torch.tensor(input.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(input.std).view(3, 1, 1), persistent=False)
        self.register_buffer("offset", None if offset is None else offset.detach().float().clone())

    @property
    def input_size(self) -> int:
        return self.input.size

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """Return the backbone's float32 input for RGB pixels 0..255 (N, 3, H, W), resized where H or W differ."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"model: images of shape {list(images.shape)}; expected N x 3 x H x W, RGB 0..255")
        size = self.input.size
        images = images.float() if images.is_floating_point() else images
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
        if self.input.colour == "bgr":
            images = images.flip(1)
        # uint8 - float32 promotes in one pass over the batch; the division then works in place.
        return (images - self.mean).div_(self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, d), not of unit length, for RGB pixels 0..255 (N, 3, H, W), uint8 or float."""
        backbone = self._running()
        return self._place(backbone(self.normalise(images)))

    def outputs(self, images: Tensor, features: bool = True) -> Output:
        """As `forward`, with the stage maps unless `features` is False."""
        if not features:
            return Output(self(images))
        embedding, maps = self._running().with_features(self.normalise(images))
        return Output(self._place(embedding), maps)

    @torch.inference_mode()
    def embed(self, images: Tensor, flip: str = "sum") -> Tensor:
        """Return unit embeddings (N, d), or (N, 2d) for "concat", in eval mode; the mode is restored.

        Args:
            flip: add the mirrored image's embedding ("sum"), append it ("concat"), or ignore it ("none").
        """
        if flip not in FLIPS:
            raise UsageError(f"flip '{flip}'{closest(flip, FLIPS)}: expected one of {', '.join(FLIPS)}")
        images = images.to(self.device)
        _warn_range(images)
        training = self.training
        self.eval()
        try:
            vectors = self(images)
            if flip != "none":
                mirrored = self(images.flip(-1))
                vectors = vectors + mirrored if flip == "sum" else torch.cat([vectors, mirrored], dim=1)
        finally:
            self.train(training)
        return F.normalize(vectors.float(), dim=1)

    def parameters_count(self) -> int:
        """Parameters of backbone and projection; the classifier is no part of what is deployed."""
        return sum(count_parameters(m) for m in (self.backbone, self.projection) if m is not None)

    def macs(self) -> int | None:
        """Multiply-adds for one image, or None without a backbone."""
        if self.backbone is None:
            return None
        projection = 0 if self.projection is None else self.projection.weight.numel()
        return count_macs(self.backbone, self.input.size) + projection

    def fingerprint(self) -> str:
        """16 hex characters of everything that decides the embeddings: weights, preprocessing, offset."""
        parts: list[object] = [json.dumps(asdict(self.input))]
        if isinstance(self.backbone, OnnxBackbone):
            parts.append(self.backbone.content())
        for name, tensor in self.state_dict().items():
            value = tensor.detach().cpu().contiguous()
            parts += [f"{name} {value.dtype} {list(value.shape)}", value.view(-1).view(torch.uint8).numpy()]
        return fingerprint(*parts)

    def subtract_mean(self, mean: Tensor) -> None:
        """Move the origin of the space to `mean` (d,), the mean of this model's embeddings over some data.

        That founds a new space, to which the classifier and thresholds of the old one do not belong: they are dropped.
        """
        if mean.shape != (self.embedding_dim,):
            raise UserError(f"model: mean of shape {list(mean.shape)}; expected [{self.embedding_dim}]")
        mean = mean.detach().float().to(self.device)
        self.offset = mean.clone() if self.offset is None else self.offset + mean
        self.classifier, self.thresholds = None, []
        self.space = make_space(self)

    def _running(self) -> Backbone:
        if self.backbone is None:
            raise UserError(
                "this model holds embeddings only, no network: it can be inherited from, not run; "
                "import the teacher's checkpoint or ONNX file to run it"
            )
        return self.backbone

    def _place(self, embedding: Tensor) -> Tensor:
        if self.projection is not None:
            with torch.autocast(embedding.device.type, enabled=False):
                embedding = self.projection(embedding.float())
        return embedding if self.offset is None else embedding - self.offset


def _embedding_dim(
    backbone: Backbone | None,
    projection: nn.Linear | None,
    classifier: Classifier | None,
    offset: Tensor | None,
    embedding_dim: int | None,
) -> int:
    dims = {}
    if backbone is not None:
        dims["its backbone"] = backbone.embedding_dim
    if projection is not None:
        inner = dims.get("its backbone")
        if inner not in (None, projection.in_features):
            raise UserError(f"model: projection takes {projection.in_features} values, but its backbone gives {inner}")
        dims = {"its projection": projection.out_features}
    if embedding_dim is not None:
        dims["embedding_dim"] = embedding_dim
    if classifier is not None:
        dims["its classifier's rows"] = classifier.dim
    if offset is not None:
        if offset.ndim != 1:
            raise UserError(f"model: offset of shape {list(offset.shape)}; expected one vector")
        dims["its offset"] = len(offset)
    if len(set(dims.values())) != 1:
        found = ", ".join(f"{what} {dim}" for what, dim in dims.items()) or "nothing says it"
        raise UserError(
            f"model: embedding dimensions do not fit ({found}); give the model a projection, or import anew"
        )
    return next(iter(dims.values()))


def _warn_range(images: Tensor) -> None:
    if images.is_floating_point() and images.numel() and images.device.type == "cpu" and images.amax() <= 1:
        warnings.warn("images lie within 0..1; a Model takes pixels 0..255: multiply by 255", stacklevel=3)


def make_space(model: Model) -> str:
    """Return the id of the space that this model founds: of its weights, preprocessing and offset."""
    return model.fingerprint()


def save_model(model: Model, folder: str | Path) -> None:
    """Write the model folder in one rename; a model folder already there is replaced.

    Sets `model.space` where it is None.

    Raises:
        UsageError: `folder` holds something that is no model.
        UserError: the disk is full, or the backbone was not made by `create_backbone`.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and (_is_model_folder(folder) or not any(folder.iterdir()))):
        raise UsageError(f"{folder}: exists and is not a model folder; nothing was written: choose another --out")
    if (
        isinstance(model.backbone, Backbone)
        and not isinstance(model.backbone, OnnxBackbone)
        and not model.backbone.spec
    ):
        raise UserError("model: its backbone has no name to load it by; make it with create_backbone(name, ...)")
    if model.space is None:
        model.space = make_space(model)
    config = _config(model)
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        _save_weights(model, temporary)
        if model.classifier is not None:
            _save_classifier(model.classifier, temporary)
        (temporary / "config.json").write_text(_to_json(config), *TEXT)
        (temporary / "README.md").write_text(model_card(config, folder.name), *TEXT)


def save_thresholds(path: str | Path, thresholds: list[dict[str, Any]]) -> None:
    """Add calibrated thresholds to a model folder, or a run's; one of the same rate, models and flip is replaced.

    Args:
        thresholds: {"far": target, "value": cosine, "interval": [low, high], "probe", "gallery": fingerprints of the
            models, "flip", and where it was measured}.

    Raises:
        UsageError: `path` is a bare .onnx, which has no place for them.
        UserError: no model folder, or it cannot be written.
    """
    folder = thresholds_folder(path)
    config = _read_config(folder)

    def holds_for(threshold: dict[str, Any]) -> list[Any]:
        return [threshold.get(key) for key in ("far", "probe", "gallery", "flip")]

    replaced = [holds_for(new) for new in thresholds]
    config["thresholds"] = [t for t in config["thresholds"] if holds_for(t) not in replaced] + thresholds
    for name, text in (("config.json", _to_json(config)), ("README.md", model_card(config, folder.name))):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, *TEXT)


def thresholds_folder(path: str | Path) -> Path:
    """The folder that keeps the thresholds of a model folder or a run; UsageError for a bare .onnx, which has none."""
    folder = _folder_of(Path(path))
    if folder.is_file():
        raise UsageError(
            f"{path}: a file has no place for a threshold; `facedistill import` makes a model folder of it"
        )
    return folder


def _folder_of(path: Path) -> Path:
    """The model folder of a run; a model folder itself, and whatever else, as it is."""
    run = not (path / "config.json").exists() and (path / "model" / "config.json").exists()
    return path / "model" if run else path


def _to_json(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _config(model: Model) -> dict[str, Any]:
    config: dict[str, Any] = {"schema": SCHEMA}
    if model.backbone is None:
        config["backbone"] = None
    elif isinstance(model.backbone, OnnxBackbone):
        config |= {"architecture": "onnx", "options": {}}
    else:
        config |= {"architecture": model.backbone.spec["name"], "options": model.backbone.spec["options"]}
    config |= {"embedding_dim": model.embedding_dim, "input": asdict(model.input)}
    if model.offset is not None:
        config["offset"] = model.offset.tolist()
    if model.projection is not None:
        config["projection"] = {"in": model.projection.in_features, "out": model.projection.out_features}
    if model.backbone is not None:
        config |= {"parameters": model.parameters_count(), "macs": model.macs()}
    if model.classifier is not None:
        config["classifier"] = {"origin": model.classifier.origin, "classes": len(model.classifier)}
    return config | {"made": model.made, "space": model.space, "thresholds": model.thresholds}


def _save_weights(model: Model, folder: Path) -> None:
    if isinstance(model.backbone, OnnxBackbone):
        model.backbone.save(folder / "model.onnx")
    if any(name != "offset" for name in model.state_dict()):
        save_weights(model, folder / "model.safetensors")


def save_weights(model: Model, file: Path) -> None:
    """Write a file of weights that `load_weights` reads."""
    save_tensors({k: v for k, v in model.state_dict().items() if k != "offset"}, file)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError when the disk is full."""
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, metadata)
    except SafetensorError as e:  # a full disk arrives as this, not as OSError
        raise OSError(str(e)) from e


def _save_classifier(classifier: Classifier, folder: Path) -> None:
    broken = next((n for n in classifier.class_names if "\n" in n or "\r" in n), None)
    if broken is not None:
        raise UserError(f"class name {broken!r} holds a line break; classes.txt has one name a line: rename the class")
    tensors = {"weight": classifier.weight}
    if classifier.counts is not None:
        tensors["counts"] = classifier.counts
    save_tensors(tensors, folder / "classifier.safetensors")
    (folder / "classes.txt").write_text("".join(f"{n}\n" for n in classifier.class_names), *TEXT)


def load_model(path: str | Path, classifier: bool = True) -> Model:
    """Return the Model of a model folder, of a run (its `model/`), or of a bare .onnx file, in eval mode.

    A bare ONNX file is taken as pixels 0..255, RGB, normalisation inside; a line on stderr says so.

    Args:
        classifier: load W too, if there is one (it may be gigabytes).

    Raises:
        UserError: nothing there, no model, or a file that does not fit; what, where, expected and found.
    """
    path = Path(path)
    if path.suffix == ".onnx" and not path.is_dir():
        print(f"{path}: taken as pixels 0..255, RGB, normalisation inside", file=sys.stderr)
        return onnx_model(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected a model folder, a run or an .onnx file")
    path = _folder_of(path)
    config = _read_config(path)
    try:
        return _build(config, path, classifier).eval()
    except (KeyError, TypeError) as e:
        raise UserError(
            f"{path / 'config.json'}: a key is missing or ill-typed ({e}); the file was edited or damaged"
        ) from e


def onnx_model(path: Path, input: InputSpec | None = None, made: dict[str, Any] | None = None) -> Model:
    """Return the Model of an ONNX file; `input` default: pixels 0..255, RGB, normalisation inside."""
    backbone = OnnxBackbone(path, None if input is None else input.size)
    if input is None:
        input = InputSpec(backbone.input_size, mean=(0.0,), std=(1.0,))
    model = Model(backbone, input, made=made or {"by": "bare ONNX file", "file": path.name})
    model.space = make_space(model)
    return model.eval()


def _is_model_folder(path: Path) -> bool:
    try:
        return "embedding_dim" in json.loads((path / "config.json").read_text(*TEXT))
    except (OSError, ValueError, TypeError):
        return False


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.exists():
        raise UserError(f"{path}: not a model folder (no config.json); expected a model folder, a run or an .onnx file")
    try:
        config = json.loads(file.read_text(*TEXT))
    except ValueError as e:
        raise UserError(f"{file}: not readable as JSON ({e}); the file is damaged") from e
    if not isinstance(config, dict) or "embedding_dim" not in config:
        raise UserError(f"{file}: no facedistill model (no 'embedding_dim'); expected a folder made by save_model")
    if config.get("schema") != SCHEMA:
        raise UserError(f"{file}: schema {config.get('schema')}; this version reads {SCHEMA}: update facedistill")
    return config


def _build(config: dict[str, Any], path: Path, with_classifier: bool) -> Model:
    size = config.get("projection")
    model = Model(
        _build_backbone(config, path),
        InputSpec(**config["input"]),
        _load_classifier(config, path) if with_classifier and "classifier" in config else None,
        torch.tensor(config["offset"]) if "offset" in config else None,
        nn.utils.skip_init(nn.Linear, size["in"], size["out"], bias=False) if size else None,
        config["space"],
        config["made"],
        config["thresholds"],
        config["embedding_dim"],
    )
    if any(name != "offset" for name in model.state_dict()):
        load_weights(model, path / "model.safetensors")
    return model


def load_weights(model: Model, file: Path) -> None:
    """Load a file of weights, of a model folder or of a run's epochs/, into the model. UserError if they do not fit."""
    expected = {k: v for k, v in model.state_dict().items() if k != "offset"}
    # Names and shapes are checked there; not strict, because the offset stands in config.json.
    model.load_state_dict(_load_tensors(file, expected), strict=False)


def _build_backbone(config: dict[str, Any], path: Path) -> Backbone | None:
    if "backbone" in config:
        return None
    name = config["architecture"]
    if name == "onnx":
        return OnnxBackbone(path / "model.onnx", config["input"]["size"])
    if name not in BACKBONES:
        raise UserError(
            f"{path / 'config.json'}: unknown architecture '{name}'{closest(name, BACKBONES)}; "
            f"expected one of {', '.join(BACKBONES)}"
        )
    with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten; loading must not draw numbers
        return create_backbone(name, **config["options"])


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise UserError(f"{path}: missing; the model folder is not complete: copy all of it")
    try:
        with safe_open(path, "pt") as f:
            names = f.keys()
            return {name: f.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: damaged ({e}); copy it again") from e


def _load_tensors(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    found = _read_tensors(path)
    check_tensors(found, expected, path)
    return found


def check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], path: str | Path) -> None:
    """Raise UserError unless both have the same names and shapes; the first difference is named."""
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(
                f"{path}: tensor '{name}' is missing{closest(name, found)}; this file holds another network"
            )
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor '{name}' has shape {list(found[name].shape)}; expected {list(tensor.shape)}: "
                "this file holds another network or size"
            )
    extra = [name for name in found if name not in expected]
    if extra:
        raise UserError(f"{path}: {len(extra)} unexpected tensors ('{extra[0]}'); this file holds another network")


def _load_classifier(config: dict[str, Any], path: Path) -> Classifier:
    tensors = _read_tensors(path / "classifier.safetensors")
    file = path / "classes.txt"
    names = read_names(file)
    weight = tensors["weight"]
    if len(names) != len(weight):
        raise UserError(
            f"{file}: {len(names)} names, but classifier.safetensors has {len(weight)} rows; expected one name a row"
        )
    return Classifier(weight, names, config["classifier"]["origin"], tensors.get("counts"), unit=True)


def read_names(path: Path) -> list[str]:
    """Return the lines of a class file, one name each, in order. Raises UserError when it cannot be read."""
    try:
        return path.read_text(*TEXT).removesuffix("\n").split("\n")
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read ({e}); expected a text file with one class name a line") from e
