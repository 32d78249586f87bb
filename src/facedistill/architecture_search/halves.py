"""The images in two halves: one trains the supernet's weights, the other judges its architecture."""

import numpy as np

from facedistill.data import Sampler
from facedistill.errors import UserError


def halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of two halves, int64, of which each has half of every class's images.

    Of an odd number the first half has one more. Raises UserError if the second half would be empty or has one class.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[order], labels[order])
    second = (np.arange(len(order)) - starts) % 2 == 1
    if len(np.unique(labels[order][second])) < 2:
        raise UserError(
            f"{len(labels)} images of {len(np.unique(labels))} people: a search needs at least two people with two or "
            "more images each, because half of each person's images judge the architecture"
        )
    return np.sort(order[~second]), np.sort(order[second])


class Part(Sampler):
    """A sampler over some of the images: `inner` draws from them by place, `indices` says which they are."""

    def __init__(self, inner: Sampler, indices: np.ndarray) -> None:
        super().__init__(inner.labels, inner.batch, inner.seed)
        self.inner, self.indices, self.steps = inner, indices, inner.steps

    def epoch(self, e: int) -> tuple[np.ndarray, np.ndarray]:
        places, flips = self.inner.epoch(e)
        return self.indices[places], flips

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return self.indices[self.inner.draw(rng)]
