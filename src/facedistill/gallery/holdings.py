"""What a gallery holds, in words and numbers: people, vectors, models, thresholds, scores, and who looks alike."""

import stat
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facedistill.errors import printable, some
from facedistill.gallery.store import Gallery, Threshold

LOOKED_AT = 20_000  # vectors that are compared with all others; a sample of a larger gallery
PAIRS = 1_000_000  # of vectors whose scores are counted, of each kind
BINS = np.linspace(-0.6, 1.0, 81)
DOUBLES = 30  # pairs of people that are listed


@dataclass
class Summary:
    """
    Attributes:
        people, vectors: how many. most: vectors of one person. models: fingerprint -> vectors.
        thresholds: of all pairs of models. open_to_others: whether other users may read the file.
    """

    path: str
    space: str
    dim: int
    precision: str
    flip: str
    size: int
    people: int
    vectors: int
    most: int
    models: dict[str, int]
    thresholds: list[Threshold]
    names: list[str]
    open_to_others: bool

    def text(self) -> str:
        """Return what a person reads."""
        lines = [
            f"{self.path}: {self.people:,} people ({some(self.names)}), {self.vectors:,} vectors",
            f"space {self.space}, {self.dim} dimensions; {self.precision}; mirror images: {self.flip}; "
            f"{self.size / 1e6:,.1f} MB; whole",
            *(f"{count:,} vectors by model {model}" for model, count in self.models.items()),
            *(threshold_text(one) for one in self.thresholds),
        ]
        if not self.thresholds:
            lines.append("no threshold yet: `identify --calibrate` measures one, or the probe's model folder has it")
        if self.open_to_others:
            lines.append(f"other users may read it: run chmod 600 {self.path}")
        return "\n".join(lines)


def threshold_text(one: Threshold) -> str:
    """Return a threshold in words."""
    interval = "" if one.interval is None else f" [{one.interval[0]:.3f}, {one.interval[1]:.3f}]"
    decided = "" if one.impostors is None else f", decided by {one.impostors:,} comparisons"
    measured = f"; {printable(one.measured)}" if one.measured else ""
    return f"threshold {one.value:.3f}{interval} at FAR {one.far:g} for probes of model {one.probe}{decided}{measured}"


def summary(gallery: Gallery) -> Summary:
    """Check the whole file, and say what it holds. Raises UserError if it is damaged."""
    gallery.check()
    _, person, names = gallery.matrix()
    status = gallery.path.stat()
    return Summary(
        str(gallery.path),
        *(gallery.space, gallery.dim, gallery.precision, gallery.flip),
        size=status.st_size,
        people=len(names),
        vectors=len(person),
        most=int(np.bincount(person).max()) if len(person) else 0,
        models=gallery.models(),
        thresholds=[one for kept in gallery.thresholds.values() for one in kept],
        names=names,
        open_to_others=bool(stat.S_IMODE(status.st_mode) & 0o077),
    )


@dataclass
class Likeness:
    """How scores lie, and who looks alike.

    Attributes:
        genuine, impostor: pairs of vectors of one person and of different people, in each of BINS.
        doubles: (score, person, other person) of the nearest pairs of people, the nearest first.
        looked_at: how many vectors were compared.
    """

    genuine: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) - 1, np.int64))
    impostor: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) - 1, np.int64))
    doubles: list[tuple[float, str, str]] = field(default_factory=list)
    looked_at: int = 0


def likeness(gallery: Gallery, seed: int = 0) -> Likeness:
    """Compare vectors with each other; of a large gallery, a sample with all."""
    vectors, person, names = gallery.matrix()
    found = Likeness()
    if len(vectors) < 2:
        return found
    rng = np.random.default_rng(seed)
    genuine, impostor = _pairs(person, rng)
    for counts, (one, other) in ((found.genuine, genuine), (found.impostor, impostor)):
        for part in np.array_split(np.arange(len(one)), 1 + len(one) // 10_000):
            scores = np.einsum("nd,nd->n", vectors[one[part]], vectors[other[part]])
            counts += np.histogram(scores.clip(BINS[0], BINS[-1]), BINS)[0]
    chosen = np.sort(rng.permutation(len(vectors))[:LOOKED_AT])
    found.looked_at = len(chosen)
    nearest: dict[tuple[str, str], float] = {}
    for part in np.array_split(chosen, 1 + len(chosen) // 1000):
        for row, hits in zip(part.tolist(), gallery.search(vectors[part], top=2), strict=True):
            mine = names[person[row]]
            for hit in hits:
                if hit.name != mine:
                    pair = (min(mine, hit.name), max(mine, hit.name))
                    nearest[pair] = max(hit.score, nearest.get(pair, -1.0))
    order = sorted(nearest.items(), key=lambda one: (-one[1], one[0]))
    found.doubles = [(score, *pair) for pair, score in order[:DOUBLES]]
    return found


def _pairs(person: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return places of vectors of one person, and of different people: two pairs of int64 (n,), at most PAIRS each."""
    starts = np.searchsorted(person, person)  # `person` ascends
    earlier = np.arange(len(person)) - starts
    one = np.repeat(np.arange(len(person)), earlier)
    other = np.arange(len(one)) - np.repeat(np.cumsum(earlier) - earlier, earlier) + np.repeat(starts, earlier)
    if len(one) > PAIRS:
        some_pairs = rng.permutation(len(one))[:PAIRS]
        one, other = one[some_pairs], other[some_pairs]
    a, b = rng.integers(len(person), size=(2, min(PAIRS, len(person) ** 2)))
    different = person[a] != person[b]
    return (one, other), (a[different], b[different])
