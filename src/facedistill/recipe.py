"""The recipe: one typed YAML file with everything a run needs."""

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict, field, fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed

from facedistill.errors import UsageError, closest

STRICT = ConfigDict(extra="forbid", strict=False)
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
DEFAULT_DATA = "synthetic:identities=400,images=8,size=48,seed=1"  # of the demo's students


@typed(config=STRICT)
class Data:
    """The training images.

    `train`: any data set that the program opens. `hold_out`: share of the identities kept for evaluation; relatives and
    people in the same photo stay on one side. `in_memory`: decode once into a uint8 array; null = when it takes less
    than 2 GB. `workers`: decoding processes otherwise. `max_unreadable`: larger share of unreadable images is an error.
    """

    train: str = DEFAULT_DATA
    hold_out: Share = 0.0
    hold_out_seed: Seed = 0
    in_memory: bool | None = None
    workers: Annotated[int, Field(ge=0)] = 2
    max_unreadable: Share = 0.01


@typed(config=STRICT)
class Student:
    """The network. `embedding_dim`: null = the teacher's. `projection`: where the two differ, a linear layer to the
    teacher's size, kept in the model. `start`: a model or run whose weights it starts from."""

    backbone: str = "mobilefacenet"
    options: dict[str, Any] = field(default_factory=dict)
    input_size: Count = 112
    embedding_dim: Count | None = None
    projection: bool = False
    start: str | None = None


@typed(config=STRICT)
class TeacherSpec:
    """`model`: a model folder, run, or .onnx. `cache`: embed the training set once, both
    flips, instead of running the teacher at every step."""

    model: str
    cache: bool = True


@typed(config=STRICT)
class ClassifierSpec:
    """Where W starts and what moves it; null = as the method's row in the table says. `rows`: how a W that nothing
    moves is stored, fp32, bf16 (half) or int8 (a quarter); null = fp32."""

    start: Literal["random", "teacher", "centres", "fitted", "instances"] | None = None
    moved_by: Literal["nothing", "gradient", "teacher"] | None = None
    rows: Literal["fp32", "bf16", "int8"] | None = None


@typed(config=STRICT)
class Sampler:
    """null = the method's (uniform, 4). `pk`: batch / k classes with k images each."""

    kind: Literal["uniform", "class_balanced", "pk"] | None = None
    k: Count | None = None


@typed(config=STRICT)
class View:
    """What both networks see; null = the method's (same, 0.2). `mixup`: pairs of images of the batch are mixed, and so
    are their labels; shares from Beta(alpha, alpha)."""

    kind: Literal["same", "mixup"] | None = None
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


@typed(config=STRICT)
class TermSpec:
    """A term of the loss: `weight` x term(options); weight 0 removes it. `term` names its class where the key is only a
    label. In YAML the options stand beside weight: `margin_softmax: {scale: 32}`."""

    weight: float | None = None
    term: str | None = None
    teacher: str = "teacher"
    options: dict[str, Any] = field(default_factory=dict)


@typed(config=STRICT)
class MethodSpec:
    """A row of the method table and what the recipe changes in it. In YAML its name alone will do.

    `teacher_epoch: same`: in each epoch the teacher has the weights that its run kept of the same epoch.
    """

    name: str = "proxylesskd"
    classifier: ClassifierSpec = field(default_factory=ClassifierSpec)
    terms: dict[str, TermSpec] = field(default_factory=dict)
    sampler: Sampler = field(default_factory=Sampler)
    view: View = field(default_factory=View)
    teacher_epoch: Literal["last", "same"] | None = None


@typed(config=STRICT)
class Schedule:
    """Optimisation. `lr` is for the whole (global) batch. `decay: step` divides by 10 at `milestones` (epochs).

    `decay_norms`: weight decay on norms, biases and PReLU too. `clip`: largest gradient norm of the student's network,
    null = none. `keep: epochs` saves the student's weights after every epoch. `checkpoint_steps`: null = every epoch.
    """

    epochs: Count = 14
    batch: Count = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Rate = 0.1
    momentum: Rate = 0.9
    weight_decay: Rate = 5e-4
    decay_norms: bool = True
    warmup_epochs: Rate = 0.0
    decay: Literal["step", "polynomial", "cosine", "none"] = "cosine"
    milestones: list[float] = field(default_factory=list)
    power: Rate = 2.0
    clip: Rate | None = 5.0
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    keep: Literal["last", "epochs"] = "last"
    checkpoint_steps: Count | None = None
    log_steps: Count = 20


@typed(config=STRICT)
class Evaluation:
    """Sets evaluated when training ends (the held-out identities are added when there are any). `every`: the student
    alone is measured on them also after every so many epochs, without intervals; null = not."""

    sets: list[str] = field(default_factory=list)
    every: Count | None = None
    flip: Literal["sum", "concat", "none"] = "sum"
    threshold: Literal["grid", "exact"] = "grid"


@typed(config=STRICT)
class Check:
    """What `check` must find before a run against a teacher's classifier starts: the least own-class accuracy through W
    (leave-one-out for centres), 0 = any."""

    own_class: Share = 0.5


@typed(config=STRICT)
class Recipe:
    data: Data = field(default_factory=Data)
    student: Student = field(default_factory=Student)
    teachers: dict[str, TeacherSpec] = field(default_factory=dict)
    method: MethodSpec = field(default_factory=MethodSpec)
    schedule: Schedule = field(default_factory=Schedule)
    evaluation: Evaluation = field(default_factory=Evaluation)
    check: Check = field(default_factory=Check)
    track: Literal["none", "tensorboard"] = "none"
    seed: Seed = 0


GROUPS = {f.name for f in fields(Recipe)} - {"track", "seed"}


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where 1.1 surprises: `1e-1` is a number; `on`, `no`, `2024-05-01`, `1:30` and `0o17` are words."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would take for something else than a word."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("int", r"[-+]?(0|[1-9]\d*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse_value(text: str) -> Any:
    """Return the YAML value of a `key=value` override. Raises UsageError when it is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise UsageError(f"'{text}' is no value: {' '.join(str(e).split())}; quote it") from e


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("facedistill") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a shipped one by its name, and apply `key.key=value` overrides.

    Raises:
        UsageError: no such recipe, not YAML, an unknown key (the near one is suggested) or an ill-typed value.
    """
    file = Path(path)
    if file.is_file():
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise UsageError(f"recipe '{path}' cannot be read: {e}; expected a text file") from e
    elif path in shipped_recipes():
        text = (resources.files("facedistill") / "recipes" / f"{path}.yaml").read_text(encoding="utf-8")
    else:
        raise UsageError(
            f"recipe '{path}': no such file and no shipped recipe of that name{closest(path, shipped_recipes())}; "
            "`facedistill list recipes` shows them"
        )
    try:
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise UsageError(f"recipe '{path}' is not YAML: {' '.join(str(e).split())}") from e
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise UsageError(f"recipe '{path}': expected keys such as data, student, method; found {type(raw).__name__}")
    return make_recipe(raw, overrides, where=f"recipe '{path}'")


def make_recipe(raw: dict[str, Any], overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Validate a recipe given as plain dicts, with shorthands and overrides. Raises UsageError."""
    raw = _expand(raw)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"'{override}': expected key=value, e.g. schedule.epochs=20")
        _set(raw, key.split("."), parse_value(value))
        raw = _expand(raw)
    try:
        return TypeAdapter(Recipe).validate_python(_nest_options(raw))
    except ValidationError as e:
        raise UsageError(f"{where}: {_first_error(e)}") from e


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every value written out; `load_recipe` reads it back to an equal one."""
    raw = asdict(recipe)
    for term in raw["method"]["terms"].values():
        term.update(term.pop("options"))
    return yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _expand(raw: dict[str, Any]) -> dict[str, Any]:
    """Shorthands: `method: name`; `teacher: path` for one teacher; `data: path`; a group with nothing in it."""
    raw = {k: {} if v is None and k in GROUPS else v for k, v in copy.deepcopy(raw).items()}
    if isinstance(raw.get("method"), str):
        raw["method"] = {"name": raw["method"]}
    if isinstance(raw.get("data"), str):
        raw["data"] = {"train": raw["data"]}
    if isinstance(raw.get("student"), str):
        raw["student"] = {"backbone": raw["student"]}
    teachers = raw.get("teachers")
    teachers = {} if teachers is None else teachers
    if not isinstance(teachers, dict):
        return raw
    if "teacher" in raw:
        given, known = raw.pop("teacher"), teachers.get("teacher")
        both = isinstance(given, dict) and isinstance(known, dict)
        teachers["teacher"] = known | given if both else given  # `teacher.cache=false` leaves the model as it is
    raw["teachers"] = {name: {"model": t} if isinstance(t, str) else t for name, t in teachers.items()}
    return raw


def _nest_options(raw: dict[str, Any]) -> dict[str, Any]:
    method = raw.get("method")
    terms = method.get("terms") if isinstance(method, dict) else None
    if not isinstance(terms, dict):
        return raw
    own = {f.name for f in fields(TermSpec)}
    for name, term in terms.items():
        if isinstance(term, int | float):
            term = {"weight": term}
        if term is None:
            term = {}
        if isinstance(term, dict) and "options" not in term:
            terms[name] = {k: v for k, v in term.items() if k in own}
            terms[name]["options"] = {k: v for k, v in term.items() if k not in own}
    return raw


def _set(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if raw.get(key) is None:
            raw[key] = {}
        raw = raw[key]
        if not isinstance(raw, dict):
            raise UsageError(f"{'.'.join(keys)}: '{key}' is a value, not a group of keys")
    raw[keys[-1]] = value


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(p) for p in first["loc"]]
    if first["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{'.'.join(place)}: {first['msg']}, found {first['input']!r}"
    known = [f.name for f in fields(_group(place[:-1]))]
    return f"unknown key '{'.'.join(place)}'{closest(place[-1], known)}; known here: {', '.join(known)}"


def _group(place: list[str]) -> Any:
    """The dataclass that stands at `place` in a recipe."""
    if place[:1] == ["teachers"]:
        return TeacherSpec
    if place[:2] == ["method", "terms"]:
        return TermSpec
    group: Any = Recipe()
    for key in place:
        group = getattr(group, key)
    return group
