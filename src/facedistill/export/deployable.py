"""What runs on a device: one network from the pixels of a face crop to its embedding, with everything inside."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones import OnnxBackbone
from facedistill.errors import UserError
from facedistill.models import Fused, Layout, Model, Pixels, Precision


@dataclass(frozen=True)
class Form:
    """The form of an exported file.

    Attributes:
        precision: of weights and arithmetic.
        layout: nchw: N x 3 x H x W; nhwc: N x H x W x 3.
        pixels: the type of the input, RGB 0..255.
        batch: a number of images, or "dynamic" for any number.
        normalise: embeddings leave the graph with unit length.
    """

    precision: Precision = "fp32"
    layout: Layout = "nchw"
    pixels: Pixels = "uint8"
    batch: int | Literal["dynamic"] = 1
    normalise: bool = True


class Deployable(nn.Module):
    """Colour order, normalisation, backbone, projection, offset and, if asked for, unit length, as one module.

    Resizing is not inside: a device crops faces at the input size, which the file states.

    Raises:
        UserError: the model has no network, or its network is an ONNX file.
    """

    mean: Tensor
    std: Tensor
    offset: Tensor | None

    def __init__(self, model: Model, form: Form) -> None:
        super().__init__()
        if model.backbone is None:
            raise UserError("export: this model holds embeddings only and no network; export a student")
        if isinstance(model.backbone, Fused):
            raise UserError("export: this model is several models in one, a teacher; export a student of it")
        if isinstance(model.backbone, OnnxBackbone):
            raise UserError(
                "export: this model's network is an ONNX file already, and only networks of facedistill can be written "
                "anew; use that file, or import the checkpoint that it was made from"
            )
        self.backbone, self.projection = model.backbone, model.projection
        self.size, self.embedding_dim = model.input_size, model.embedding_dim
        self.takes_features = model.takes_features
        self.bgr, self.layout, self.normalise = model.input.colour == "bgr", form.layout, form.normalise
        self.register_buffer("mean", model.mean[None].clone())
        self.register_buffer("std", model.std[None].clone())
        self.register_buffer("offset", None if model.offset is None else model.offset.clone())
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, d) for RGB pixels 0..255 in the form's layout and type, or for features (N, k)."""
        embedding = self.backbone(images if self.takes_features else self._normalised(images))
        if self.projection is not None:
            embedding = self.projection(embedding)
        if self.offset is not None:
            embedding = embedding - self.offset
        return F.normalize(embedding, dim=1) if self.normalise else embedding

    def _normalised(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2) if self.layout == "nhwc" else images
        x = x.float()
        if self.bgr:
            x = x.flip(1)
        return (x - self.mean) / self.std

    def example(self, form: Form, count: int = 2) -> Tensor:
        """Return grey images, or features of 0, of the form's batch, or `count` where any number will do."""
        number = count if form.batch == "dynamic" else form.batch
        if self.takes_features:
            return torch.zeros(number, self.size)
        shape = (self.size, self.size, 3) if self.layout == "nhwc" else (3, self.size, self.size)
        return torch.full((number, *shape), 127, dtype=torch.uint8 if form.pixels == "uint8" else torch.float32)
