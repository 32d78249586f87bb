"""Checkpoints of training: what they hold, and what must be unchanged when a run resumes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.errors import UserError
from facedistill.progress import say
from facedistill.recipe import Recipe, dump_recipe, parse_recipe
from facedistill.run import latest_checkpoint, restore_checkpoint, save_checkpoint
from facedistill.training.assemble import Assembly
from facedistill.training.average import WeightAverage
from facedistill.training.method import Method
from facedistill.training.resolved import resolved_recipe

Bound = dict[str, Any]


def bound_to(recipe: Recipe, assembly: Assembly, steps: int) -> Bound:
    """Return everything that must be unchanged when a run resumes: its recipe with the seed, its length in steps, its
    images, teachers and frozen class matrices."""
    teachers = {f"teacher {name}": model.space for name, model in assembly.models.items()}
    trained_on = {"data": assembly.train.fingerprint} | teachers | {"number of steps": steps}
    return {"recipe": dump_recipe(recipe), "trained_on": trained_on, "frozen_weight": _some_rows(assembly.method)}


def checkpoint(
    run: Path,
    step: int,
    seconds: float,
    method: Method,
    optimizer: torch.optim.Optimizer,
    bound: Bound,
    average: WeightAverage | None = None,
) -> None:
    """Write a checkpoint in the first process; the others wait. `seconds`: the time that training took so far."""
    if parallel.rank() == 0:
        state = {"seconds": seconds, "method": method.state_dict(), "optimizer": optimizer.state_dict()}
        averaged = {"average": average.weights} if average else {}
        save_checkpoint(run, step, state | averaged | bound)
    parallel.barrier()


def restore(
    run: Path, method: Method, optimizer: torch.optim.Optimizer, bound: Bound, average: WeightAverage | None = None
) -> tuple[int, float]:
    """Load the newest sound checkpoint of this run; return its step and seconds, or (0, 0) if there is none.

    Raises:
        UserError: something that must be unchanged has changed, or all checkpoints are damaged.
    """
    state = latest_checkpoint(run, lambda state: _require_same(run, state, bound))
    if state is None:
        return 0, 0.0
    restore_checkpoint(method, optimizer, state, run)
    if average:
        average.restore(state["average"])
    say(f"resuming from step {state['step']}")
    return state["step"], state["seconds"]


def written_out(text: str) -> str:
    """Return a stored recipe as this version writes it; earlier versions lack newer keys."""
    return dump_recipe(resolved_recipe(parse_recipe(text)))


def _require_same(run: Path, state: dict[str, Any], bound: Bound) -> None:
    known, before = bound["trained_on"], state["trained_on"]
    changed = [what for what in known if before.get(what) != known[what]]
    if written_out(state["recipe"]) != bound["recipe"]:
        changed.insert(0, "recipe")
    if changed:
        raise UserError(
            f"{run}: {', '.join(changed)}: changed since this run began; restore it, or start a new run with another "
            "--out"
        )
    saved, found = state["frozen_weight"], bound["frozen_weight"]
    # A fitted W may differ in its last bits on another machine; a W of another teacher or data is far off.
    same = [
        a.shape == b.shape and bool(F.cosine_similarity(a, b).min() > 0.999) for a, b in zip(saved, found, strict=False)
    ]
    if len(saved) != len(found) or not all(same):
        raise UserError(
            f"{run}: W has changed since this run began, because its teacher or data did; restore them, or start a new "
            "run with another --out"
        )


def _some_rows(method: Method) -> list[Tensor]:
    """Return up to 64 rows of each W that nothing moves, from which a resumed run sees whether W is the same."""
    frozen = [weight.rows for weight in method.weights if weight.moved_by == "nothing"]
    return [
        rows.of(torch.arange(0, rows.total, -(-rows.total // 64), device=rows.values.device)).cpu() for rows in frozen
    ]
