"""Training of a hallucination network in stages, each a run of its own that resumes to the same bits.

facedistill hallucinate train RECIPE --out RUN --stage priors|pairs|adversarial|joint
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facedistill import parallel
from facedistill.data import Dataset, Loader, make_sampler
from facedistill.errors import UsageError, closest
from facedistill.files import atomic_write
from facedistill.hallucination.fhn import check_size
from facedistill.hallucination.images import LowImages
from facedistill.hallucination.joint import train_jointly
from facedistill.hallucination.measures import Truth, measure
from facedistill.hallucination.priors import open_priors
from facedistill.hallucination.report import told, write_report
from facedistill.hallucination.sheet import write_sheet
from facedistill.hallucination.stages import STAGES, Given, Stage
from facedistill.hallucination.starts import JOINT, MEASURES, ORDER, start_of
from facedistill.hallucination.storing import FILE, save_fhn
from facedistill.models import Model, load_model, resized
from facedistill.progress import bar, say
from facedistill.recipe import Hallucination, Recipe, Schedule, dump_recipe
from facedistill.run import Log, Trackers, claim_run
from facedistill.training import (
    checkpoint,
    fast_cpu,
    learning_rate,
    open_training_data,
    resolve,
    restore,
    step_seed,
    written_out,
)

SHOWN = 24  # held-out faces that are measured
TEACHERS = ("teacher", "features")  # the model whose embedding tells identities, and the one whose maps are compared


def train(recipe: Recipe, out: str | Path, stage: str = "pairs") -> Path:
    """Train one stage as the recipe says (its group `hallucination`) into the folder OUT/STAGE, and return that.

    A stage begins with the network of the latest stage before it that is finished in `out`. It writes fhn.safetensors,
    measures.json, report.html, log.jsonl, verification.jsonl and a contact sheet after every epoch. `joint` is an
    ordinary training run of the network before the recogniser `student.start`, by the recipe's method.

    Idempotent, as `train` is: the same recipe resumes from the last checkpoint, and a finished stage does nothing.

    Raises:
        UsageError: the folder holds another run; the recipe asks for what a stage cannot do; an earlier one is missing.
        UserError: data, priors or networks do not fit; the loss is not finite (the last checkpoint stays).
    """
    out, settings = Path(out), recipe.hallucination or Hallucination()
    if stage not in ORDER:
        raise UsageError(f"stage '{stage}'{closest(stage, ORDER)}: expected one of {', '.join(ORDER)}")
    check_size(settings.size)
    if stage == JOINT:
        return train_jointly(recipe, settings, out)
    _refuse(recipe)
    recipe = replace(recipe, method=resolve(recipe.method).spec, hallucination=settings)
    run = out / stage
    with claim_run(run, dump_recipe(recipe), written_out):
        if (run / MEASURES).exists():
            say(f"{run} is finished; nothing to do")
            return run
        with fast_cpu():
            torch.manual_seed(recipe.seed)
            trackers = Trackers(recipe.track, run)
            try:
                _fit(_prepared(recipe, settings, out, stage), trackers)
            finally:
                trackers.end()
    return run


def _refuse(recipe: Recipe) -> None:
    """Raise UsageError for what a stage cannot do, before anything long begins."""
    if parallel.world() > 1:
        raise UsageError("hallucinate train: it runs in one process; start it without torchrun")
    if recipe.schedule.optimizer != "adamw":
        raise UsageError(
            f"hallucinate train: these networks train by Adam, but schedule.optimizer={recipe.schedule.optimizer}; set "
            "schedule.optimizer=adamw and a rate for it, e.g. schedule.lr=0.001"
        )
    if unknown := [name for name in recipe.teachers if name not in TEACHERS]:
        raise UsageError(
            f"hallucinate train: teachers.{unknown[0]}{closest(unknown[0], TEACHERS)}: expected the names "
            f"{' and '.join(TEACHERS)}"
        )
    for key in ("precision", "compile", "keep", "quantise"):
        value = getattr(recipe.schedule, key)
        if value != getattr(Schedule(), key):
            raise UsageError(f"hallucinate train: schedule.{key}={value}: these stages do not take it; leave it out")


@dataclass
class Job:
    """A stage with its data.

    Attributes:
        truth: the faces that it is measured on; `measured` says which.
        bound: everything that must be unchanged when the run resumes.
    """

    stage: Stage
    train: Dataset
    loader: Loader
    truth: Truth
    measured: str
    teacher: Model | None
    bound: dict[str, Any]


def _prepared(recipe: Recipe, settings: Hallucination, out: Path, name: str) -> Job:
    """Open the data, the priors and the networks of a stage."""
    fhn, start = start_of(settings, out, name)
    models = {key: _frozen(spec.model) for key, spec in recipe.teachers.items()}
    train, held_out = open_training_data(recipe.data)
    priors = open_priors(settings.priors, recipe.data, train, settings.size)
    if priors is None and name == "pairs":
        say("no priors are known of these images, so landmarks and parsing are not trained")
    low = LowImages(Path(settings.low), settings.size) if settings.low and name == "adversarial" else None
    features = _features(models, settings)
    given = Given(recipe, settings, out / name, fhn, priors, features, low)
    stage = STAGES[name](given).to(parallel.device()).train()
    schedule = recipe.schedule
    sampler = make_sampler("uniform", train.labels, schedule.batch, recipe.seed, None, recipe.data.mirror)
    loader = Loader(train, sampler, workers=recipe.data.workers)
    trained_on: dict[str, Any] = {
        "data": train.fingerprint,
        "start": start,
        "number of steps": schedule.epochs * loader.steps,
    }
    trained_on |= {"priors": priors.fingerprint if priors else "", "low images": low.fingerprint if low else ""}
    trained_on |= {f"teacher {key}": model.space for key, model in models.items()}
    bound = {"recipe": dump_recipe(recipe), "trained_on": trained_on, "frozen_weight": []}
    shown = held_out or train
    measured = "held-out faces" if held_out else "training images: set data.hold_out to measure others"
    teacher = models.get("teacher")
    if teacher is not None and teacher.backbone is None:
        teacher = None  # embeddings alone tell nothing of new faces
    return Job(stage, train, loader, _truth(recipe, settings, shown), measured, teacher, bound)


def _frozen(path: str) -> Model:
    return load_model(path).to(parallel.device()).requires_grad_(False).eval()


def _features(models: dict[str, Model], settings: Hallucination) -> Model | None:
    """Return the model whose stage maps are compared: the teacher named "features", else "teacher", if it has maps."""
    model = models.get("features", models.get("teacher"))
    if model is not None and model.backbone is not None and model.backbone.has_features:
        return model
    if settings.feature:
        say("no teacher gives stage features, so that loss is left out; teachers.features=MODEL names a network for it")
    return None


def _truth(recipe: Recipe, settings: Hallucination, dataset: Dataset) -> Truth:
    """Return up to SHOWN faces, spread over the data set, with their priors if they are known."""
    places = np.unique(np.linspace(0, len(dataset) - 1, SHOWN).astype(np.int64))
    shown = dataset.subset(places)
    found = shown.batch(np.arange(len(shown)))
    pixels = resized(found.images, settings.size).round().clamp(0, 255).to(torch.uint8)
    priors = open_priors(settings.priors, recipe.data, shown, settings.size)
    if priors is None:
        return Truth(pixels)
    points, classes = priors.of(found.index[:, 0].numpy())
    return Truth(pixels, torch.from_numpy(points), torch.from_numpy(classes))


def _fit(job: Job, trackers: Trackers) -> None:
    """Run epochs and batches: a step of the stage; log, checkpoint; after every epoch a sheet and the figures."""
    stage, loader, given = job.stage, job.loader, job.stage.given
    schedule, run = given.recipe.schedule, given.run
    total = schedule.epochs * loader.steps
    step, seconds = restore(run, stage, stage.optimizers, job.bound)  # type: ignore[arg-type]
    log = Log(run, step, seconds, trackers)
    if step and step % loader.steps == 0:
        _end_epoch(job, step, step // loader.steps - 1, log)  # the run stopped before this was done
    with bar() as display:
        task = display.add_task(
            "training", total=total * schedule.batch, completed=step * schedule.batch, unit="images", note=""
        )
        for epoch in range(step // loader.steps, schedule.epochs):
            for images in loader.epoch(epoch, skip=step - epoch * loader.steps):
                torch.manual_seed(step_seed(given.recipe.seed, step))
                rate = learning_rate(schedule, step, loader.steps)
                losses = stage.step(images, step, rate)
                step += 1
                display.update(task, advance=schedule.batch, note=f"loss {losses.total.item():.3f}")
                if step % schedule.log_steps == 0 or step == total:
                    log.write(step, epoch, rate, losses.norm, losses.total, losses.parts, schedule.batch)
                if step % (schedule.checkpoint_steps or loader.steps) == 0 or step == total:
                    checkpoint(run, step, log.elapsed(), stage, stage.optimizers, job.bound)  # type: ignore[arg-type]
            _end_epoch(job, step, epoch, log)
    _finish(job, log)


def _end_epoch(job: Job, step: int, epoch: int, log: Log) -> None:
    """Draw the contact sheet of an epoch, and measure, unless it is done."""
    if epoch in log.verified:
        return
    stage = job.stage.eval()
    write_sheet(stage.look, job.truth, stage.given.run / "sheets" / f"{epoch:04d}.png")
    rows = _measured(job)
    log.verify(
        step, epoch, lambda: {f"{row['pixels']:.0f}/{k}": v for row in rows for k, v in row.items() if k != "pixels"}
    )
    say(f"epoch {epoch + 1} of {stage.given.recipe.schedule.epochs}: {told(rows)}")
    stage.train()


def _measured(job: Job) -> list[dict[str, float]]:
    return measure(job.stage.look, job.truth, job.teacher, job.stage.given.features, job.stage.pictures)


def _finish(job: Job, log: Log) -> None:
    """Save the network and the report, then the figures, which mark the stage as finished."""
    stage, run, recipe = job.stage.eval(), job.stage.given.run, job.stage.given.recipe
    save_fhn(stage.fhn, stage.given.settings.size, run / FILE)
    rows = _measured(job)
    result = {
        "schema": 1,
        "stage": run.name,
        "faces": len(job.truth.images),
        "measured": job.measured,
        "images": len(job.train),
        "data": job.train.fingerprint,
        "epochs": recipe.schedule.epochs,
        "seed": recipe.seed,
        "seconds": round(log.elapsed(), 1),
        "rows": rows,
    }
    write_report(run, result)
    with atomic_write(run / MEASURES) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
