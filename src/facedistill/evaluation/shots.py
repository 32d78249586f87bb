"""Classes grouped by their number of training images."""

import numpy as np

MANY, FEW = 100, 20  # training images of a class: many at least, few at most (as LFME and OLTR group classes)
SHOTS = ("many", "medium", "few")


def by_shots(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return which classes have many images (100 and more), few (20 and fewer), or a number between: bool (C,) each.

    Args:
        counts: int64 (C,), training images of each class.
    """
    many, few = counts >= MANY, counts <= FEW
    return dict(zip(SHOTS, (many, ~many & ~few, few), strict=True))
