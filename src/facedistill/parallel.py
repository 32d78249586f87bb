"""Several processes: start, rank, gather. A thin layer over torch.distributed that also works with one process."""

import os
import re
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facedistill.errors import UsageError, UserError

TIMEOUT = "FACEDISTILL_TIMEOUT"  # minutes; in place of all of these
JOINING = 5.0  # minutes until all processes are there
STEP = 30.0  # minutes that a process waits for the others in a step
PATIENCE = 24 * 60.0  # minutes at a barrier: one process may embed millions of images while the others wait
NEEDED = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
_joins: Counter[str] = Counter()  # how often this process has joined others at an address
_patient: Any = None  # the process group of barriers
AGAIN = "To resume from the last checkpoint, run the same command again"
ENDED = (
    "another process of this run failed, so this one is stopping. See that process's output, or its machine's log, for "
    "the cause. " + AGAIN
)
SILENT = (
    "waited too long for another process of this run: it is stopped, hangs, or its machine is out of reach. See the "
    f"output of every process; {TIMEOUT}=MINUTES waits longer. " + AGAIN
)
TOLD = (
    "this process was told to end: either the run was stopped, or another process of it failed and its output gives "
    "the cause. " + AGAIN
)


@contextmanager
def processes() -> Iterator[None]:
    """Join the process group that torchrun's environment variables describe, if they are set; leave it at the end.

    Raises:
        UsageError: some of the variables are missing or wrong.
        UserError: a process did not come, ended or does not answer, or this one was told to end.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    _join()
    before = signal.signal(signal.SIGTERM, _end)  # torchrun sends it when another process ended, or to stop all
    try:
        yield
    except RuntimeError as e:
        if re.search("timed? ?out", str(e), re.IGNORECASE) and (isinstance(e, dist.DistError) or "gloo" in str(e)):
            raise UserError(SILENT) from e
        if isinstance(e, dist.DistError) or "gloo" in str(e):
            raise UserError(ENDED) from e
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        _leave()


def _join() -> None:
    """Wait for all processes, not longer than JOINING, and make the process groups."""
    global _patient
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise UsageError(
            f"WORLD_SIZE is set, but not {', '.join(missing)}; start the command with torchrun, which sets them "
            "all, or unset WORLD_SIZE to run one process"
        )
    numbers = [os.environ[name] for name in NEEDED if name != "MASTER_ADDR"]
    if not all(number.isdecimal() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        set_to = ", ".join(f"{name}={os.environ[name]}" for name in NEEDED)
        raise UsageError(
            f"{set_to}: expected whole numbers, and RANK below WORLD_SIZE; start the command with torchrun"
        )
    wait = _minutes(JOINING)
    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=wait)))
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        store = dist.PrefixStore(f"facedistill {_joins[place]}", store)  # one process may train several runs
        _joins[place] += 1
        store.set(f"here {rank}", "")
        store.wait([f"here {other}" for other in range(world)], wait)
    except RuntimeError as e:  # torch's DistError is one
        raise UserError(
            f"process {os.environ['RANK']} found not all of the {os.environ['WORLD_SIZE']} processes at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} within {wait}: the address is wrong or blocked, "
            f"or a process was not started; {TIMEOUT}=MINUTES waits longer"
        ) from e
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_minutes(STEP))
    _patient = dist.new_group(backend="gloo", timeout=_minutes(PATIENCE))


def _leave() -> None:
    global _patient
    _patient = None
    dist.destroy_process_group()


def _minutes(default: float) -> timedelta:
    text = os.environ.get(TIMEOUT) or str(default)
    try:
        return timedelta(seconds=max(1, round(60 * float(text))))
    except (ValueError, OverflowError) as e:
        raise UsageError(f"{TIMEOUT}={text}: expected a number of minutes") from e


def _end(*_: Any) -> None:
    raise UserError(TOLD)


@contextmanager
def first_here() -> Iterator[None]:
    """Let the first process of each machine run the block before the others, which then find what it cached."""
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Return the accelerator of this process, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier(_patient)


def wrap(module: nn.Module) -> nn.Module:
    """Return `module` in DDP if there are several processes. Buffers stay local; the caller saves rank 0's."""
    if world() == 1:
        return module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # renamed in torch 2.13; older versions lack the new name
        return DistributedDataParallel(module, broadcast_buffers=False)


def counts(x: Tensor) -> list[int]:
    """Return len(x) of each process. Slices differ only where images could not be read."""
    found = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world())]
    dist.all_gather(found, torch.tensor([len(x)], device=x.device))
    return [int(n) for n in found]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.counts = counts(x)
        padded = x.new_zeros(max(ctx.counts), *x.shape[1:])  # all_gather needs equal sizes
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in range(world())]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every process computes the same loss of the whole batch and DDP averages the gradients, hence x world.
        return grad.split(ctx.counts)[rank()] * world()


def gather(x: Tensor) -> Tensor:
    """Concatenate `x` (b, ...) of all processes in rank order to the global batch (B, ...), with its gradient."""
    return x if world() == 1 else _Gather.apply(x)


def scatter_sum(x: Tensor, counts: list[int]) -> Tensor:
    """Sum `x` (B, ...) over the processes and return this process's slice of the sum: the reverse of `gather`.

    No gradient passes.

    Args:
        counts: the length of each process's slice.
    """
    parts = [part.contiguous() for part in x.split(counts)]
    mine = torch.empty_like(parts[rank()])
    if world() == 1:
        return mine.copy_(x)
    dist.reduce_scatter(mine, parts)
    return mine


def maximum(x: Tensor) -> Tensor:
    """Return the elementwise maximum of `x` over the processes."""
    if world() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x, dist.ReduceOp.MAX)
    return x
