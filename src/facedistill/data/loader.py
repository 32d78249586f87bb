"""The batches of one epoch for one rank, decoded in this process or ahead of time in worker processes."""

import atexit
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from itertools import islice
from typing import Any, NamedTuple, ParamSpec
from weakref import WeakSet

import numpy as np
import torch
import torch.utils.data

from facedistill.data.dataset import Dataset, ImageBatch
from facedistill.data.samplers import Sampler
from facedistill.data.view import Same, View, seen
from facedistill.errors import UsageError, UserError

P = ParamSpec("P")
Batches = Generator[ImageBatch, None, None]
_begun: WeakSet[Generator] = WeakSet()


def _closed_at_exit(begin: Callable[P, Batches]) -> Callable[P, Batches]:
    """Close the generators that are left in the middle before Python takes their modules and threads away."""

    @wraps(begin)
    def beginning(*args: P.args, **kwargs: P.kwargs) -> Batches:
        generator = begin(*args, **kwargs)
        _begun.add(generator)
        return generator

    return beginning


@atexit.register
def _close_all() -> None:
    for generator in list(_begun):
        with suppress(Exception):  # e.g. it runs in another thread
            generator.close()


class Loader:
    """`epoch(e)` yields this rank's ImageBatch of every step: the rank-th of `world` equal slices of the global batch.

    The order is the sampler's for any number of `workers`, and a view changes an image in the same way wherever that is
    done. A data set in memory gets no workers unless the view gives them work.

    Args:
        view: changes each image by itself, as a function of (seed, epoch, image) alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        view: View | None = None,
        seed: int = 0,
    ) -> None:
        if sampler.batch % world:
            raise UsageError(f"a batch of {sampler.batch} images cannot be shared equally by {world} processes")
        if sampler.batch < 2 * world:
            raise UsageError(f"schedule.batch={sampler.batch}: batch normalisation needs two images in each process")
        self.dataset, self.sampler, self.rank, self.world = dataset, sampler, rank, world
        self.steps = sampler.steps
        self.shown = _Shown(dataset, view or Same(), seed)
        self.workers = workers if self.shown.view.by_image or not dataset.is_in_memory else 0
        self._plan: list[Draws] = []  # batches to come; each epoch refills it for the same workers
        self._pool: torch.utils.data.DataLoader | None = None

    @_closed_at_exit
    def epoch(self, e: int, skip: int = 0) -> Batches:
        """Yield the batches of epoch `e` from step `skip` on. Raises UserError if too many images are unreadable."""
        indices, flips = self.sampler.epoch(e)
        turns = _turns(indices) if self.shown.view.by_image else np.zeros_like(indices)
        share = self.sampler.batch // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        parts = (part[skip:, mine] for part in (indices, flips, turns))
        plan = [Draws(i, f, t, e) for i, f, t in zip(*parts, strict=True)]
        if self.workers and plan:
            yield from self._from_workers(plan)
        else:
            yield from (self._counted(self.shown.batch(draws)) for draws in plan)
        self.dataset.check_unreadable()

    def _from_workers(self, plan: "list[Draws]") -> Iterator[ImageBatch]:
        self._plan[:] = plan
        if self._pool is None:
            self._pool = torch.utils.data.DataLoader(
                self.shown,
                batch_sampler=self._plan,  # type: ignore[arg-type]
                num_workers=self.workers,
                collate_fn=_same,
                persistent_workers=True,
                generator=torch.Generator(),  # the default one is the run's, and workers must not change its draws
            )
        try:
            for batch in self._pool:
                if isinstance(batch, UserError):
                    raise type(batch)(*batch.args)
                yield self._counted(batch)
        except UserError:
            self._pool = None  # else the traceback keeps the workers alive, and torch takes 5 s to end each
            raise

    def _counted(self, batch: ImageBatch) -> ImageBatch:
        """Return the batch, or raise UserError if it has no image, or if too many images are unreadable by now."""
        self.dataset.count(batch)
        if not len(batch):
            where, example = self.dataset.source.path, batch.unreadable[0]
            raise UserError(f"{where}: a whole batch of images is unreadable, e.g. {example}")
        return batch


def _same(batch: Any) -> Any:
    return batch


class Draws(NamedTuple):
    """The images of a step that a sampler drew: their numbers, mirrored or not, and their earlier draws in the epoch.

    Arrays (B,): int64, bool, int64.
    """

    indices: np.ndarray
    flips: np.ndarray
    turns: np.ndarray
    epoch: int


class _Shown(torch.utils.data.Dataset):
    """A data set's batches as a view shows them: the work of one process that decodes."""

    def __init__(self, dataset: Dataset, view: View, seed: int) -> None:
        self.dataset, self.view, self.seed = dataset, view, seed

    def batch(self, draws: Draws) -> ImageBatch:
        images = self.dataset.read(draws.indices, draws.flips)
        if not self.view.by_image or not len(images):
            return images
        readable = np.isin(draws.indices, images.index[:, 0].numpy())
        return seen(self.view, images, self.seed, draws.epoch, draws.turns[readable])

    def __getitems__(self, draws: Draws) -> ImageBatch | UserError:
        """Return a batch, or its error as a value: torch would wrap it in a traceback. Runs in worker processes."""
        try:
            return self.batch(draws)
        except UserError as e:
            return e


def _turns(indices: np.ndarray) -> np.ndarray:
    """Return how many times each image has come before, in the order of an epoch's `indices` (steps, batch)."""
    flat = indices.ravel()
    order = np.argsort(flat, kind="stable")
    first = np.searchsorted(flat[order], flat[order])
    turns = np.empty_like(flat)
    turns[order] = np.arange(len(flat)) - first
    return turns.reshape(indices.shape)


DECODERS = 2
AHEAD = 4  # batches decoded before the network asks for them
BATCH_BYTES = 64 << 20  # of the pixels of one batch: fewer images if they are large


@_closed_at_exit
def decoded(dataset: Dataset, batch: int) -> Generator[ImageBatch, None, None]:
    """Yield the readable images in order, in batches that threads decode ahead of the caller. No batch is empty.

    Batches have `batch` images at most, and BATCH_BYTES.
    """
    batch = max(1, min(batch, BATCH_BYTES // dataset.sample_bytes))  # its shape is computed here, not in every thread
    chunks = (
        [(i, False) for i in range(start, min(start + batch, len(dataset)))] for start in range(0, len(dataset), batch)
    )
    with ThreadPoolExecutor(DECODERS) as pool:
        waiting: deque[Future] = deque(pool.submit(dataset.__getitems__, c) for c in islice(chunks, AHEAD))
        try:
            while waiting:
                images = waiting.popleft().result()
                if isinstance(images, UserError):
                    raise images
                waiting.extend(pool.submit(dataset.__getitems__, c) for c in islice(chunks, 1))
                if len(dataset.count(images)):
                    yield images
        finally:
            for future in waiting:
                future.cancel()
