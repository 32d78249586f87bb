"""Find the colour order and pixel scale that a network was made for, from images alone, without its classifier.

The same images are embedded under every plausible input convention. The right one separates pairs of one person from
pairs of two people best; resampled identities show whether the difference is beyond chance.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from facedistill.data import Dataset, decoded
from facedistill.errors import UserError
from facedistill.evaluation import draws
from facedistill.models import InputSpec, Model
from facedistill.progress import track

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PIXEL_SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0..255": ((0.0,), (1.0,)),
    "0..1": ((0.0,), (255.0,)),
    "/127.5 - 1": ((127.5,), (127.5,)),
    "(x - 127.5) / 128": ((127.5,), (128.0,)),
    "ImageNet": IMAGENET,
}
PER_IDENTITY = 5
SCREENED = 400  # images for the first pass, which drops conventions that are far off
SAME = 0.99  # mean cosine above which two conventions are the same to a network
CLEAR = 0.1  # gain in separation that proves another pixel scale right; see Convention.verdict
INTERVAL = (0.005, 0.995)  # of the resamples; wide, because nine conventions are compared with the declared one
LEAST_DEVIATION = 1e-3  # of cosines; below it a network gives everybody the same embedding
BATCH_IMAGES = 64


@dataclass(frozen=True)
class Convention:
    """One input convention, compared with the declared one on the same images.

    Attributes:
        recoloured: True if it differs from the declared one only in the colour order.
        images: the number it was measured on; conventions that are far off are measured on fewer.
        separation: by how many standard deviations of an image's impostor scores its genuine scores lie above their
            mean, on average; no skill is 0.
        difference: separation minus that of the declared convention; interval: its 99% interval over identities.
        agreement: mean cosine of its embeddings with those of the declared one.
    """

    name: str
    input: InputSpec
    declared: bool
    recoloured: bool
    images: int
    separation: float
    difference: float
    interval: tuple[float, float]
    agreement: float

    @property
    def verdict(self) -> str:
        """One of: declared, same, better, slightly better, undecided, worse.

        "same": the network answers as under the declared one. "better" needs more than an interval above 0, unless only
        the colour order differs: a network may gain from a little more contrast than it was trained with (a real one
        gains 4% from ImageNet's), whereas a wrong scale costs 10% or far more. In between is "slightly better".
        """
        if self.declared:
            return "declared"
        if self.agreement >= SAME:
            return "same"
        low, high = self.interval
        if low <= 0:
            return "worse" if high < 0 else "undecided"
        clear = self.recoloured or self.difference >= CLEAR * (self.separation - self.difference)
        return "better" if clear else "slightly better"


def rank_conventions(model: Model, dataset: Dataset, images: int = 2000, seed: int = 0) -> list[Convention]:
    """Rank the model's declared input convention and every plausible other by separation, best first.

    The others are RGB and BGR times 0..255, 0..1, /127.5 - 1, (x - 127.5) / 128 and ImageNet. If the model has an
    offset, every convention is centred on its own mean over these images. All are measured on 400 images, and those
    that are not clearly worse than the declared one on all images.

    Args:
        images: the most images, from identities with several, up to 5 of each; drawn by `seed`.

    Raises:
        UserError: fewer than two identities have several images.
    """
    chosen = dataset.subset(sample_identities(dataset, images, seed))
    specs = conventions(model.input)
    declared = next(name for name, spec in specs.items() if spec == model.input)
    with _evaluating(model):
        found = _measure(model, chosen.subset(_first(chosen.labels, SCREENED)), specs, declared)
        close = [c.name for c in found if c.interval[1] >= 0]
        if len(chosen) > found[0].images and len(close) > 1:
            again = _measure(model, chosen, {name: specs[name] for name in close}, declared)
            found = again + [c for c in found if c.name not in close]
    return sorted(found, key=lambda c: (-c.difference, not c.declared))


def likely_right(found: list[Convention]) -> list[Convention]:
    """Return those better than the declared one that may be right, the simplest change first; empty if none is better.

    Pixel scales within a tenth of the best are indistinguishable (see `Convention.verdict`). Of two colour orders at
    one scale, the better one is kept.
    """
    better = [c for c in found if c.verdict == "better"]
    most = max((c.separation for c in better), default=0.0)
    close = [c for c in better if c.separation * (1 + CLEAR) >= most]
    reached = {c.input: c.separation for c in close}
    right = [c for c in close if c.separation >= reached.get(recoloured(c.input), 0.0)]
    return sorted(right, key=lambda c: (not c.recoloured, -c.separation))


def conventions(declared: InputSpec) -> dict[str, InputSpec]:
    """Return every plausible convention by name, always with the declared one and its other colour order."""
    specs: dict[str, InputSpec] = {}
    for scale, (mean, std) in PIXEL_SCALES.items():
        rgb = InputSpec(declared.size, "rgb", mean, std)
        specs |= {f"RGB {scale}": rgb, f"BGR {scale}": recoloured(rgb)}
    if declared not in specs.values():
        for spec in (declared, recoloured(declared)):
            specs[f"{spec.colour.upper()} mean {_plain(spec.mean)} std {_plain(spec.std)}"] = spec
    return specs


def recoloured(spec: InputSpec) -> InputSpec:
    """Return the spec with the other colour order; mean and std, which are in channel order, are reversed too."""
    return InputSpec(spec.size, "bgr" if spec.colour == "rgb" else "rgb", spec.mean[::-1], spec.std[::-1])


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _plain(values: Sequence[float]) -> str:
    numbers = [f"{v:g}" for v in values]
    return numbers[0] if len(set(numbers)) == 1 else ",".join(numbers)


def sample_identities(dataset: Dataset, images: int, seed: int = 0) -> np.ndarray:
    """Return indices of up to `images` images, identity by identity in seeded order, 2 to 5 of each."""
    labels = np.asarray(dataset.labels)
    rng = np.random.default_rng(seed)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    chosen: list[np.ndarray] = []
    room = images
    for c in rng.permutation(len(by_class)):
        if room >= 2 and len(by_class[c]) >= 2:
            chosen.append(rng.permutation(by_class[c])[: min(PER_IDENTITY, room)])
            room -= len(chosen[-1])
    if len(chosen) < 2:
        raise UserError(
            f"{dataset.source.path}: {len(chosen)} classes have several images; this check compares pairs of "
            "one class with pairs of two: give at least two classes with two images each"
        )
    return np.concatenate(chosen)


def _first(labels: np.ndarray, images: int) -> np.ndarray:
    """Return indices of every k-th identity, so that about `images` images are left."""
    return np.flatnonzero(labels % max(1, round(len(labels) / images)) == 0)


def _measure(model: Model, dataset: Dataset, specs: dict[str, InputSpec], declared: str) -> list[Convention]:
    vectors, labels = _embed(model, dataset, specs)
    separation = {name: _separation(v, labels) for name, v in vectors.items()}
    inside = labels[:, None] == np.unique(labels)  # (images, identities)
    drawn = np.stack(list(draws(inside.shape[1])))
    images = drawn @ inside.sum(0)
    found = []
    for name, spec in specs.items():
        change = separation[name] - separation[declared]
        low, high = np.quantile(drawn @ (change @ inside) / images, INTERVAL)
        found.append(
            Convention(
                name=name,
                input=spec,
                declared=name == declared,
                recoloured=spec == recoloured(specs[declared]),
                images=len(labels),
                separation=float(separation[name].mean()),
                difference=float(change.mean()),
                interval=(float(low), float(high)),
                agreement=float((vectors[name] * vectors[declared]).sum(1).mean()),
            )
        )
    return found


def _separation(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each image the mean of (genuine score - mean impostor score) / deviation of the impostor scores, (N,).

    More sensitive than AUC, rank or pooled d' (a swapped colour order on two real networks, 309 identities: 20 and 29
    standard errors; the log of the rank 8 and 24, d' 6 and 17, AUC 3 and 14), and it has no ceiling that good networks
    reach. 0 for an image without a genuine pair, or if all scores tie.
    """
    scores = (vectors @ vectors.T).round(6)  # so that equal embeddings tie
    impostor = labels[:, None] != labels
    genuine = ~impostor & ~np.eye(len(labels), dtype=bool)
    mean = scores.mean(axis=1, where=impostor)
    deviation = scores.std(axis=1, where=impostor)
    pairs = genuine.sum(axis=1)
    above = scores.sum(axis=1, where=genuine) / np.maximum(pairs, 1) - mean
    return np.where(pairs > 0, above / np.maximum(deviation, LEAST_DEVIATION), 0.0)


@torch.inference_mode()
def _embed(model: Model, dataset: Dataset, specs: dict[str, InputSpec]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return unit embeddings (N, d) under each convention, zero where not finite, and the labels (N,)."""
    variants = {
        name: Model(model.backbone, spec, projection=model.projection).to(model.device).eval()
        for name, spec in specs.items()
    }
    parts: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    labels = []
    steps = track(
        decoded(dataset, BATCH_IMAGES), "input conventions", len(dataset), size=lambda b: len(b) + len(b.unreadable)
    )
    for batch in steps:
        pixels = batch.images.to(model.device)
        labels.append(batch.labels.numpy())
        for name, variant in variants.items():
            parts[name].append(variant(pixels).float().cpu().numpy())
    found = {}
    for name in specs:
        vectors = np.concatenate(parts[name]).astype(np.float64)
        vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
        if model.offset is not None:
            vectors = vectors - vectors.mean(axis=0)
        found[name] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found, np.concatenate(labels)
