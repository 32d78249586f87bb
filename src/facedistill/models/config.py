"""config.json of a model folder: its types, and the checksums of the files beside it."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facedistill.errors import UserError

# The files whose checksums are kept. A classifier may be larger than memory, so a process reads its own rows alone, and
# compares their lengths with 1 instead.
WEIGHTS = ("model.safetensors", "model.onnx")
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Typed(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")  # a later version may say more


class _Input(_Typed):
    size: Count
    colour: str
    mean: list[Number]
    std: list[Number]


class _Projection(_Typed):
    inputs: Annotated[int, Field(ge=1, alias="in")]
    out: Count


class _Classifier(_Typed):
    origin: str
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class _Config(_Typed):
    embedding_dim: Count
    input: _Input
    space: str
    made: dict[str, Any]
    thresholds: list[dict[str, Any]]
    architecture: str | None = None
    options: dict[str, Any] = {}
    offset: list[Number] | None = None
    projection: _Projection | None = None
    classifier: _Classifier | None = None
    sha256: dict[str, str] = {}


def check_config(config: dict[str, Any], file: Path) -> None:
    """Raise UserError that names the first key of config.json that is missing or has another type."""
    try:
        _Config.model_validate(config)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {key}: {first['msg']}; the file was edited or damaged: copy it again") from e
    if "backbone" not in config and not {"architecture", "options"} <= config.keys():
        raise UserError(f"{file}: architecture or options is missing; the file was edited or damaged: copy it again")


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of weights in a model folder."""
    return {name: _sha256(folder / name) for name in WEIGHTS if (folder / name).exists()}


def check_weights(config: dict[str, Any], file: Path) -> None:
    """Raise UserError if a file of weights is not the one that config.json describes. Old folders have no checksums."""
    expected = config.get("sha256", {}).get(file.name)
    if expected is not None and file.is_file() and _sha256(file) != expected:
        raise UserError(
            f"{file}: not as it was saved (its checksum differs), so its embeddings may not be of space "
            f"{config['space']}; copy it again"
        )


def _sha256(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
