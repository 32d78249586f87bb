"""The options of an evaluation: one typed object, made by the command line or from keywords in Python."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from facedistill.data import Dataset, Flip, degraded
from facedistill.errors import UsageError, closest
from facedistill.evaluation.statistics import RESAMPLES, SEED

Thresholds = Literal["grid", "exact"]


@dataclass(frozen=True)
class Resolution:
    """Images as a camera of `pixels` x `pixels` would give them; None leaves them unchanged."""

    pixels: int | None = None
    blur: float = 0.0
    jpeg: int | None = None

    def of(self, dataset: Dataset) -> Dataset:
        return dataset if self.pixels is None else degraded(dataset, self.pixels, self.blur, self.jpeg)


@dataclass(frozen=True)
class EvaluationOptions:
    """The options for all sets and protocols of an evaluation.

    Attributes:
        protocols: names of `PROTOCOLS`, or `package.module:Class`; None takes the usual ones of each set.
        flip: how the mirror image's embedding is used, see `fuse`.
        threshold: the thresholds that the folds of a list of pairs try, see pairs.pair_protocol.
        fars: false-accept rates to measure at; None takes each protocol's own.
        resolutions: each set is also measured at each of them: with the probe's images, and with both sides'.
        resamples, seed: of the bootstrap; 0 resamples for no intervals.
        weight_by_norm, weight_by_detector_score, media_pooling: see templates.template_vectors.
        latency: also measure how long one image takes.
        errors: also list the worst false accepts and false rejects of labelled sets and lists of pairs, by image keys.
        keep_resamples: also list each figure's value in every resample, which `compare` needs to pair runs.
        cache: folder for embeddings.

    Raises:
        UsageError: a value of the wrong type, an unknown flip or threshold, a rate that is not between 0 and 1.
    """

    protocols: tuple[str, ...] | None = None
    flip: Flip = "sum"
    threshold: Thresholds = "grid"
    fars: tuple[float, ...] | None = None
    resolutions: tuple[Resolution, ...] = ()
    resamples: int = RESAMPLES
    seed: int = SEED
    weight_by_norm: bool = True
    weight_by_detector_score: bool = True
    media_pooling: bool = True
    latency: bool = False
    errors: bool = False
    keep_resamples: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kind))
        if self.fars is not None and not all(0 < far < 1 for far in self.fars):
            raise UsageError(f"false-accept rates {list(self.fars)}: expected numbers between 0 and 1, e.g. 0.001")
        for name in ("resamples", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} {getattr(self, name)}: expected 0 or a larger number")

    def changed(self, changes: Mapping[str, Any]) -> "EvaluationOptions":
        """Return these options with other values for some of them. Raises UsageError for an unknown name."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"evaluate has no option '{name}'{closest(name, known)}; it has: {', '.join(known)}")
        return replace(self, **changes)


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Return the value, converted to the type `kind`."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        known = get_args(kind)
        raise UsageError(f"{name} '{value}'{closest(str(value), known)}: expected one of {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as e:
        raise UsageError(f"{name}: {e.errors()[0]['msg']}, found {value!r}") from e
