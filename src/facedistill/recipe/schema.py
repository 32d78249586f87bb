"""The schema of a recipe: its groups, keys, types and defaults."""

from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as typed

STRICT = ConfigDict(extra="forbid", strict=False)


def _as_name(value: Any) -> Any:
    """A whole number is a name where text is expected: folders are called 2024."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


Name = Annotated[str, BeforeValidator(_as_name)]
Names = Annotated[list[Name], BeforeValidator(_as_list)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Imbalance = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
MovedBy = Literal["nothing", "gradient", "teacher"]
Stored = Literal["fp32", "bf16", "int8"]
TeacherEpoch = Literal["last", "same"]
Options = dict[str, Any]
# Kept out of the repr: it seeds a run's random numbers, and those of earlier runs must not change.
NO_OPTIONS: Any = field(default_factory=dict, repr=False)
DEFAULT_DATA = "synthetic:identities=400,images=8,size=48,seed=1"  # of the demo's students


@typed(config=STRICT)
class Data:
    """The training images.

    `train`: any data set that the program opens, or a list of several. `weights`: of several, by their names, how often
    each image comes in an epoch; left out = 1. `classes`: how several name theirs, see UnionSource. `hold_out`: share
    of the identities kept for evaluation; relatives and people in the same photo stay on one side; for classification,
    of each class's images. `in_memory`: decode once into a uint8 array; null = when it takes less than 2 GB. `workers`:
    decoding processes otherwise, and those of a view that changes each image. `max_unreadable`: a larger share is an
    error. `columns`: of a table (Parquet, Arrow, metadata.csv), its columns "image" and "label", and the "folder" whose
    files rows may name.
    `imbalance`: keep a long tail: class sizes fall exponentially, from the whole first class to 1 / imbalance of that
    many for the last; 1 = all images. `imbalance_seed` draws the images that stay. `subset`: train on some of the
    classes or labels alone: FILE:NAME, a group of labels that the data has, or many, medium, few; null = all.
    `mirror`: mirror half of the images that are drawn; false: none, in training and in the evaluation after it.
    """

    train: Name | Annotated[list[Name], Field(min_length=1)] = DEFAULT_DATA
    hold_out: Share = 0.0
    hold_out_seed: Seed = 0
    in_memory: bool | None = None
    workers: Annotated[int, Field(ge=0)] = 2
    max_unreadable: Share = 0.01
    columns: dict[str, Name] = field(default_factory=dict)
    classes: str = field(default="prefix", repr=False)  # these six: as NO_OPTIONS
    weights: dict[Name, Positive] = field(default_factory=dict, repr=False)
    imbalance: Imbalance = field(default=1.0, repr=False)
    imbalance_seed: Seed = field(default=0, repr=False)
    subset: Name | None = field(default=None, repr=False)
    mirror: bool = field(default=True, repr=False)

    @property
    def sets(self) -> list[str]:
        """The data sets that `train` names."""
        return [self.train] if isinstance(self.train, str) else self.train


@typed(config=STRICT)
class Student:
    """The network. `embedding_dim`: null = the teacher's. `projection`: if the two differ, add a linear layer to the
    teacher's size, kept in the model. `start`: a model or run whose weights the student starts from. `frozen`: it keeps
    them, and W alone is trained."""

    backbone: str = "mobilefacenet"
    options: dict[str, Any] = field(default_factory=dict)
    input_size: Count = 112
    embedding_dim: Count | None = None
    projection: bool = False
    start: Name | None = None
    frozen: bool = field(default=False, repr=False)


@typed(config=STRICT)
class TeacherSpec:
    """`model`: a model folder, run, or .onnx. `cache`: embed the training set once, both
    flips, instead of running the teacher at every step."""

    model: Name
    cache: bool = True


@typed(config=STRICT)
class ClassifierSpec:
    """Where W starts and what moves it; null = as in the method's row of the table. `rows`: how a W that nothing moves
    is stored: fp32, bf16 (half the size) or int8 (a quarter); null = fp32. `options`: options of the start."""

    start: str | None = None
    moved_by: MovedBy | None = None
    rows: Stored | None = None
    options: Options = NO_OPTIONS


@typed(config=STRICT)
class SamplerSpec:
    """How images are drawn for a batch; null = the method's choice (else uniform; k = 4). `pk`: batch / k classes with
    k images each. `options`: further options of the sampler."""

    kind: str | None = None
    k: Count | None = None
    options: Options = NO_OPTIONS


@typed(config=STRICT)
class ViewSpec:
    """How images change before the networks see them; null = the method's choice (else same; alpha = 0.2). `augment`,
    `degrade` and the published ones change each image by itself. `mixup`: pairs of images and their labels are mixed,
    with shares from Beta(alpha, alpha). `options`: further options."""

    kind: str | None = None
    alpha: Positive | None = None
    options: Options = NO_OPTIONS


@typed(config=STRICT)
class TermSpec:
    """A term of the loss: `weight` x term(options); weight 0 removes it. `term` names its class if the key is only a
    label. In YAML the options are written beside weight: `margin_softmax: {scale: 32}`."""

    weight: float | None = None
    term: str | None = None
    teacher: str = "teacher"
    options: dict[str, Any] = field(default_factory=dict)


@typed(config=STRICT)
class MethodSpec:
    """A row of the method table with the recipe's changes to it. In YAML its name alone is enough.

    `teacher_epoch: same`: in each epoch the teacher has the weights that its own run kept after the same epoch.
    """

    name: str = "proxylesskd"
    classifier: ClassifierSpec = field(default_factory=ClassifierSpec)
    terms: dict[str, TermSpec] = field(default_factory=dict)
    sampler: SamplerSpec = field(default_factory=SamplerSpec)
    view: ViewSpec = field(default_factory=ViewSpec)
    teacher_epoch: TeacherEpoch | None = None


@typed(config=STRICT)
class Schedule:
    """Optimisation. `lr` is for the whole (global) batch. `decay: step` divides by 10 at `milestones` (epochs).

    `decay_norms`: weight decay on norms, biases and PReLU too. `clip`: largest gradient norm of the student's network,
    null = none. `keep: epochs` saves the student's weights after every epoch. `checkpoint_steps`: null = every epoch.
    `quantise: int8` rounds the student's layers as an int8 file does; null = no. `ema`: the model is a moving average
    of the weights, which keeps this share of itself at every step; null = the weights of the last step.
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
    quantise: Literal["int8"] | None = field(default=None, repr=False)  # as NO_OPTIONS
    ema: Annotated[float, Field(ge=0, lt=1)] | None = field(default=None, repr=False)


@typed(config=STRICT)
class Evaluation:
    """Sets evaluated when training ends (the held-out identities are added when there are any). `every`: the
    student alone is also measured every so many epochs, without intervals; null = never."""

    sets: Names = field(default_factory=list)
    every: Count | None = None
    flip: Literal["sum", "concat", "none"] = "sum"
    threshold: Literal["grid", "exact"] = "grid"


@typed(config=STRICT)
class Check:
    """What `check` requires before a run against a teacher's classifier starts. `own_class`: the least own-class
    accuracy through W (leave-one-out for centres); 0 = any."""

    own_class: Share = 0.5


Task = Literal["recognition", "classification", "retrieval"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


@typed(config=STRICT)
class Search:
    """An architecture search (`facedistill search`): the supernet, and how the weights of its operations are found.

    `channels`, `cells`: of the supernet. `order: 2` also counts what an architecture changes in the next step of
    training; 1 needs a quarter of the time. `alpha_lr`, `alpha_weight_decay`: of Adam on those weights. `auxiliary`:
    skips beside the operations, against cells of nothing but skips (DARTS-). `latency`: the weight of the cells'
    expected time, measured on this machine, as a share of an even mixture's.
    """

    channels: Count = 16
    cells: Count = 8
    order: Literal[1, 2] = 2
    alpha_lr: Rate = 1.2e-3
    alpha_weight_decay: Rate = 1e-3
    auxiliary: bool = False
    latency: Rate = 0.0


@typed(config=STRICT)
class Hallucination:
    """A face hallucination network (`facedistill hallucinate train`): the network, its data, and its losses.

    `preset`: tiny, small, base or paper. `size`: the side of its images, a multiple of 16. `priors`: a face mesh
    (.onnx, .tflite) or the folder of an index of landmarks and parsing maps; null = the data's own, if they are
    rendered. `low`: a folder of real images of low resolution, for the stage `adversarial`; they need no classes and
    no partners. `degrade`: options of the view
    of that name, which makes the low images. `rotate` (degrees) and `shift` (share of the side) move faces at random.
    The other keys are weights of the losses; 0 removes one.
    """

    preset: str = "tiny"
    size: Count = 112
    priors: Name | None = None
    low: Name | None = None
    degrade: Options = field(default_factory=dict)
    rotate: Rate = 5.0
    shift: Share = 0.03
    pixel: Rate = 50.0
    feature: Rate = 1.0
    landmark: Rate = 100.0
    parsing: Rate = 1.0
    adversarial: Rate = 1.0


@typed(config=STRICT)
class Recipe:
    """A whole recipe.

    `purpose`: whose gallery the student will search: asymmetric = its teacher's, symmetric = one of its own; null =
    asymmetric if there is a teacher. `train` warns if the method does not suit it. `task` decides how the student is
    measured: `recognition` as usual for each set, the others by the protocols of classification and retrieval, on sets
    of images with class names.
    """

    data: Data = field(default_factory=Data)
    student: Student = field(default_factory=Student)
    teachers: dict[str, TeacherSpec] = field(default_factory=dict)
    method: MethodSpec = field(default_factory=MethodSpec)
    schedule: Schedule = field(default_factory=Schedule)
    evaluation: Evaluation = field(default_factory=Evaluation)
    check: Check = field(default_factory=Check)
    track: Literal["none"] | Tracker | list[Tracker] = "none"
    seed: Seed = 0
    purpose: Literal["asymmetric", "symmetric"] | None = field(default=None, repr=False)  # as NO_OPTIONS
    task: Task = field(default="recognition", repr=False)
    search: Search | None = field(default=None, repr=False)  # as NO_OPTIONS
    hallucination: Hallucination | None = field(default=None, repr=False)

    @property
    def flip(self) -> Literal["sum", "concat", "none"]:
        """The use of mirror images in the evaluation after training: none if the training has none."""
        return self.evaluation.flip if self.data.mirror else "none"


OF_OTHER_VERBS = {"search": "search", "hallucination": "hallucinate train"}  # groups that `train` does not read
GROUPS = {f.name for f in fields(Recipe)} - {"track", "seed", "purpose", "task", *OF_OTHER_VERBS}
