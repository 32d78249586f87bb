"""Average precision and AUC of classes against the rest, for any weights of the images."""

import numpy as np


class Ranking:
    """The images by their score for each class. Sorted once; every resample only adds up its weights.

    Images of equal score count together: the precision at each of them is that of all of them, as in scikit-learn.

    Args:
        scores: (N, K), the score of each image for each class. labels: int64 (N,), 0 <= label < K; or bool (N, K), the
            classes of each image if it may have several.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        number = len(scores)
        self.order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self.order, axis=0)
        new = np.ones(ranked.shape, dtype=bool)  # an image whose score differs from that of the one before
        new[1:] = ranked[1:] != ranked[:-1]
        place = np.arange(number)[:, None]
        first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
        ends = np.vstack([new[1:], np.ones((1, ranked.shape[1]), dtype=bool)])
        last = np.minimum.accumulate(np.where(ends, place, number)[::-1], axis=0)[::-1]
        hot = labels if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
        self.own = np.take_along_axis(hot, self.order, axis=0)
        self.rows, self.classes = np.nonzero(self.own)  # of the right images
        self.first, self.last = first[self.rows, self.classes], last[self.rows, self.classes]

    def measured(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return average precision and AUC of each class, float64 (K,); NaN for a class without images or others.

        Args:
            weight: (N,), how often each image counts.
        """
        ranked = weight[self.order].astype(np.float64)
        right = np.where(self.own, ranked, 0)
        seen, found = np.cumsum(ranked, axis=0), np.cumsum(right, axis=0)
        wrong = np.vstack([np.zeros((1, seen.shape[1])), seen - found])  # row r: before the image of rank r
        total, others = found[-1], wrong[-1]
        own, at, classes = right[self.rows, self.classes], self.last, self.classes
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(own > 0, found[at, classes] / seen[at, classes], 0)
            before, up_to = wrong[self.first, classes], wrong[at + 1, classes]
            beaten = others[classes] - (before + up_to) / 2
            return (
                np.bincount(classes, own * precision, len(total)) / total,
                np.bincount(classes, own * beaten, len(total)) / (total * others),
            )
