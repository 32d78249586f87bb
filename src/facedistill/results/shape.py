"""The types in an evaluation JSON, as far as tables and comparisons read it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed

from facedistill.errors import UserError

Number = Annotated[float, Strict()]
Count = Annotated[int, Strict()]
Interval = tuple[Number, Number]
ABSENT: Any = None  # stands for what may be missing; null itself is refused


@typed
class Model:
    parameters: Count = ABSENT
    macs: Count = ABSENT
    latency_ms: Number = ABSENT


@typed
class Training:
    recipe: str
    seed: Count
    epochs: Count
    data: str
    images: Count = ABSENT
    seconds: Number = ABSENT
    images_per_second: Number = ABSENT
    teacher_forwards: Number = ABSENT
    peak_memory_mb: Number = ABSENT


@typed
class Figure:
    value: Number
    ci95: Interval = ABSENT
    impostors: Count = ABSENT
    non_mated: Count = ABSENT
    far: Number = ABSENT
    fpir: Number = ABSENT
    threshold: Number = ABSENT
    threshold_ci95: Interval = ABSENT
    closest: dict[str, Number] = ABSENT
    ceiling: Number = ABSENT


@typed
class Rates:
    far: Number
    tar: Number


@typed
class FalseAccepts:
    far: Number
    impostors: Count
    pairs: Count


Figures = dict[Annotated[str, Field(pattern=r"^\d+(\.\d+)?(e-?\d+)?$")], Figure]  # by rate, rank or count


@typed
class Named:
    protocol: str
    set: str
    probe: str
    gallery: str


@typed
class Result(Named):
    settings: dict[str, Any]
    accuracy: Number = ABSENT
    std: Number = ABSENT
    ci95: Interval = ABSENT
    tar_at_far: Figures = ABSENT
    rank: Figures = ABSENT
    tpir_at_fpir: Figures = ABSENT
    recall_at: Figures = ABSENT
    map: Figure = ABSENT
    r_precision: Figure = ABSENT
    knn: Figures = ABSENT
    top1: Figure = ABSENT
    top5: Figure = ABSENT
    per_class: Figure = ABSENT
    eer: Number = ABSENT
    auc: Number = ABSENT
    at_gallery_threshold: dict[str, Rates] = ABSENT
    false_accepts: dict[str, dict[str, FalseAccepts]] = ABSENT
    mean_cosine: Figure = ABSENT
    curves: dict[str, Any] = ABSENT
    resampled: dict[str, list[Number]] = ABSENT


@typed
class Difference:
    protocol: str
    set: str
    a: list[str]
    b: list[str]
    of: dict[str, Figure]
    mcnemar: dict[str, Number] = ABSENT


@typed
class Compatibility(Named):
    of: dict[str, Figure]


@typed
class Group:
    group: str
    protocol: str
    probe: str
    gallery: str
    sets: dict[str, Number]
    mean: Number = ABSENT
    std: Number = ABSENT
    skewed_error_ratio: Number = ABSENT


@typed
class Evaluation:
    models: dict[str, Model]
    results: list[Result]
    method: str = ABSENT
    training: Training = ABSENT
    differences: list[Difference] = ABSENT
    compatibility: list[Compatibility] = ABSENT
    groups: list[Group] = ABSENT


def require_shape(evaluation: dict[str, Any], file: Path, expected: str) -> None:
    """Raise UserError about the first thing that is missing or of another type; it ends with `expected`."""
    try:
        TypeAdapter(Evaluation).validate_python(evaluation)
    except ValidationError as e:
        first = e.errors()[0]
        found = "" if first["type"] == "missing" else f", found {str(first['input'])[:60]}"
        raise UserError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}{found}; {expected}") from e
