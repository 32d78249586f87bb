"""What an exported file says of itself: the JSON that `export` writes into the file and `load_model` reads."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed

from facedistill.errors import UserError

FACTS = "facedistill"  # the key under which a file holds the JSON
SCHEMA = 1
TYPED = ConfigDict(strict=True, extra="ignore")  # a later version may say more
Precision = Literal["fp32", "fp16", "int8"]
Layout = Literal["nchw", "nhwc"]
Pixels = Literal["uint8", "float32"]
Count = Annotated[int, Field(ge=1)]


@typed(config=TYPED, frozen=True)
class Input:
    """What the file takes: images of size x size pixels, whatever the network inside was trained on; or features."""

    size: Count
    colour: Literal["rgb"] = "rgb"
    range: tuple[Literal[0], Literal[255]] = (0, 255)
    takes: Literal["images", "features"] = "images"


@typed(config=TYPED, frozen=True)
class Facts:
    """What an exported file says of itself.

    Attributes:
        version: of facedistill. model: the fingerprint of the exported model; space: the id of its embedding space.
        precision, layout, pixels, batch, normalise: as in `export.Form`.
        parameters, macs: of the exported model; a folded or quantised graph no longer shows them.
        thresholds: those of the model, each with "far" and "value".
        licence: one line.
    """

    version: str
    space: str
    model: str
    embedding_dim: Count
    input: Input
    precision: Precision
    layout: Layout
    pixels: Pixels
    batch: Count | Literal["dynamic"]
    normalise: bool
    parameters: int
    macs: int
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    licence: str = ""
    schema: int = SCHEMA

    def to_json(self) -> str:
        return _ADAPTER.dump_json(self).decode()

    def text(self) -> str:
        """Return what a person reads, a line for each fact that the model does not say itself."""
        unit = "of unit length" if self.normalise else "of any length"
        images = "any number of images" if self.batch == "dynamic" else f"{self.batch} image(s) at a time"
        axes = "N x 3 x H x W" if self.layout == "nchw" else "N x H x W x 3"
        what = f"{axes}, RGB 0..255, {self.input.size} x {self.input.size}, {images}"
        if self.input.takes == "features":
            what = f"N x {self.input.size} features, {images.replace('image', 'sample')}"
        lines = [
            f"exported by facedistill {self.version} from model {self.model}: {self.precision}; takes {self.pixels} "
            f"{what}; gives embeddings {unit}"
        ]
        for t in self.thresholds:
            lines.append(
                f"threshold {t['value']:.4f} at FAR {t['far']:g} (probe {t.get('probe', '?')}, gallery "
                f"{t.get('gallery', '?')}, flip {t.get('flip', '?')})"
            )
        return "\n".join([*lines, f"licence: {self.licence}"])


_ADAPTER = TypeAdapter(Facts)


def facts_of(metadata: Mapping[str, str], path: Path) -> Facts | None:
    """Return the facts in a file's metadata, or None for a file that `export` did not write.

    Raises:
        UserError: the facts are damaged, or of another schema.
    """
    if FACTS not in metadata:
        return None
    try:
        facts = _ADAPTER.validate_json(metadata[FACTS])
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise UserError(f"{path}: its metadata '{FACTS}' is damaged ({where}: {first['msg']}); export it again") from e
    if facts.schema != SCHEMA:
        raise UserError(f"{path}: metadata of schema {facts.schema}; this version reads {SCHEMA}: update facedistill")
    if not all(isinstance(t.get(key), int | float) for t in facts.thresholds for key in ("far", "value")):
        raise UserError(f"{path}: its metadata '{FACTS}' is damaged (a threshold lacks far or value); export it again")
    return facts
