"""Several teachers as one model: their embeddings side by side, and a projection to fewer dimensions.

With k teachers, an image's embedding is x = (t_1, ..., t_k) / sqrt(k), t_i of unit length, so that the cosine of two
images is the mean of the teachers' cosines: the fusion of scores. A projection onto the d leading eigenvectors of the
mean of x x^T (a principal component analysis without a mean) keeps the inner products as well as any d dimensions can.
With labels, a margin softmax goes on from there: the adaptor of MST-KD (arXiv 2408.16563), whose W students inherit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones import Backbone
from facedistill.data import Dataset, Embeddings, classes_with_images
from facedistill.errors import UsageError, UserError
from facedistill.head import Classifier, Margin, centres, check_scale, fit, make_margin
from facedistill.models.embed import embed_dataset
from facedistill.models.model import InputSpec, Model, make_space

FUSED = "fused"  # its name as an architecture
BLOCK = 8192  # embeddings at a time


class Fused(Backbone):
    """Frozen models of any sizes and kinds, ONNX files among them; input: what each of them takes, e.g. pixels 0..255.

    The embedding (B, sum of d_i) has unit length. The models are outside the module tree: they are never trained, and
    are saved as model folders of their own.

    Raises:
        UsageError: fewer than two models. UserError: one of them has no network, or they take samples of several kinds.
    """

    has_features = False
    foreign = True

    def __init__(self, members: Sequence[Model]) -> None:
        if len(members) < 2:
            raise UsageError(f"fuse: {len(members)} models; expected two or more")
        for number, model in enumerate(members, 1):
            if model.backbone is None:
                raise UserError(
                    f"fuse: model {number} holds embeddings only and no network; import its checkpoint or ONNX file"
                )
        takes = {(m.takes_features, m.takes_features and m.input_size) for m in members}
        if len(takes) > 1:
            raise UserError("fuse: the models take samples of several kinds; expected all images, or as many features")
        super().__init__(sum(m.embedding_dim for m in members), max(m.input_size for m in members))
        self.takes_features = members[0].takes_features
        self.members = tuple(member.eval().requires_grad_(False) for member in members)
        self.spec = {"name": FUSED, "options": {"members": [member.fingerprint() for member in members]}}

    def forward(self, x: Tensor) -> Tensor:
        unit = [F.normalize(member(x).float(), dim=1) for member in self.members]
        return torch.cat(unit, 1) / len(unit) ** 0.5

    def _apply(self, fn, recurse: bool = True) -> "Fused":  # type: ignore[no-untyped-def]
        for member in self.members:
            member._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def count_parameters(self) -> int:
        return sum(member.parameters_count() for member in self.members)

    def count_macs(self) -> int:
        return sum(member.macs() or 0 for member in self.members)

    def content(self) -> bytes:
        return "".join(member.fingerprint() for member in self.members).encode()


@dataclass(frozen=True)
class Fusion:
    """A fused model. `kept`: the share of the mean squared length of its embeddings that the eigenvectors keep."""

    model: Model
    kept: float = 1.0


def fuse_models(
    models: Sequence[Model],
    dim: int | None = None,
    data: Dataset | None = None,
    cache: Path | None = None,
    adaptor: bool = False,
    margin: str | Margin = "arcface",
    scale: float = 64.0,
) -> Fusion:
    """Return several models as one, in a space of its own.

    Args:
        models: two or more, of any embedding and input sizes.
        dim: project to this many dimensions; None: all embeddings side by side.
        data: the images, with mirror images, whose embeddings decide the projection; only with `dim`.
        cache: a folder for these embeddings, see `embed_dataset`.
        adaptor: train the projection and a W with the labels of `data`, from the eigenvectors and the class centres on;
            the model has this W as its classifier. Otherwise it has none. Ours: starts and optimiser (see `fit`).
        margin, scale: of the adaptor's margin softmax; a margin by its name, or one made by hand.

    Raises:
        UsageError: fewer than two models, or `dim` without `data` or the reverse, or a dim that is too large, or an
            adaptor without them, or with images of several labels.
        UserError: a model has no network, or there are fewer embeddings than dimensions.
    """
    backbone = Fused(models)
    if (dim is None) != (data is None):
        raise UsageError("fuse: give dim and data together, or neither: the data decide which dimensions are kept")
    if adaptor and data is None:
        raise UsageError("fuse: an adaptor needs dim and data: the labels of the data train it")
    if adaptor and data is not None and data.multi_hot is not None:
        raise UsageError("fuse: an adaptor needs images of one class each; this data has several labels an image")
    projection, classifier, kept = None, None, 1.0
    made: dict[str, Any] = {"by": "fuse", "members": [model.space for model in models]}
    if dim is not None and data is not None:
        if not 1 <= dim < backbone.embedding_dim:
            raise UsageError(
                f"fuse: {dim} dimensions; expected 1 to {backbone.embedding_dim - 1}: the models have "
                f"{backbone.embedding_dim} together"
            )
        table = _side_by_side(models, data, cache)
        moment, count = _second_moment(table.vectors)
        if count < dim:
            raise UserError(f"fuse: {count:,} embeddings cannot decide {dim} dimensions; give more images, or fewer")
        rows, kept = principal(moment, dim)
        rows, made = rows.float(), made | {"data": data.fingerprint, "kept": round(kept, 4)}
        if adaptor:
            rows, classifier = _adaptor(table, rows, margin, scale)
            made |= {"adaptor": True}
        projection = nn.utils.skip_init(nn.Linear, backbone.embedding_dim, dim, bias=False)
        projection.weight.data = rows
    raw = InputSpec(backbone.input_size, mean=(0.0,), std=(1.0,))
    model = Model(backbone, raw, classifier, projection=projection, made=made).eval().requires_grad_(False)
    model.space = make_space(model)
    return Fusion(model, kept)


def principal(moment: Tensor, dim: int) -> tuple[Tensor, float]:
    """Return the `dim` leading eigenvectors of a symmetric matrix (D, D) as rows, and their share of its trace.

    The largest entry of each row is positive, so that the same matrix gives the same rows everywhere.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    rows = vectors.flip(1)[:, :dim].T
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), float(values.flip(0)[:dim].sum() / values.sum())


def _side_by_side(models: Sequence[Model], data: Dataset, cache: Path | None) -> Embeddings:
    """Return x of all images that every model could read, and of their mirror images."""
    tables = [embed_dataset(model, data, cache=cache) for model in models]
    readable = set.intersection(*(set(table.keys) for table in tables))
    kept = [[i for i, key in enumerate(table.keys) if key in readable] for table in tables]
    each = [F.normalize(torch.from_numpy(t.vectors[rows]), dim=2) for t, rows in zip(tables, kept, strict=True)]
    first, rows = tables[0], kept[0]
    x = (torch.cat(each, 2) / len(each) ** 0.5).numpy()
    return Embeddings([first.keys[i] for i in rows], first.class_names, first.labels[rows], x)


def _second_moment(vectors: np.ndarray) -> tuple[Tensor, int]:
    """Return the mean of x x^T, float64, over all embeddings (N, F, D), and how many they are."""
    x = torch.from_numpy(vectors).flatten(0, 1)
    moment = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for block in x.split(BLOCK):
        moment += block.double().T @ block.double()
    return moment / len(x), len(x)


def _adaptor(table: Embeddings, rows: Tensor, margin: str | Margin, scale: float) -> tuple[Tensor, Classifier]:
    """Return the trained projection and W, from the projection `rows` and its class centres on."""
    check_scale(scale)
    made = make_margin(margin) if isinstance(margin, str) else margin
    projected = (torch.from_numpy(table.vectors) @ rows.T).numpy()
    start = centres(Embeddings(table.keys, table.class_names, table.labels, projected))
    labels, names = classes_with_images(table.labels, table.class_names)
    vectors = torch.from_numpy(table.vectors)
    weight, fitted = fit(vectors, torch.from_numpy(labels), start.weight, made, scale, adaptor=rows)
    assert fitted is not None
    return fitted, Classifier(weight, names, "fitted")
