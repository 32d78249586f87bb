"""From a model to a file for a device, through the gate."""

import importlib.util
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch

from facedistill import __version__
from facedistill.backbones import Backbone
from facedistill.data import Dataset, open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import evaluate, open_sets
from facedistill.export.deployable import Deployable, Form, Layout, Pixels, Precision
from facedistill.export.executorch import ExecuTorch
from facedistill.export.gate import Gate, compare
from facedistill.export.litert import LiteRT
from facedistill.export.onnx import Onnx
from facedistill.export.target import Run, Target
from facedistill.files import writing
from facedistill.models import FACTS, Facts, Input, InputSpec, Model, load_model, make_space, resized
from facedistill.progress import say
from facedistill.recipe import find

TARGETS: dict[str, type[Target]] = {"onnx": Onnx, "litert": LiteRT, "executorch": ExecuTorch}
CALIBRATION_IMAGES = 256
GATE_IMAGES = 256
REFERENCE_BATCH = 64
GATE_FACES = "synthetic:identities=128,images=2,size={},seed=7,first=900000"  # where the user gives no images
FARS = (1e-1, 1e-2, 1e-3, 1e-4)  # the lowest that the set can measure counts
LICENCE = "as the licences of its training data and of its teacher allow"


@dataclass
class Export:
    """What an export made.

    Attributes:
        path: the file; where the gate failed, the file kept for study, whose name says so.
        size: height and width of the images that it takes, or the number of features.
        written: what the target tells of its writing, e.g. the calibration of int8.
    """

    path: Path
    target: str
    form: Form
    gate: Gate
    size: int
    bytes: int
    written: dict[str, Any] = field(default_factory=dict)
    takes_features: bool = False

    @property
    def input(self) -> str:
        """The input as a person reads it: "N x 3 x 112 x 112 uint8, RGB 0..255"."""
        number, side = "N" if self.form.batch == "dynamic" else self.form.batch, f"{self.size} x {self.size}"
        if self.takes_features:
            return f"{number} x {self.size} features, {self.form.pixels}"
        shape = f"{number} x 3 x {side}" if self.form.layout == "nchw" else f"{number} x {side} x 3"
        return f"{shape} {self.form.pixels}, RGB 0..255"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path), "gate": self.gate.to_json()}


def export_model(
    model: Model | str | Path,
    to: str,
    out: str | Path,
    *,
    precision: Precision = "fp32",
    calibrate: str | Path | Dataset | None = None,
    verify: str | Path | None = None,
    against: Model | str | Path | None = None,
    batch: int | Literal["dynamic"] | None = None,
    layout: Layout = "nchw",
    pixels: Pixels = "uint8",
    normalise: bool = True,
) -> Export:
    """Write the model as one file for a device, and compare the file with the model before it gets its name.

    Everything is inside the file but the resizing: colour order, normalisation, projection, offset, and unit length.
    The gate runs the file in the target's own runtime, on the images of `verify` or `calibrate`, else on synthetic
    faces. With `verify` it also compares TAR at FAR 1e-4, and with `against` that of the file against the teacher's
    gallery at the teacher's threshold.

    Args:
        to: a name in TARGETS, or `package.module:Class`.
        calibrate: images for int8; a hundred are enough. verify: people who are not among them.
        batch: images at a time; None: any number, or 1 where the target wants a number.
        normalise: embeddings leave the graph with unit length.

    Returns:
        An Export. Its gate says whether the file may be used; if not, the file lies under another name.

    Raises:
        UsageError: an unknown target or precision, int8 without images, verification on the calibration's images.
        UserError: the model has no network, a package is missing, or the file cannot be written.
    """
    out = Path(out)
    target = find(TARGETS, to, "target", Target)()
    form = _form(target, to, precision, layout, pixels, batch, normalise)
    if precision == "int8" and calibrate is None:
        raise UsageError(
            "export: int8 needs a hundred images or more to calibrate on; give calibrate (--calibrate photos)"
        )
    model = load_model(model) if not isinstance(model, Model) else model
    if model.takes_features:
        if to != "onnx":
            raise UsageError(f"export: target {to} takes images, and this model features; export it to onnx")
        form = replace(form, layout="nchw", pixels="float32")
    _require_packages(target, to)
    if out.suffix != target.suffix:
        raise UsageError(f"export: {out} for target {to}; expected a name that ends in {target.suffix}")
    net = Deployable(model, form)
    images = _Images(calibrate, verify, net.size, model.takes_features)
    facts = {FACTS: _facts(model, form).to_json()}
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = TemporaryDirectory(prefix=".export-", dir=out.parent)
    with beside as folder:
        file = Path(folder) / out.name
        calibration = images.calibration if precision == "int8" else None
        with writing(out):
            written = dict(target.write(net, form, calibration, facts, file) or {})
        if "text" in written:
            say(written.pop("text"))
        run = target.open(file, form)
        gate = compare(_reference(model, images.gate), run(images.gate), precision, normalise)
        if verify is not None and gate.passed:
            _compare_rates(gate, model, run, form, verify, against)
        if not gate.passed and (worst := target.worst_layer(net, form, images.gate, file)):
            gate.faults.append(worst)
        path = out if gate.passed else out.with_name(f"{out.stem}.failed{out.suffix}")
        with writing(out):
            size = file.stat().st_size
            os.replace(file, path)
    return Export(path, to, form, gate, net.size, size, written, model.takes_features)


def _form(
    target: Target,
    name: str,
    precision: Precision,
    layout: Layout,
    pixels: Pixels,
    batch: int | Literal["dynamic"] | None,
    normalise: bool,
) -> Form:
    if precision not in target.precisions:
        raise UsageError(f"export: target {name} cannot write {precision}; it writes {', '.join(target.precisions)}")
    for what, value, known in (("layout", layout, get_args(Layout)), ("pixels", pixels, get_args(Pixels))):
        if value not in known:
            raise UsageError(f"export: {what} '{value}'; expected one of {', '.join(known)}")
    if batch is None:
        batch = "dynamic" if target.any_batch else 1
    if batch == "dynamic" and not target.any_batch:
        raise UsageError(f"export: target {name} takes a fixed number of images; give batch=1, or another number")
    if batch != "dynamic" and batch < 1:
        raise UsageError(f"export: batch {batch}; expected 1 or more, or dynamic")
    return Form(precision, layout, pixels, batch, normalise)


def _require_packages(target: Target, name: str) -> None:
    missing = [package for package in target.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"export: target {name} needs the package '{missing[0]}'; pip install 'facedistill[{target.extra}]'"
        )


def _facts(model: Model, form: Form) -> Facts:
    return Facts(
        version=__version__,
        space=model.space or make_space(model),
        model=model.fingerprint(),
        embedding_dim=model.embedding_dim,
        input=Input(model.input_size, takes="features" if model.takes_features else "images"),
        **asdict(form),
        parameters=model.parameters_count(),
        macs=model.macs() or 0,
        thresholds=model.thresholds,
        licence=LICENCE,
    )


class _Images:
    """Images for calibration and for the gate, uint8 (N, 3, H, W) at the model's size, or features, float32 (N, k).

    None serves for both.
    """

    def __init__(
        self, calibrate: str | Path | Dataset | None, verify: str | Path | None, size: int, features: bool = False
    ) -> None:
        self.size, self.features = size, features
        given = None
        if calibrate is not None:
            given = calibrate if isinstance(calibrate, Dataset) else open_dataset(calibrate)
        order = np.random.default_rng(0).permutation(len(given)) if given is not None else np.zeros(0, dtype=np.int64)
        first, rest = order[:CALIBRATION_IMAGES], order[CALIBRATION_IMAGES : CALIBRATION_IMAGES + GATE_IMAGES]
        self.calibration = self._read(given, first) if given is not None else None
        if verify is not None:
            verified = open_dataset(verify)
            if given is not None:
                _require_apart(given, first, verified)
            chosen = np.random.default_rng(1).permutation(len(verified))[:GATE_IMAGES]
            self.gate = self._read(verified, chosen)
        elif given is not None and len(rest) >= 32:
            self.gate = self._read(given, rest)
        elif features:
            self.gate = np.random.default_rng(0).normal(size=(GATE_IMAGES, size)).astype(np.float32)
        else:
            faces = open_dataset(GATE_FACES.format(min(size, 112)))
            self.gate = self._read(faces, np.arange(len(faces)))

    def _read(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        images = dataset.batch(rows).images
        if not len(images):
            raise UserError(f"export: {dataset.source.path}: none of its images can be read")
        if self.features or dataset.source.features is not None:
            if images.shape[1:] != (self.size,) or not self.features:
                takes, found = f"{self.size} features" if self.features else "images", list(images.shape[1:])
                raise UserError(
                    f"export: the model takes {takes}; {dataset.source.path} holds samples of shape {found}"
                )
            return images.numpy()
        if images.shape[-2:] != (self.size, self.size):
            height, width = images.shape[-2:]
            say(f"{dataset.source.path}: images of {width} x {height} are resized to {self.size} x {self.size}")
            images = resized(images, self.size).round().clamp(0, 255).to(torch.uint8)
        return images.numpy()


def _require_apart(calibration: Dataset, rows: np.ndarray, verified: Dataset) -> None:
    """Raise UsageError where the verification set holds an image of the calibration."""
    ours = {hash(calibration.sample(int(i)).tobytes()) for i in rows}
    for i in range(len(verified)):
        if hash(verified.sample(i).tobytes()) in ours:
            raise UsageError(
                f"export: the verification set holds an image of the calibration ({verified.keys[i]}), which would "
                "flatter the file; verify on other people"
            )


@torch.inference_mode()
def _reference(model: Model, images: np.ndarray) -> np.ndarray:
    """The model's own embeddings."""
    return torch.cat([model(part) for part in torch.from_numpy(images).split(REFERENCE_BATCH)]).numpy()


class ExportedBackbone(Backbone):
    """A file in its runtime as a network, so that `evaluate` measures it like any model."""

    has_features = False
    foreign = True

    def __init__(self, run: Run, model: Model, form: Form) -> None:
        super().__init__(model.embedding_dim, model.input_size)
        self.run, self.model = run, [model]  # in a list: no part of this module
        self.takes_features = model.takes_features
        name = f"{model.fingerprint()} {form}".encode()
        self.register_buffer("name", torch.tensor(list(name), dtype=torch.uint8))  # for the fingerprint

    def count_parameters(self) -> int:
        return self.model[0].parameters_count()

    def count_macs(self) -> int:
        return self.model[0].macs() or 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples = x if self.takes_features else x.round().clamp(0, 255).to(torch.uint8)
        return torch.from_numpy(self.run(samples.numpy())).float()


def exported(run: Run, model: Model, form: Form) -> Model:
    """Return the file as a Model in the space of the model that it was made from."""
    made = Model(
        ExportedBackbone(run, model, form), InputSpec(model.input_size, mean=(0.0,), std=(1.0,)), space=model.space
    )
    return made.eval()


def _compare_rates(
    gate: Gate, model: Model, run: Run, form: Form, verify: str | Path, against: Model | str | Path | None
) -> None:
    """Add to the gate the rates of the verification set: the student's own, and against the teacher's gallery."""
    teacher = load_model(against) if isinstance(against, str | Path) else against
    models = {"file": exported(run, model, form), "model": model} | ({"teacher": teacher} if teacher else {})
    result = evaluate(models, open_sets([str(verify)]), protocols=["all-pairs"], flip="none", fars=FARS, resamples=0)
    by_pair = {(r["probe"], r["gallery"]): r for r in result["results"]}
    rates = by_pair["model", "model"]["tar_at_far"]
    if not rates:
        raise UserError(f"export: {verify} has too few pairs of different people for any false-accept rate; give more")
    far = min(rates, key=float)
    gate.add_rate(
        "student against student",
        rates[far]["value"],
        by_pair["file", "file"]["tar_at_far"][far]["value"],
        float(far),
    )
    if teacher:
        model_at, file_at = (by_pair[name, "teacher"]["at_gallery_threshold"] for name in ("model", "file"))
        far = min(model_at, key=float)
        gate.add_rate(
            "student against the teacher's gallery, at its threshold",
            model_at[far]["tar"],
            file_at[far]["tar"],
            float(far),
        )
