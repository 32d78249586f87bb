"""A Model of an ONNX file, with what the file says of itself if `export` wrote it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from facedistill.backbones import OnnxBackbone
from facedistill.errors import UserError
from facedistill.models.facts import Facts, facts_of
from facedistill.models.model import InputSpec, Model, make_space

TAKEN = "taken as pixels 0..255, RGB, normalisation inside"


def size_taken(model: Model) -> str:
    """Return words for a graph that leaves height and width open, else nothing."""
    if not (isinstance(model.backbone, OnnxBackbone) and model.backbone.open_size) or model.takes_features:
        return ""
    size = model.input_size
    return f"; it leaves height and width open, taken as {size} x {size}: for others, `facedistill import --size`"


def onnx_model(
    path: Path,
    made: dict[str, Any] | None = None,
    size: int | None = None,
    output: str | None = None,
    **input: Any,
) -> Model:
    """Return the Model of an ONNX file, by default of pixels 0..255, RGB, normalisation inside.

    Args:
        size, output: see `OnnxBackbone`.
        input: colour, mean and std of `InputSpec` that differ from the default.

    Raises:
        UserError: the graph takes whole pixels or the file was exported by facedistill, and `input` gives it another
            colour order or normalisation; or what the file says of itself is damaged or untrue.
    """
    backbone, facts = onnx_backbone(path, size, output)
    raw = InputSpec(backbone.input_size, mean=(0.0,), std=(1.0,))
    spec = replace(raw, **input)
    if backbone.takes_features and spec != raw:
        raise UserError(f"{path}: takes features, not images; drop --colour, --mean and --std")
    if facts is None:
        if backbone.pixels == "uint8" and replace(spec, colour="rgb") != raw:
            raise UserError(f"{path}: takes uint8 pixels, so its normalisation is inside; drop --mean and --std")
        model = Model(backbone, spec, made=made or {"by": "bare ONNX file", "file": path.name})
        model.space = make_space(model)
        return model.eval()
    if spec != raw:
        raise UserError(f"{path}: exported by facedistill, with colour order and normalisation inside; give it neither")
    made = (made or {"by": "export", "file": path.name}) | {
        "version": facts.version,
        "model": facts.model,
        "precision": facts.precision,
        "normalise": facts.normalise,
        "licence": facts.licence,
    }
    return Model(backbone, raw, space=facts.space, made=made, thresholds=facts.thresholds).eval()


def onnx_backbone(path: Path, size: int | None, output: str | None) -> tuple[OnnxBackbone, Facts | None]:
    """Return the network and what the file says of itself, which must be so."""
    backbone = OnnxBackbone(path, size, output)
    facts = facts_of(backbone.metadata, path)
    if facts is None:
        return backbone, None
    pairs: dict[str, tuple[object, object]] = {
        "embedding size": (facts.embedding_dim, backbone.embedding_dim),
        "input size": (facts.input.size, backbone.input_size),
        "layout": (facts.layout, backbone.layout),
        "input type": (facts.pixels, backbone.pixels),
        "batch": (facts.batch, backbone.batch or "dynamic"),
        "unit length": (facts.normalise, facts.normalise and backbone.gives_unit_length()),
    }
    for what, (said, found) in pairs.items():
        if said != found:
            raise UserError(f"{path}: its metadata says {what} {said}, but its graph has {found}; export it again")
    backbone.said = (facts.parameters, facts.macs)
    return backbone, facts
