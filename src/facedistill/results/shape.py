"""The types in an evaluation JSON, as far as tables and comparisons read it.

The keys that all results share are defined here; those of a protocol follow from its declaration.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed
from typing_extensions import TypedDict

from facedistill.errors import UserError
from facedistill.evaluation import Declaration, Figure, Line, Target, declaration

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
Count = Annotated[int, Strict()]
Interval = tuple[Number, Number]
ABSENT: Any = None  # the default of optional keys; null itself is refused


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
    anchored: Annotated[bool, Strict()] = ABSENT
    images: Count = ABSENT
    seconds: Number = ABSENT
    images_per_second: Number = ABSENT
    teacher_forwards: Number = ABSENT
    peak_memory_mb: Number = ABSENT


@typed
class Value:
    value: Number
    ci95: Interval = ABSENT
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


@typed
class Roc:
    far: list[Fraction]
    tar: list[Fraction]

    def __post_init__(self) -> None:
        if len(self.far) != len(self.tar):
            raise ValueError(f"{len(self.far)} values of far and {len(self.tar)} of tar")


@typed
class Scores:
    low: Number
    high: Number
    genuine: Annotated[list[Count], Field(min_length=1)]
    impostor: list[Count]

    def __post_init__(self) -> None:
        if len(self.genuine) != len(self.impostor) or not self.low < self.high:
            raise ValueError("genuine and impostor pairs are not counted over the same scores")


@typed
class Points:
    x: list[Number]
    y: list[Number]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} values of x and {len(self.y)} of y")


@typed
class Resolution:
    probe: Number = ABSENT
    gallery: Number = ABSENT


@typed
class Settings:
    resolution: Resolution = ABSENT


@typed
class Pair:
    a: str
    b: str
    score: Number


@typed(kw_only=True)
class Errors:
    set: str
    probe: str
    gallery: str
    false_accepts: list[Pair] = ABSENT
    false_rejects: list[Pair] = ABSENT


CURVES: dict[str, Any] = {"roc": Roc, "det": Roc, "scores": Scores}
Member = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(e-?\d+)?$")]  # of a family: a rate, rank or count


@typed
class Named:
    protocol: str
    set: str
    probe: str
    gallery: str
    declared: Declaration = ABSENT


SEVERAL = ("recall", "balanced_accuracy")  # of images with several labels
OfClass = TypedDict(  # type: ignore[misc]
    "OfClass",
    {"class": str, "images": Count}
    | {"training_images": NotRequired[Count]}
    | {key: NotRequired[Fraction] for key in ("top1", "precision", "f1", "average_precision", "auc", *SEVERAL)},
)


@typed(kw_only=True)
class Result(Named):
    settings: Settings
    of_classes: list[OfClass] = ABSENT
    at_gallery_threshold: dict[str, Rates] = ABSENT
    false_accepts: dict[str, dict[str, FalseAccepts]] = ABSENT
    mean_cosine: Value = ABSENT
    curves: dict[str, Any] = ABSENT
    resampled: dict[str, list[Number]] = ABSENT


@typed
class Difference:
    protocol: str
    set: str
    a: list[str]
    b: list[str]
    of: dict[str, Value]
    mcnemar: dict[str, Number] = ABSENT
    declared: Declaration = ABSENT


@typed(kw_only=True)
class Compatibility(Named):
    of: dict[str, Value]


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
    declared: Declaration = ABSENT


@typed
class Evaluation:
    models: dict[str, Model]
    results: list[Result]
    method: str = ABSENT
    training: Training = ABSENT
    differences: list[Difference] = ABSENT
    compatibility: list[Compatibility] = ABSENT
    groups: list[Group] = ABSENT
    errors: list[Errors] = ABSENT
    made: dict[str, Any] = ABSENT


def require_shape(evaluation: dict[str, Any], file: Path, expected: str) -> None:
    """Raise UserError for the first key that is missing or of the wrong type. The message ends with `expected`."""
    place: tuple[int | str, ...] = ()
    try:
        TypeAdapter(Evaluation).validate_python(evaluation)
        for n, result in enumerate(evaluation["results"]):
            for key, of in _figures(result):
                place = ("results", n, key)
                TypeAdapter(of).validate_python(result[key])
            for key, of in _curves(result):
                place = ("results", n, "curves", key)
                TypeAdapter(of).validate_python(result["curves"][key])
    except ValidationError as e:
        first = e.errors()[0]
        found = "" if first["type"] == "missing" else f", found {str(first['input'])[:60]}"
        where = ".".join(map(str, (*place, *first["loc"])))
        raise UserError(f"{file}: {where}: {first['msg']}{found}; {expected}") from e


def _figures(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the declared figures that a result has, and their intervals: (key, type)."""
    for figure in declaration(result).figures:
        found = {figure.key: _type(figure)} | ({figure.interval: Interval} if figure.interval else {})
        yield from ((key, of) for key, of in found.items() if key in result)


def _curves(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the curves that a result has and its protocol's plots draw: (key, type)."""
    for plot in ("scores", *declaration(result).plots):
        key = plot.key if isinstance(plot, Line) else "roc" if plot == "det" else plot
        if key in (result.get("curves") or {}):
            yield key, CURVES.get(key, Points | list[Number])


def _type(figure: Figure) -> Any:
    if figure.bare:
        return Number
    value: Any = Value if figure.target is None else _at(figure.target)
    return dict[Member, value] if figure.family else value


def _at(target: Target) -> Any:
    """Return a Value's type with the rate that its threshold gives, and the number of comparisons that decide it."""
    more = {target.obtained: NotRequired[Number], target.decided_by: NotRequired[Count]}
    return TypedDict("At", VALUE | more)  # type: ignore[operator]


VALUE: dict[str, Any] = {
    field.name: field.type if field.name == "value" else NotRequired[field.type] for field in fields(Value)
}
