"""A Model: a backbone with everything that is needed to use it.

It takes RGB pixels 0..255 and does resize, colour order and normalisation itself, so callers cannot get them wrong.
"""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones import Backbone, count_macs, count_parameters, sample_shape
from facedistill.data import Output
from facedistill.errors import UsageError, UserError, closest, some
from facedistill.files import fingerprint
from facedistill.head import Classifier

FLIPS = ("sum", "concat", "none")


@dataclass(frozen=True)
class InputSpec:
    """The input that the backbone expects: size x size, channels in `colour` order, x = (pixels 0..255 - mean) / std.

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
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                raise UsageError(f"{name} {list(values)}: expected 1 or 3 numbers, std above 0, for pixels 0..255")
            object.__setattr__(self, name, values)


class Model(nn.Module):
    """backbone -> projection -> minus offset, on RGB pixels 0..255, or on features if the backbone takes these.

    Args:
        backbone: None for a teacher known only by its embeddings: students can inherit from it, but it cannot run.
        input: default: the backbone's size, RGB, (pixels - 127.5) / 127.5.
        classifier: W, in this model's space.
        offset: float (d,), subtracted from every embedding (`import --centre`).
        projection: a linear layer from the backbone's dimension to d, saved and exported with the model.
        space: id of the embedding space; `save_model` makes one if it is None.
        made: how the model was made, any JSON.
        thresholds: list of {"far", "value", "interval", "probe", "gallery", ...}, see `save_thresholds`.
        embedding_dim: needed only if backbone and classifier are None.

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
    def takes_features(self) -> bool:
        """True if a sample is a vector of `input_size` features, and no image."""
        return self.backbone is not None and self.backbone.takes_features

    def example(self) -> Tensor:
        """Return one black image, uint8, or a vector of zeros: what the model takes, on its device."""
        kind = torch.float32 if self.takes_features else torch.uint8
        return torch.zeros(1, *sample_shape(self.backbone, self.input_size), dtype=kind, device=self.device)

    def mirrored(self, images: Tensor) -> Tensor:
        """Return the mirror images. Features have none: they stay as they are."""
        return images if self.takes_features else images.flip(-1)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """Return the backbone's float32 input for RGB pixels 0..255 (N, 3, H, W), resized if H or W differ.

        Features (N, input_size) stay as they are.
        """
        if self.takes_features:
            if images.shape[1:] != (self.input_size,):
                raise UserError(
                    f"model: samples of shape {list(images.shape)}; expected N x {self.input_size} features"
                )
            return images.float()
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"model: images of shape {list(images.shape)}; expected N x 3 x H x W, RGB 0..255")
        size = self.input.size
        images = images.float() if images.is_floating_point() else images
        if images.shape[-2:] != (size, size):
            images = resized(images, size)
        if self.input.colour == "bgr":
            images = images.flip(1)
        # uint8 - float32 promotes in one pass over the batch; the division then works in place.
        return (images - self.mean).div_(self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, d), not of unit length, for RGB pixels 0..255 (N, 3, H, W), uint8 or float."""
        backbone = self._running()
        return self._place(backbone(self.normalise(images)))

    def outputs(self, images: Tensor, features: bool = True) -> Output:
        """Return the embeddings of `forward`, with the stage maps unless `features` is False, and with any parts.

        The embeddings of the parts add up to the model's own: the first has the offset subtracted, as the model's has.
        """
        backbone = self._running()
        if backbone.part_names:
            return self._added(backbone.parts(self.normalise(images)))
        if not features:
            return Output(self(images))
        embedding, maps = backbone.with_features(self.normalise(images))
        return Output(self._place(embedding), maps)

    def _added(self, parts: dict[str, tuple[Tensor, tuple[Tensor, ...]]]) -> Output:
        (first, (embedding, maps)), *others = parts.items()
        found = {first: Output(self._place(embedding), maps)}
        found |= {name: Output(self._project(embedding), maps) for name, (embedding, maps) in others}
        outputs = list(found.values())
        maps = tuple(torch.stack(of_stage).sum(0) for of_stage in zip(*(o.features for o in outputs), strict=True))
        return Output(torch.stack([o.embedding for o in outputs]).sum(0), maps, found)

    def part(self, name: str) -> "Model":
        """Return a part of a composed network as a model of its own: same input, projection, offset and space."""
        backbone = self._running()
        if name not in backbone.part_names:
            raise UsageError(f"model: no part '{name}'; this network has {some(backbone.part_names) or 'no parts'}")
        made = self.made | {"part": name}
        part = Model(backbone.part(name), self.input, None, self.offset, self.projection, self.space, made)
        return part.train(self.training)

    @torch.inference_mode()
    def embed(self, images: Tensor, flip: str = "sum") -> Tensor:
        """Return unit embeddings (N, d), or (N, 2d) for "concat", in eval mode; the mode is restored.

        Args:
            flip: add the mirrored image's embedding ("sum"), append it ("concat"), or ignore it ("none").
        """
        if flip not in FLIPS:
            raise UsageError(f"flip '{flip}'{closest(flip, FLIPS)}: expected one of {', '.join(FLIPS)}")
        images = images.to(self.device)
        if not self.takes_features:
            _warn_range(images)
        training = self.training
        self.eval()
        try:
            vectors = self(images)
            if flip != "none":
                mirrored = self(self.mirrored(images))
                vectors = vectors + mirrored if flip == "sum" else torch.cat([vectors, mirrored], dim=1)
        finally:
            self.train(training)
        return F.normalize(vectors.float(), dim=1)

    def parameters_count(self) -> int:
        """Return the number of parameters of backbone and projection; the classifier is not deployed."""
        return sum(count_parameters(m) for m in (self.backbone, self.projection) if m is not None)

    def macs(self) -> int | None:
        """Return the multiply-adds for one image, or None without a backbone."""
        if self.backbone is None:
            return None
        projection = 0 if self.projection is None else self.projection.weight.numel()
        return count_macs(self.backbone, self.input.size) + projection

    def fingerprint(self) -> str:
        """Return 16 hex characters of everything that decides the embeddings: weights, preprocessing, offset."""
        parts: list[object] = [json.dumps(asdict(self.input))]
        if self.backbone is not None and self.backbone.foreign:
            parts.append(self.backbone.content())
        for name, tensor in self.state_dict().items():
            value = tensor.detach().cpu().contiguous()
            parts += [f"{name} {value.dtype} {list(value.shape)}", value.view(-1).view(torch.uint8).numpy()]
        return fingerprint(*parts)

    def subtract_mean(self, mean: Tensor) -> None:
        """Move the origin of the space to `mean` (d,), the mean of this model's embeddings over some data.

        This makes a new space. The classifier and the thresholds belong to the old one, so they are dropped.
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
                "this model holds embeddings only, no network: students can inherit from it, but it cannot run; "
                "import the teacher's checkpoint or ONNX file to run it"
            )
        return self.backbone

    def _project(self, embedding: Tensor) -> Tensor:
        if self.projection is None:
            return embedding
        with torch.autocast(embedding.device.type, enabled=False):
            return self.projection(embedding.float())

    def _place(self, embedding: Tensor) -> Tensor:
        embedding = self._project(embedding)
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
        found = ", ".join(f"{what} {dim}" for what, dim in dims.items()) or "none is given"
        raise UserError(
            f"model: embedding dimensions do not fit ({found}); give the model a projection, or import it again"
        )
    return next(iter(dims.values()))


def resized(images: Tensor, size: int) -> Tensor:
    """Return images (N, C, H, W) as float32 (N, C, size, size), bilinear, averaged where they shrink."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)


def _warn_range(images: Tensor) -> None:
    if images.is_floating_point() and images.numel() and images.device.type == "cpu" and images.amax() <= 1:
        warnings.warn("images lie within 0..1; a Model takes pixels 0..255: multiply by 255", stacklevel=3)


def make_space(model: Model) -> str:
    """Return the id of this model's own space, made from its weights, preprocessing and offset."""
    return model.fingerprint()
