"""The model folder: config.json, weights, classifier and model card; saving and loading."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facedistill.backbones import BACKBONES, Backbone, OnnxBackbone, create_backbone, outline
from facedistill.data import read_lines
from facedistill.errors import UsageError, UserError
from facedistill.files import atomic_write
from facedistill.head import Classifier
from facedistill.models.card import FEATURES, model_card
from facedistill.models.config import check_config, check_weights, checksums
from facedistill.models.fused import FUSED, Fused
from facedistill.models.hub import fetch, is_hub_address
from facedistill.models.model import InputSpec, Model, make_space
from facedistill.models.onnx_file import TAKEN, onnx_backbone, onnx_model, size_taken
from facedistill.models.tensors import check_sizes, load_tensors, read_tensors, save_tensors

CONFIG_SCHEMA = 1
MEMBERS = "members"  # of a fused model: a folder of model folders
TEXT = ("utf-8", "surrogateescape")  # classes are often named after folders, whose names may be any bytes


def save_model(model: Model, folder: str | Path) -> None:
    """Write the model folder in one rename; a model folder already there is replaced.

    Sets `model.space` if it is None.

    Raises:
        UsageError: `folder` holds something other than a model.
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
        config["sha256"] = checksums(temporary)
        (temporary / "config.json").write_text(to_json(config), *TEXT)
        (temporary / "README.md").write_text(model_card(config, folder.name), *TEXT)


def model_folder(path: Path) -> Path:
    """Return the model folder of a run; return any other path unchanged."""
    run = not (path / "config.json").exists() and (path / "model" / "config.json").exists()
    return path / "model" if run else path


def to_json(config: dict[str, Any]) -> str:
    """Return the text of config.json."""
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _config(model: Model) -> dict[str, Any]:
    config: dict[str, Any] = {"schema": CONFIG_SCHEMA}
    if model.backbone is None:
        config["backbone"] = None
    elif isinstance(model.backbone, OnnxBackbone):
        named = {"output": model.backbone.output} if model.backbone.output else {}
        config |= {"architecture": "onnx", "options": named}
    else:
        config |= {"architecture": model.backbone.spec["name"], "options": model.backbone.spec["options"]}
    config |= {"embedding_dim": model.embedding_dim, "input": asdict(model.input)}
    if model.takes_features:
        config["takes"] = FEATURES
    if model.offset is not None:
        config["offset"] = model.offset.tolist()
    if model.projection is not None:
        config["projection"] = {"in": model.projection.in_features, "out": model.projection.out_features}
    if model.backbone is not None:
        config |= {"parameters": model.parameters_count(), "macs": model.macs()}
    if model.classifier is not None:
        head = model.classifier
        scale = {} if head.scale is None else {"scale": head.scale}
        config["classifier"] = {"origin": head.origin, "classes": len(head)} | scale
    return config | {"made": model.made, "space": model.space, "thresholds": model.thresholds}


def _save_weights(model: Model, folder: Path) -> None:
    if isinstance(model.backbone, OnnxBackbone):
        model.backbone.save(folder / "model.onnx")
    if isinstance(model.backbone, Fused):
        for number, member in enumerate(model.backbone.members):
            save_model(member, folder / MEMBERS / str(number))
    if any(name != "offset" for name in model.state_dict()):
        save_weights(model, folder / "model.safetensors")


def save_weights(model: Model, file: Path) -> None:
    """Write a file of weights that `load_weights` reads."""
    save_tensors({k: v for k, v in model.state_dict().items() if k != "offset"}, file)


def _save_classifier(classifier: Classifier, folder: Path) -> None:
    broken = next((n for n in classifier.class_names if "\n" in n or "\r" in n), None)
    if broken is not None:
        raise UserError(f"class name {broken!r} holds a line break; classes.txt has one name a line: rename the class")
    tensors = {"weight": classifier.weight}
    if classifier.counts is not None:
        tensors["counts"] = classifier.counts
    if classifier.bias is not None:
        tensors["bias"] = classifier.bias
    save_tensors(tensors, folder / "classifier.safetensors")
    (folder / "classes.txt").write_text("".join(f"{n}\n" for n in classifier.class_names), *TEXT)


def load_model(path: str | Path, classifier: bool = True) -> Model:
    """Return the Model of a model folder, of a run (its `model/`), or of a bare .onnx file, in eval mode.

    hf://OWNER/NAME, or hf://OWNER/NAME@REVISION, is a model folder on the Hugging Face Hub. It is fetched into the
    hub's own cache; nothing else is ever downloaded.

    An ONNX file that `export` wrote says itself what it takes, and keeps its space and thresholds. Any other is assumed
    to take pixels 0..255, RGB, and to normalise them. A line on stderr says which.

    A model folder holds no code. If config.json names a network as `package.module:Class`, that module is imported
    from this machine, and the class is called only if it is a subclass of Backbone.

    Args:
        classifier: load W too, if there is one (it may be gigabytes).

    Raises:
        UserError: the path does not exist or is not a model, or a file does not fit.
    """
    path = fetch(path, classifier) if is_hub_address(path) else Path(path)
    if path.suffix == ".onnx" and not path.is_dir():
        model = onnx_model(path)
        exported = model.made.get("by") == "export"
        taken = f"taken as a network of {model.input_size} features" if model.takes_features else TAKEN
        what = f"exported by facedistill {model.made['version']}, {model.made['precision']}" if exported else taken
        print(f"{path}: {what}{size_taken(model)}", file=sys.stderr)
        return model
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected a model folder, a run or an .onnx file")
    path = model_folder(path)
    config = read_config(path)
    check_config(config, path / "config.json")
    return _build(config, path, classifier).eval()


def _is_model_folder(path: Path) -> bool:
    try:
        return "embedding_dim" in json.loads((path / "config.json").read_text(*TEXT))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a model folder's config.json. Raises UserError if the folder holds no model."""
    file = path / "config.json"
    if not file.exists():
        raise UserError(f"{path}: not a model folder (no config.json); expected a model folder, a run or an .onnx file")
    try:
        config = json.loads(file.read_text(*TEXT))
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{file}: not readable as JSON ({e}); the file is damaged") from e
    if not isinstance(config, dict) or "embedding_dim" not in config:
        raise UserError(f"{file}: no facedistill model (no 'embedding_dim'); expected a folder made by save_model")
    if config.get("schema") != CONFIG_SCHEMA:
        raise UserError(
            f"{file}: schema {config.get('schema')}; this version reads {CONFIG_SCHEMA}: update facedistill"
        )
    return config


def _build(config: dict[str, Any], path: Path, with_classifier: bool) -> Model:
    size = config.get("projection")
    model = Model(
        _build_backbone(config, path),
        InputSpec(**config["input"]),
        _load_classifier(config, path) if with_classifier and "classifier" in config else None,
        torch.tensor(config["offset"]) if "offset" in config else None,
        _projection(size["in"], size["out"], path / "model.safetensors") if size else None,
        config["space"],
        config["made"],
        config["thresholds"],
        config["embedding_dim"],
    )
    if any(name != "offset" for name in model.state_dict()):
        load_weights(model, path / "model.safetensors")
        check_weights(config, path / "model.safetensors")  # after what can say more of the damage
    return model


def _projection(inputs: int, outputs: int, file: Path) -> nn.Linear:
    """Return the layer without values, unless config.json claims another size than the file of weights has."""
    weight = read_tensors(file).get("projection.weight")
    if weight is None or list(weight.shape) != [outputs, inputs]:
        raise UserError(
            f"{file}: no projection of {inputs} to {outputs} dimensions; config.json belongs to other weights"
        )
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)


def load_weights(model: Model, file: Path) -> None:
    """Load a weights file, of a model folder or a run's epochs/, into the model. UserError if it does not fit."""
    expected = {k: v for k, v in model.state_dict().items() if k != "offset"}
    # load_tensors checks names and shapes. Not strict, because the offset is in config.json.
    model.load_state_dict(load_tensors(file, expected), strict=False)


def _build_backbone(config: dict[str, Any], path: Path) -> Backbone | None:
    if "backbone" in config:
        return None
    name = config["architecture"]
    if name == "onnx":
        check_weights(config, path / "model.onnx")
        return onnx_backbone(path / "model.onnx", config["input"]["size"], config["options"].get("output"))[0]
    if name == FUSED:
        return _fused(config["options"].get("members"), path)
    try:
        if name in BACKBONES:
            check_sizes(outline(name, **config["options"]), path / "model.safetensors")
        with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten; loading must not draw numbers
            return create_backbone(name, **config["options"])
    except (UsageError, RuntimeError, OverflowError) as e:  # torch refuses sizes below 0 or above what it can count
        raise UserError(f"{path / 'config.json'}: {e}") from e


def _fused(members: Any, path: Path) -> Fused:
    """Return the models of `members/`, which must be those that config.json lists by their fingerprints."""
    if not isinstance(members, list):
        raise UserError(f"{path / 'config.json'}: options.members: expected a list; the file was edited or damaged")
    folders = [path / MEMBERS / str(number) for number in range(len(members))]
    found = [load_model(folder, classifier=False) for folder in folders]
    for folder, model, expected in zip(folders, found, members, strict=True):
        if model.fingerprint() != expected:
            raise UserError(f"{folder}: not the model that was fused; copy it again, or fuse the models again")
    return Fused(found)


def _load_classifier(config: dict[str, Any], path: Path) -> Classifier:
    weights = path / "classifier.safetensors"
    tensors, file = read_tensors(weights), path / "classes.txt"
    names, weight = read_names(file), tensors.get("weight")
    if weight is None or not weight.is_floating_point():
        raise UserError(f"{weights}: no floating-point rows under the name 'weight'; the file is damaged")
    if len(names) != len(weight):
        raise UserError(
            f"{file}: {len(names)} names, but classifier.safetensors has {len(weight)} rows; expected one name per row"
        )
    of = config["classifier"]
    counts, bias = tensors.get("counts"), tensors.get("bias")
    return Classifier(weight, names, of["origin"], counts, unit=True, scale=of.get("scale"), bias=bias)


def read_names(path: Path) -> list[str]:
    """Return the lines of a class file, one name each, in order. Raises UserError when it cannot be read."""
    return read_lines(path, "expected a text file with one class name a line", errors=TEXT[1])
