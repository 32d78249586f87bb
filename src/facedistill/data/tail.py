"""A long-tailed subset of any data set: class sizes that fall exponentially."""

import numpy as np

from facedistill.data.dataset import Dataset
from facedistill.data.split import place_in_class
from facedistill.errors import UsageError


def long_tail(dataset: Dataset, imbalance: float, seed: int) -> Dataset:
    """Keep n_c = n_0 imbalance^(-c / (C - 1)) images of class c, at least one, where n_0 is the largest class's number.

    The exponential profile of Cui et al. (arXiv 1901.05555): the first class stays whole, the last one keeps 1 in
    `imbalance`. A class that has fewer images than n_c keeps all of them. The images kept depend on `seed` alone.
    """
    if not imbalance >= 1:
        raise UsageError(f"imbalance {imbalance}: expected a number from 1 up, e.g. 100")
    counts = np.bincount(dataset.labels)
    share = np.arange(len(counts)) / max(1, len(counts) - 1)
    kept = np.maximum(1, np.floor(counts.max() * imbalance**-share + 1e-9)).astype(np.int64)  # 1e-9: 5000 / 100 is 50
    return dataset.subset(np.flatnonzero(place_in_class(dataset.labels, seed) < kept[dataset.labels]))
