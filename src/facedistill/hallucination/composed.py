"""A hallucination network before a recogniser, as one backbone: it loads, trains and exports as any other does."""

from typing import Any

import torch
from torch import Tensor, nn

from facedistill.backbones import Backbone, create_backbone
from facedistill.errors import UsageError, UserError
from facedistill.hallucination.fhn import FHN, check_size, create_fhn
from facedistill.hallucination.pairs import to_pixels
from facedistill.models import InputSpec, Model

NAME = "facedistill.hallucination:HallucinatingBackbone"


class HallucinatingBackbone(Backbone):
    """Images (B, 3, S, S), -1..1 -> the hallucinated face -> the recogniser's embedding (B, d) and stage maps.

    Args:
        preset: of the hallucination network; see `create_fhn`.
        recogniser: {"name", "options"}, with which `create_backbone` makes the recogniser's network.
        input: what that network expects, {"size", "colour", "mean", "std"}; see `InputSpec`.
        projection: the dimension of the recogniser's network, if a linear layer leads from there to embedding_dim.

    Raises:
        UsageError: the sizes of the parts do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        embedding_dim: int = 512,
        input_size: int = 112,
        preset: str = "tiny",
        recogniser: dict[str, Any] | None = None,
        input: dict[str, Any] | None = None,
        projection: int | None = None,
    ) -> None:
        super().__init__(embedding_dim, check_size(input_size))
        spec = recogniser or {"name": "mobilefacenet", "options": {"embedding_dim": embedding_dim}}
        expects = InputSpec(**(input or {"size": input_size}))
        if not {"name", "options"} == spec.keys() or not isinstance(spec["options"], dict):
            raise UsageError(f"a composed network: recogniser has {', '.join(spec)}; expected its name and options")
        options = {"input_size": expects.size, **spec["options"]}
        self.fhn = create_fhn(preset)
        self.recogniser = create_backbone(spec["name"], **options)
        dim = self.recogniser.embedding_dim
        if dim != (projection or embedding_dim) or {expects.size, self.recogniser.input_size} != {input_size}:
            raise UsageError(
                f"a composed network of {input_size} pixels and {embedding_dim} dimensions: its recogniser takes "
                f"{self.recogniser.input_size} pixels and gives {dim} dimensions; both parts need one size"
            )
        self.projection = nn.Linear(projection, embedding_dim, bias=False) if projection else None
        self.flips, self.has_features = expects.colour == "bgr", self.recogniser.has_features
        self.part_names = self.recogniser.part_names
        self.register_buffer("mean", torch.tensor(expects.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(expects.std).view(3, 1, 1), persistent=False)
        self.resolved = {"recogniser": self.recogniser.spec, "input": _written(expects)}

    def forward(self, x: Tensor) -> Tensor:
        return self._projected(self.recogniser(self._face(x)))

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        embedding, maps = self.recogniser.with_features(self._face(x))
        return self._projected(embedding), maps

    def parts(self, x: Tensor) -> dict[str, tuple[Tensor, tuple[Tensor, ...]]]:
        found = self.recogniser.parts(self._face(x))
        return {name: (self._projected(embedding), maps) for name, (embedding, maps) in found.items()}

    def part(self, name: str) -> Backbone:
        return joined(self.fhn, self.recogniser.part(name), self.resolved["input"], self.projection)

    def _face(self, x: Tensor) -> Tensor:
        """Return the hallucinated face as the recogniser's network expects it."""
        pixels = to_pixels(self.fhn(x).float())
        return ((pixels.flip(1) if self.flips else pixels) - self.mean) / self.std

    def _projected(self, embedding: Tensor) -> Tensor:
        if self.projection is None:
            return embedding
        with torch.autocast(embedding.device.type, enabled=False):
            return self.projection(embedding.float())


def _written(spec: InputSpec) -> dict[str, Any]:
    return {"size": spec.size, "colour": spec.colour, "mean": list(spec.mean), "std": list(spec.std)}


def compose(network: FHN, size: int, recogniser: Model) -> Model:
    """Return the Model of a hallucination network, of images of size x size, before a recogniser.

    The parts are the given ones, not copies. The model stays in the recogniser's space: for a face that the network
    leaves as it is, the embedding is the recogniser's. Thresholds are the recogniser's own and are left out.

    Raises:
        UserError: the recogniser has no network, has it in an ONNX file, or takes another size.
    """
    own = recogniser.backbone
    if own is None or own.foreign:
        raise UserError(
            "compose: the recogniser must be a model of this program with its weights; an ONNX file or a table of "
            "embeddings has no layers to join; for these, write the faces first: facedistill hallucinate MODEL IMAGES"
        )
    if recogniser.input_size != size:
        raise UserError(
            f"compose: the recogniser takes {recogniser.input_size} x {recogniser.input_size} pixels, the "
            f"hallucination network gives {size} x {size}; train one of them at the other's size (student.input_size, "
            "hallucination.size)"
        )
    if not own.spec:
        raise UserError("compose: the recogniser has no name to load it by; make it with create_backbone(name, ...)")
    backbone = joined(network, own, _written(recogniser.input), recogniser.projection)
    made = {"by": "compose", "fhn": network.preset, "recogniser": recogniser.made}
    return Model(backbone, InputSpec(size), offset=recogniser.offset, space=recogniser.space, made=made).eval()


def joined(network: FHN, recogniser: Backbone, expects: dict[str, Any], projection: nn.Linear | None) -> Backbone:
    """Return both as one network, of these very parts. `expects`: the recogniser's input, as it is written."""
    dim = projection.out_features if projection is not None else recogniser.embedding_dim
    made = create_backbone(
        *(NAME, dim, recogniser.input_size),
        preset=network.preset,
        recogniser=recogniser.spec,
        input=expects,
        projection=projection.in_features if projection is not None else None,
    )
    assert isinstance(made, HallucinatingBackbone)
    made.fhn, made.recogniser, made.projection = network, recogniser, projection
    return made
