"""Exact search: products in the processor's fastest type find who may be among the nearest, float64 decides.

For unit vectors of 512 dimensions, a product in bfloat16 is off by less than 1/80, and one in float32 by less than
1/30,000. Everybody does not depend on the type, on the size of a block or on a vector's place in it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from facedistill.errors import UsageError
from facedistill.gallery import numbers
from facedistill.gallery.index import Index
from facedistill.gallery.mapped import Damaged
from facedistill.gallery.reading import RowsCache
from facedistill.gallery.rows import Rows

By = Literal["best", "mean", "top-mean"]
BYS = ("best", "mean", "top-mean")
BLOCK = 4096  # rows of a product
GROUP = 64  # rows that are looked at together


class Hit(NamedTuple):
    """A person that was found, and the person's score: a cosine, or a mean of cosines."""

    name: str
    score: float


def search(
    cache: RowsCache,
    names_of: Callable[[Sequence[int]], dict[int, str]],
    probes: np.ndarray,
    top: int,
    by: By,
    k: int,
    index: bool,
) -> list[list[Hit]]:
    """See `Gallery.search`; `probes` are float32 (P, d), of length 1 or less."""
    if by not in BYS:
        raise UsageError(f"search: score of a person '{by}'; expected one of {', '.join(BYS)}")
    if top < 1 or k < 1:
        raise UsageError(f"search: top {top}, k {k}; expected 1 or more")
    while True:
        rows = cache.current()
        try:
            known = cache.index(rows) if index and len(rows) else None
            found = _nearest(rows, probes, top, by, k, known) if len(rows) else []
        except Damaged:
            cache.renew()
            continue
        with cache.moment():
            if cache.state()[0] == rows.generation:  # else somebody was forgotten while we searched
                names = names_of(sorted({person for _, person, _ in found}))
                break
    hits: list[list[Hit]] = [[] for _ in probes]
    for probe, person, score in sorted(found, key=lambda one: (one[0], -one[2], names[one[1]])):
        if len(hits[probe]) < top:
            hits[probe].append(Hit(names[person], score))
    return hits


def _nearest(
    rows: Rows, probes: np.ndarray, top: int, by: By, k: int, index: Index | None
) -> list[tuple[int, int, float]]:
    """Return (probe, person, score) of all who may be among the `top` of a probe; the scores are float64's."""
    dim, top = rows.parts[0].shape[1], min(top, len(rows.by_person[1]))
    k = {"best": 1, "mean": len(rows), "top-mean": k}[by]
    kept = _Kept(len(probes), top, _error(dim, _fast_type()))
    if index is not None:
        probe, person = _indexed(rows, probes, top, index, kept)
    else:
        for people, scores in _by_row(rows, probes) if by == "best" else _by_person(rows, probes, k):
            kept.take(people, scores)
        kept.drop()
        probe, person = kept.probe, kept.person
    finer = _Kept(len(probes), top, _error(dim, torch.float32))
    finer.add(probe, person, _scores(rows, probes, probe, person, k, np.float32))
    finer.drop()
    exact = _scores(rows, probes, finer.probe, finer.person, k, np.float64)
    return list(zip(finer.probe.tolist(), finer.person.tolist(), exact.tolist(), strict=True))


def _scores(
    rows: Rows, probes: np.ndarray, probe: np.ndarray, person: np.ndarray, k: int, kind: type[np.floating]
) -> np.ndarray:
    """Return the score (n,) of each probe and person: the mean of the `k` best cosines, computed in `kind`."""
    order, ids, starts = rows.by_person
    found, at = np.zeros(len(probe), kind), np.searchsorted(ids, person)
    counts = np.diff(starts)[at]
    for pairs in np.array_split(np.arange(len(probe)), 1 + int(counts.sum()) // BLOCK):
        if not len(pairs):
            continue
        many = counts[pairs]
        first = np.cumsum(many) - many
        within = np.arange(many.sum()) - np.repeat(first, many)
        vectors = numbers.unpacked(rows.take(order[np.repeat(starts[at[pairs]], many) + within]))
        whose = np.repeat(np.arange(len(pairs)), many)
        products = vectors.astype(kind) * probes[probe[pairs]].astype(kind)[whose]
        cosines = products.sum(axis=1)  # row by row: equal rows have equal sums
        best = np.lexsort((-cosines, whose))
        chosen = np.where(within < k, cosines[best], 0)
        found[pairs] = np.add.reduceat(chosen, first) / np.minimum(many, k)
    return found


def _fast_type() -> torch.dtype:
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _error(dim: int, kind: torch.dtype) -> float:
    """Return how far a score may be off: rounded factors, a sum of `dim` products in float32, a rounded result."""
    unit = 2.0**-8 if kind == torch.bfloat16 else 2.0**-24
    return 3.1 * unit + dim * 2.0**-24 + 1e-6


def _product(block: np.ndarray, probes: Tensor) -> Tensor:
    """Return cosines, float32 (n, P), of rows as they are stored with `probes` (d, P)."""
    scores = (torch.from_numpy(block).to(probes.dtype) @ probes).float()
    return scores if block.dtype == np.float32 else scores.div_(torch.from_numpy(numbers.lengths(block))[:, None])


def _indexed(rows: Rows, probes: np.ndarray, top: int, index: Index, kept: "_Kept") -> tuple[np.ndarray, np.ndarray]:
    """Return probes and people: the index's candidates, and the nearest of the rows that it lacks."""
    for people, scores in _by_row(rows, probes, index.rows):
        kept.take(people, scores)
    probe, at = np.nonzero((places := index.candidates(probes, top)) >= 0)
    found = np.stack([probe, rows.people[places[probe, at]]])
    both = np.unique(np.concatenate([found, np.stack([kept.probe, kept.person])], axis=1), axis=1)
    return both[0], both[1]


def _by_row(rows: Rows, probes: np.ndarray, first: int = 0) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield people (n,), one several times if it has several vectors, and their scores (n, P)."""
    turned = torch.from_numpy(probes).to(_fast_type()).T
    for place, block in rows.blocks(BLOCK, first):
        yield rows.people[place : place + len(block)], _product(block, turned)


def _by_person(rows: Rows, probes: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield people (n,), each once, and their scores (n, P): the mean of the `k` best cosines of their vectors."""
    rows.check()
    turned = torch.from_numpy(probes).to(_fast_type()).T
    order, ids, starts = rows.by_person
    counts = np.diff(starts)
    for count in np.unique(counts).tolist():
        alike = np.flatnonzero(counts == count)
        step = max(1, BLOCK // count)
        for people in (alike[i : i + step] for i in range(0, len(alike), step)):
            places = order[(starts[people][:, None] + np.arange(count)).ravel()]
            scores = _product(rows.take(places), turned).reshape(len(people), count, len(probes))
            best = scores if count <= k else scores.topk(k, dim=1).values
            yield ids[people], best.mean(dim=1)


class _Kept:
    """Who may still be among the `top` people of each of P probes, from scores that are off by up to `error`.

    Attributes:
        probe, person, score: equally long: the candidates.
    """

    def __init__(self, probes: int, top: int, error: float) -> None:
        self.top, self.slack = top, 2 * error
        self.probe, self.person, self.score = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._new = 0  # candidates since the last `drop`
        self.least = torch.full((probes,), -torch.inf)  # the score that a candidate must reach

    def take(self, people: np.ndarray, scores: Tensor) -> None:
        """Add the candidates among `people` (n,) with `scores` (n, P)."""
        whole = len(scores) - len(scores) % GROUP
        for first, part in ((0, scores[:whole].view(-1, GROUP, len(self.least))), (whole, scores[whole:][None])):
            if part.numel():  # the largest score of a group of rows says whether to look at the rows
                group, column = torch.nonzero(part.amax(dim=1) >= self.least, as_tuple=True)
                some = part[group, :, column]
                at, row = torch.nonzero(some >= self.least[column][:, None], as_tuple=True)
                rows = first + group[at] * part.shape[1] + row
                self.add(column[at].numpy(), people[rows.numpy()], some[at, row].numpy())

    def add(self, probe: np.ndarray, person: np.ndarray, score: np.ndarray) -> None:
        """Add candidates one by one: equally long arrays."""
        self.probe = np.concatenate([self.probe, probe])
        self.person = np.concatenate([self.person, person])
        self.score = np.concatenate([self.score, score])
        self._new += len(probe)
        if self._new >= self.top * len(self.least):
            self.drop()

    def drop(self) -> None:
        """Keep each person once for a probe, and drop who cannot be among the best any more."""
        self._new = 0
        if not len(self.probe):
            return
        order = np.lexsort((-self.score, self.person, self.probe))
        probe, person = self.probe[order], self.person[order]
        first = np.r_[True, (probe[1:] != probe[:-1]) | (person[1:] != person[:-1])]
        order = order[first]
        order = order[np.lexsort((-self.score[order], self.probe[order]))]
        probe, score = self.probe[order], self.score[order]
        start = np.searchsorted(probe, np.arange(len(self.least)))
        last = start + self.top - 1
        full = (last < len(probe)) & (probe[np.minimum(last, len(probe) - 1)] == np.arange(len(self.least)))
        least = np.where(full, score[np.minimum(last, len(score) - 1)] - self.slack, -np.inf).astype(np.float32)
        order = order[score >= least[probe]]
        self.probe, self.person, self.score = self.probe[order], self.person[order], self.score[order]
        self.least = torch.from_numpy(least)
