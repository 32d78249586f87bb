"""The training loop. It trains teachers and students, in one process or torchrun's, and resumes after a kill.

facedistill train RECIPE --out RUN
torchrun --nproc-per-node=4 -m facedistill train RECIPE --out RUN
"""

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facedistill import evaluation, parallel
from facedistill.data import Batch, ImageBatch, Loader
from facedistill.errors import UsageError, UserError, some
from facedistill.files import atomic_write, cache_dir, fingerprint
from facedistill.heap import keep_freed_memory
from facedistill.models import not_tied, save_model, save_weights
from facedistill.progress import Pace, bar, say
from facedistill.recipe import OF_OTHER_VERBS, Recipe, dump_recipe
from facedistill.results import pictures
from facedistill.run import (
    LOG,
    Log,
    Trackers,
    claim_run,
    epoch_file,
    forget_peak,
    peak,
    read_log,
)
from facedistill.training.assemble import Assembly, assemble
from facedistill.training.average import WeightAverage
from facedistill.training.optimisation import learning_rate, make_optimizer
from facedistill.training.pacing import pace_terms
from facedistill.training.resolved import describe, resolve
from facedistill.training.resume import bound_to, checkpoint, restore, written_out
from facedistill.training.simulated_int8 import simulate_int8


def train(recipe: Recipe, out: str | Path) -> Path:
    """Train as the recipe says and write model/, evaluation.json and log.jsonl into the folder `out`.

    Idempotent: the same recipe resumes from the last checkpoint, and a finished run does nothing.

    Raises:
        UsageError: `out` holds another run, or something that is not a run.
        Busy: another process is working on the run.
        UserError: data, teacher or classifier do not fit; the loss is not finite (the last checkpoint stays).
    """
    run, method = Path(out), resolve(recipe.method)
    for group, verb in OF_OTHER_VERBS.items():
        if getattr(recipe, group) is not None:
            raise UsageError(f"the recipe has the group '{group}': run `facedistill {verb}`, or remove the group")
    recipe = replace(recipe, method=method.spec)
    with parallel.processes(), claim_run(run, dump_recipe(recipe), written_out):
        if (run / "evaluation.json").exists():
            say(f"{run} is finished; nothing to do")
            return run
        with fast_cpu():
            forget_peak()
            torch.manual_seed(recipe.seed + parallel.rank())
            assembly = assemble(recipe, method)
            if not assembly.sets and parallel.rank() == 0:
                say("nothing is evaluated: set evaluation.sets, or hold classes out (data.hold_out=0.1)")
            asymmetric = recipe.purpose != "symmetric" and assembly.models
            if asymmetric and assembly.method.anchors is None and parallel.rank() == 0:
                told = "; purpose=symmetric says that this is meant"
                say(f"warning: {not_tied(describe(recipe.method, assembly.origin))}{told}")
            trackers = Trackers(recipe.track if parallel.rank() == 0 else "none", run)
            try:
                seconds = _fit(recipe, run, assembly, trackers)
                if parallel.rank() == 0:
                    result = _finish(recipe, run, assembly, seconds, peak())
                    trackers.pictures(_pictures(run, result) if trackers.open else {})
            finally:
                trackers.end()
        parallel.barrier()
    return run


MEASURED_STEPS = 12


def measure(recipe: Recipe) -> tuple[int, float]:
    """Train the first steps of a recipe, keep nothing, and return (number of training images, images per second).

    Results of work before the first step, such as the teacher's embeddings, are cached as in a run.
    """
    method = resolve(recipe.method)
    schedule = replace(recipe.schedule, log_steps=MEASURED_STEPS // 3)
    recipe = replace(recipe, method=method.spec, schedule=schedule, track="none")
    with parallel.processes(), fast_cpu(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(recipe.seed)
        assembly = assemble(recipe, method)
        _fit(recipe, Path(folder), assembly, Trackers("none", Path(folder)), stop=MEASURED_STEPS)
        rates = [row["images_per_second"] for row in read_log(Path(folder) / LOG)]
    return len(assembly.train), statistics.median(rates[-2:])  # the first steps are slow


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Make a CPU fast: keep freed memory, for good, and treat denormal numbers as 0 in the block."""
    keep_freed_memory()
    before = float(torch.tensor([1e-39]) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _fit(recipe: Recipe, run: Path, assembly: Assembly, trackers: Trackers, stop: int | None = None) -> float:
    """Run epochs and batches: forward, backward, step, log, checkpoint. Return the seconds that training took.

    Args:
        stop: end after this many steps.
    """
    schedule, device = recipe.schedule, parallel.device()
    method = assembly.method.to(device).train()
    if schedule.quantise:
        simulate_int8(method.student)
    if schedule.channels_last:
        method.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(method, schedule)
    rank, world, workers = parallel.rank(), parallel.world(), recipe.data.workers
    loader = Loader(assembly.train, assembly.sampler, rank, world, workers, assembly.view, recipe.seed)
    total = schedule.epochs * loader.steps
    bound = bound_to(recipe, assembly, total)
    average = None if schedule.ema is None else WeightAverage(method, schedule.ema)
    step, seconds = restore(run, method, optimizer, bound, average)
    if schedule.compile:
        method.student.backbone.compile()  # type: ignore[union-attr]
    ddp = parallel.wrap(method)
    trained = [p for p in method.student.parameters() if p.requires_grad]
    log = Log(run, step, seconds, trackers) if parallel.rank() == 0 else None
    if step and step % loader.steps == 0:
        _end_epoch(recipe, run, assembly, average, step, log)  # the run stopped before this was done
    pace = Pace(total * schedule.batch, step * schedule.batch)
    with bar() as display:
        task = display.add_task(
            "training", total=total * schedule.batch, completed=step * schedule.batch, unit="images", note=""
        )
        for epoch in range(step // loader.steps, schedule.epochs):
            _start_epoch(assembly, epoch, whole=step == epoch * loader.steps)
            for images in loader.epoch(epoch, skip=step - epoch * loader.steps):
                torch.manual_seed(step_seed(recipe.seed, step))  # for dropout; no generator state to save
                lr = learning_rate(schedule, step, loader.steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                batch = to_batch(images, device, step / total, assembly)
                with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bf16"):
                    losses: dict[str, Tensor] = ddp(batch)
                loss = torch.stack(list(losses.values())).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(trained, schedule.clip or float("inf"))
                stop_if_not_finite(loss, norm, step, run)
                optimizer.step()
                step += 1
                if average:
                    average.update(step)
                display.update(task, advance=schedule.batch, note=f"loss {loss.item():.3f}")
                if log is not None and (step % schedule.log_steps == 0 or step == total):
                    log.write(step, epoch, lr, norm, loss, losses, schedule.batch)
                if step == stop:
                    return 0.0
                if step % (schedule.checkpoint_steps or loader.steps) == 0 or step == total:
                    seconds = log.elapsed() if log else 0.0
                    checkpoint(run, step, seconds, method, optimizer, bound, average)
            if log is not None and display.disable:
                place = f"epoch {epoch + 1} of {schedule.epochs}, step {step:,} of {total:,}"
                say(f"{place}: loss {loss.item():.3f}, {pace.text(step * schedule.batch)}")
            _end_epoch(recipe, run, assembly, average, step, log)
            parallel.barrier()  # the first process may measure for longer than a step may take
    if average:
        average.install()
    return seconds


def _start_epoch(assembly: Assembly, epoch: int, whole: bool) -> None:
    """Prepare the teachers, and terms that follow the student's progress unless a part of the epoch is done already."""
    assembly.method.start_epoch(epoch)
    if whole:
        pace_terms(assembly)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's random numbers, from the run's; each process has its own."""
    return int(fingerprint(seed, step, parallel.rank()), 16) >> 1


def _end_epoch(
    recipe: Recipe, run: Path, assembly: Assembly, average: WeightAverage | None, step: int, log: Log | None
) -> None:
    """Save the student's weights and measure it after an epoch, if the recipe asks and it is not done yet.

    With `schedule.ema`, both are of the average. `step` is the last one of the epoch.
    """
    if log is None:  # not the first process
        return
    epoch = step // assembly.sampler.steps - 1
    kept = run / "epochs" / epoch_file(epoch)
    saves = recipe.schedule.keep == "epochs" and not kept.exists()
    every = recipe.evaluation.every
    due = every is not None and (epoch + 1) % every == 0 and epoch + 1 < recipe.schedule.epochs
    measures = due and epoch not in log.verified
    if not (saves or measures):
        return
    with average.shown() if average else nullcontext():
        if saves:
            with atomic_write(kept) as temporary:
                save_weights(assembly.method.student, temporary)
        if measures:
            log.verify(step, epoch, lambda: _verify(recipe, assembly))


def to_batch(images: ImageBatch, device: torch.device, progress: float, assembly: Assembly) -> Batch:
    """Return the images as the method takes them; `progress` is the share of training that is done."""
    clean = images.images.to(device, non_blocking=True)
    shown = clean if images.shown is None else images.shown.to(device, non_blocking=True)
    index = images.index.to(device, non_blocking=True)
    labels = images.labels.to(device, non_blocking=True)
    rows = index[:, 0] if assembly.a_row_an_image else labels
    several = None
    if assembly.train.multi_hot is not None:
        several = torch.from_numpy(assembly.train.multi_hot[images.index[:, 0].numpy()]).to(device, torch.float32)
    return Batch(shown, clean, [(rows, 1.0)], index, progress, labels, several)


def stop_if_not_finite(loss: Tensor, norm: Tensor, step: int, run: Path) -> None:
    """Raise UserError if the loss or the norm of its gradient is infinite or NaN."""
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise UserError(
            f"training: loss {loss.item():.3g}, gradient norm {norm.item():.3g} at step {step}; stopped, the last good "
            f"checkpoint is kept in {run / 'checkpoints'}; lower schedule.lr or add warm-up (schedule.warmup_epochs=1)"
        )


def _verify(recipe: Recipe, assembly: Assembly) -> dict[str, float]:
    """Return the student's own accuracy and rates on the recipe's sets: "lfw/all-pairs/tar_at_far/1e-3" -> value."""
    result = evaluation.evaluate(
        {"student": assembly.method.student},
        assembly.sets,
        protocols=evaluation.protocols_of_task(recipe.task, assembly.sets),
        flip=recipe.flip,
        resamples=0,
    )
    figures: dict[str, float] = {}
    for r in result["results"]:
        place = f"{r['set']}/{r['protocol']}"
        figures |= {f"{place}/tar_at_far/{far}": at["value"] for far, at in r.get("tar_at_far", {}).items()}
        figures |= {f"{place}/{key}": r[key] for key in ("accuracy", "eer") if key in r}
        figures |= {f"{place}/{key}": r[key]["value"] for key in ("centre_top1", "map") if key in r}
    return figures


def _finish(recipe: Recipe, run: Path, assembly: Assembly, seconds: float, memory: int) -> dict[str, Any]:
    """Save the student as a model folder, and write evaluation.json, which marks the run as finished; return that.

    Args:
        seconds, memory: the time of training, and its peak in bytes.
    """
    student = assembly.method.student.eval()
    anchor = assembly.method.anchors
    if not assembly.method.frozen:
        student.space = assembly.models[anchor].space if anchor else None
    weight = assembly.method.weight
    if weight is not None and weight.moved_by != "nothing" and weight.projection is None:
        student.classifier = weight.trained(assembly.method.scale)
    name = describe(recipe.method, assembly.origin)
    student.made = {
        "method": name,
        "recipe": "../recipe.yaml",
        "images": len(assembly.train),
        "data": assembly.train.fingerprint,
    }
    if assembly.models:
        student.made["teachers"] = [model.space for model in assembly.models.values()]
    if names := assembly.train.unreadable:
        student.made["unreadable"] = names
        say(f"{len(names)} unreadable images were left out: {', '.join(names[:5])}{' ...' * (len(names) > 5)}")
    save_model(student, run / "model")
    if student.backbone is not None and student.backbone.part_names:
        alone = student.backbone.part_names[0]
        save_model(student.part(alone), run / "parts" / alone)
    if assembly.sets:
        say(f"{run / 'model'} is saved; evaluating it on {some(list(assembly.sets))}")
    teachers = {name: model for name, model in assembly.models.items() if model.backbone is not None}
    result = evaluation.evaluate(
        {"student": student, **teachers},
        assembly.sets,
        protocols=evaluation.protocols_of_task(recipe.task, assembly.sets),
        flip=recipe.flip,
        threshold=recipe.evaluation.threshold,
        cache=cache_dir() / "embeddings",
        keep_resamples=True,
    )
    result["method"] = name
    result["training"] = _cost(recipe, assembly, seconds) | {"peak_memory_mb": round(memory / 2**20)}
    with atomic_write(run / "evaluation.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _pictures(run: Path, result: dict[str, Any]) -> dict[str, bytes]:
    """Return the plots of the run's report as PNG, by their names; none if matplotlib is not installed."""
    try:
        return pictures(result, read_log(run / LOG))
    except Exception as e:  # the run is finished, and a plot is not worth its end
        say(f"track: no plots are attached: {e}")
        return {}


def _cost(recipe: Recipe, assembly: Assembly, seconds: float) -> dict[str, Any]:
    """Return the data and cost of training. `seconds` counts the steps alone, not embedding, evaluation or pauses."""
    seen = recipe.schedule.epochs * assembly.sampler.steps * recipe.schedule.batch
    at_every_step = sum(
        seen for name, teacher in assembly.method.teachers.items() if assembly.method.needs[name] and not teacher.cached
    )
    anchored = {"anchored": assembly.method.anchors is not None} if assembly.models else {}
    return anchored | {
        "recipe": fingerprint(dump_recipe(replace(recipe, seed=0, track="none", purpose=None))),
        "epochs": recipe.schedule.epochs,
        "seed": recipe.seed,
        "images": len(assembly.train),
        "data": assembly.train.fingerprint,
        "seconds": round(seconds, 1),
        "images_per_second": round(seen / seconds, 1),
        "teacher_forwards": assembly.embedded + at_every_step,
    }
