"""The search: train a supernet, and in turn the weights of its operations; the strongest make the genotype.

Boutros et al., PocketNet (arXiv 2108.10710), after DARTS (1806.09055). The recipe's method is the objective: `scratch`
searches by a softmax of the supernet's own, as published; `proxylesskd` by the teacher's inherited classifier, so that
the cells are chosen for what the student will do (ours). The authors' code adds the training loss's gradient to the
architecture's; here the two never mix.

facedistill search RECIPE --out RUN
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facedistill import parallel, training
from facedistill.architecture_search import latency
from facedistill.architecture_search.bilevel import first_order, kept_statistics, second_order
from facedistill.architecture_search.halves import Part, halves
from facedistill.architecture_search.report import write_report
from facedistill.architecture_search.space import weights_of
from facedistill.backbones import Supernet
from facedistill.data import Batch, Loader, make_sampler
from facedistill.errors import UsageError, UserError
from facedistill.files import atomic_write
from facedistill.progress import bar, say
from facedistill.recipe import Recipe, Search, dump_recipe
from facedistill.run import Log, Trackers, claim_run
from facedistill.training import (
    Assembly,
    bound_to,
    checkpoint,
    fast_cpu,
    learning_rate,
    make_optimizer,
    resolve,
    restore,
    step_seed,
    stop_if_not_finite,
    to_batch,
    written_out,
)

GENOTYPE, WEIGHTS, TIMES = "genotype.json", "weights.json", "latency.json"


def search(recipe: Recipe, out: str | Path) -> Path:
    """Search as the recipe says (its group `search`); write genotype.json and report.html into `out`.

    Beside them lie log.jsonl, the checkpoints, and weights.json: the weights of every edge's operations. The student's
    network in the recipe is not used: the supernet takes its place. Idempotent, as `train` is: the same recipe resumes
    from the last checkpoint to the same bits, and a finished search does nothing.

    Raises:
        UsageError: `out` holds another run; the recipe asks for what a search cannot do; several processes.
        UserError: data, teacher or classifier do not fit; the loss is not finite (the last checkpoint stays).
    """
    run, method, settings = Path(out), resolve(recipe.method), recipe.search or Search()
    recipe = replace(recipe, method=method.spec, search=settings)
    _refuse(recipe, settings)
    with claim_run(run, dump_recipe(recipe), written_out):
        if (run / GENOTYPE).exists():
            say(f"{run} is finished; nothing to do")
            return run
        with fast_cpu():
            torch.manual_seed(recipe.seed)
            shape = {"channels": settings.channels, "cells": settings.cells, "auxiliary": settings.auxiliary}
            student = replace(recipe.student, backbone="facedistill.backbones:Supernet", options=shape, start=None)
            assembly = training.assemble(replace(recipe, student=student), method)
            network = assembly.method.student.backbone
            assert isinstance(network, Supernet)
            trackers = Trackers(recipe.track, run)
            try:
                _fit(recipe, settings, run, assembly, network, trackers)
            finally:
                trackers.end()
            _finish(run, network)
    return run


def _refuse(recipe: Recipe, settings: Search) -> None:
    """Raise UsageError for what a search cannot do, before anything long begins."""
    if parallel.world() > 1:
        raise UsageError("search: it runs in one process; start it without torchrun")
    if settings.order == 2 and recipe.schedule.optimizer != "sgd":
        raise UsageError(
            f"search.order=2 looks one step of SGD ahead, but schedule.optimizer={recipe.schedule.optimizer}; set sgd, "
            "or search.order=1"
        )
    if resolve(recipe.method).moved_by == "teacher":
        raise UsageError(
            f"search: method {recipe.method.name} moves W at every pass, also where only the architecture is judged; "
            "choose a method whose W nothing moves, or a gradient, e.g. proxylesskd or scratch"
        )


@dataclass
class Pair:
    """Two optimisers as one in a checkpoint."""

    weights: torch.optim.Optimizer
    alphas: torch.optim.Optimizer

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "alphas": self.alphas.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])


@dataclass
class Step:
    """The images of one step: those that train the weights, and those that judge the architecture."""

    training: Batch
    validation: Batch


def _fit(
    recipe: Recipe, settings: Search, run: Path, assembly: Assembly, network: Supernet, trackers: Trackers
) -> None:
    """Run epochs and batches: a step of the alphas, then one of the weights; log and checkpoint."""
    schedule, method = recipe.schedule, assembly.method.to(parallel.device()).train()
    alphas = [rows for kind in network.alphas for rows in network.rows(kind)]
    optimizers = _optimizers(recipe, settings, method, alphas)
    loaders = _loaders(recipe, assembly)
    steps = min(loader.steps for loader in loaders)
    total = schedule.epochs * steps
    table = _times(run, network) if settings.latency else {}
    bound = bound_to(recipe, assembly, total)
    step, seconds = restore(run, method, optimizers, bound)  # type: ignore[arg-type]
    log = Log(run, step, seconds, trackers)
    with bar() as display:
        task = display.add_task(
            "searching", total=total * schedule.batch, completed=step * schedule.batch, unit="images"
        )
        for epoch in range(step // steps, schedule.epochs):
            method.start_epoch(epoch)
            for two in _pairs(loaders, epoch, step - epoch * steps, steps):
                torch.manual_seed(step_seed(recipe.seed, step))
                network.beta = 1 - step / total
                rate = learning_rate(schedule, step, steps)
                for group in optimizers.weights.param_groups:
                    group["lr"] = rate
                pair = Step(*(to_batch(i, parallel.device(), step / total, assembly) for i in two))
                judged = _move_alphas(settings, method, network, alphas, optimizers, pair, table)
                loss, norm, losses = _move_weights(recipe, run, method, optimizers.weights, pair.training, step)
                step += 1
                display.update(task, advance=schedule.batch)
                if step % schedule.log_steps == 0 or step == total:
                    log.write(step, epoch, rate, norm, loss, losses | judged, schedule.batch)
                if step % (schedule.checkpoint_steps or steps) == 0 or step == total:
                    checkpoint(run, step, log.elapsed(), method, optimizers, bound)  # type: ignore[arg-type]
            say(f"epoch {epoch + 1} of {schedule.epochs}: {json.dumps(network.genotype().to_json()['normal'])}")


def _optimizers(recipe: Recipe, settings: Search, method: nn.Module, alphas: list[nn.Parameter]) -> Pair:
    """Return the recipe's optimiser of all parameters but the alphas, and Adam of these, as published."""
    for rows in alphas:
        rows.requires_grad_(False)
    weights = make_optimizer(method, recipe.schedule)
    for rows in alphas:
        rows.requires_grad_(True)
    decay = settings.alpha_weight_decay
    return Pair(weights, torch.optim.Adam(alphas, settings.alpha_lr, (0.5, 0.999), weight_decay=decay))


def _loaders(recipe: Recipe, assembly: Assembly) -> tuple[Loader, Loader]:
    """Return the loaders of the two halves, each with a sampler of the method's kind."""
    method, train = resolve(recipe.method), assembly.train
    make = partial(make_sampler, method.sampler, **method.sampler_options)

    def loader(i: int, half: np.ndarray) -> Loader:
        weights = None if train.weights is None else train.weights[half]
        inner = make(train.labels[half], recipe.schedule.batch, recipe.seed + i, weights, recipe.data.mirror)
        workers = recipe.data.workers
        return Loader(train, Part(inner, half), workers=workers, view=assembly.view, seed=recipe.seed)

    first, second = (loader(i, half) for i, half in enumerate(halves(train.labels, recipe.seed)))
    return first, second


def _pairs(loaders: tuple[Loader, Loader], epoch: int, skip: int, steps: int) -> Iterator[tuple[Any, ...]]:
    batches = [loader.epoch(epoch, skip=skip) for loader in loaders]
    return itertools.islice(zip(*batches), steps - skip)


def _loss(method: nn.Module, batch: Batch) -> Tensor:
    return _sum(method(batch))


def _sum(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _move_alphas(
    settings: Search,
    method: nn.Module,
    network: Supernet,
    alphas: list[nn.Parameter],
    optimizers: Pair,
    pair: Step,
    table: latency.Table,
) -> dict[str, Tensor]:
    """Take a step of the alphas by their own gradient alone. Return the losses that the log shows."""
    found: dict[str, Tensor] = {}

    def validation() -> Tensor:
        found["validation"] = loss = _loss(method, pair.validation)
        if not table:
            return loss
        found["latency"] = latency.expected(network, table)
        return loss + settings.latency * found["latency"]

    with kept_statistics(method):
        if settings.order == 1:
            gradients = first_order(validation, alphas)
        else:
            assert isinstance(optimizers.weights, torch.optim.SGD)
            ahead = partial(_loss, method, pair.training)
            gradients = second_order(ahead, validation, alphas, optimizers.weights)
    for rows, gradient in zip(alphas, gradients):
        rows.grad = gradient
    optimizers.alphas.step()
    return {name: value.detach() for name, value in found.items()}


def _move_weights(
    recipe: Recipe, run: Path, method: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, step: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Take a step of the weights on the training half; the alphas get no gradient of it.

    Return the loss, the norm of its gradient, and the loss of each term.
    """
    losses = method(batch)
    loss = _sum(losses)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients):
        weight.grad = gradient
    norm = nn.utils.clip_grad_norm_(weights, recipe.schedule.clip or float("inf"))
    stop_if_not_finite(loss, norm, step, run)
    optimizer.step()
    return loss.detach(), norm, {name: value.detach() for name, value in losses.items()}


def _times(run: Path, network: Supernet) -> latency.Table:
    """Return the times of the operations: measured once a run, because a resumed one needs the same."""
    file = run / TIMES
    if not file.exists():
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(latency.measure(network)), encoding="utf-8")
    try:
        return latency.read(file.read_bytes())
    except ValueError as e:
        raise UserError(f"{file}: damaged ({e}); start a new search with another --out") from None


def _finish(run: Path, network: Supernet) -> None:
    """Write the report and the weights, then the genotype, which marks the search as finished."""
    genotype = network.genotype()
    write_report(run, network)
    with atomic_write(run / WEIGHTS) as temporary:
        temporary.write_text(json.dumps(weights_of(network)), encoding="utf-8")
    with atomic_write(run / GENOTYPE) as temporary:
        temporary.write_text(json.dumps(genotype.to_json(), indent=1), encoding="utf-8")
    say(
        f"{run / GENOTYPE} is written. Train it: facedistill train RECIPE --out ... student.backbone=genotype "
        f"student.options.file={run / GENOTYPE}"
    )
