"""Templates of several images, as in IJB: one vector of each.

A template without a readable image gets the zero vector, which scores 0 with everything.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.evaluation.protocols.protocol import Protocol

if TYPE_CHECKING:
    from facedistill.data import Flip
    from facedistill.evaluation.sets import Side, TemplateSet

FUSED_IMAGES = 4096  # fused at a time
WEIGHTING = ("weight_by_norm", "weight_by_detector_score", "media_pooling")  # options of `template_vectors`


class Templates(Protocol):
    """The base of the two template protocols, which makes template vectors from images."""

    data: "TemplateSet"

    @property
    def weighting(self) -> dict[str, Any]:
        return {key: getattr(self.options, key) for key in WEIGHTING}

    def vectors(self, probe: "Side", gallery: "Side") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vectors of the probe's and the gallery's templates (one array if both are one side), and ids."""
        sides = [probe] if probe is gallery else [probe, gallery]
        pooled = [template_vectors(*self._images(side), **self.weighting, flip=self.options.flip) for side in sides]
        return pooled[0][1], pooled[-1][1], pooled[0][0]

    def _images(self, side: "Side") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        table, source = side.table("images"), self.data.source
        rows: slice | np.ndarray = slice(None)
        if len(table) < len(source):
            place = {key: i for i, key in enumerate(source.keys)}
            rows = np.array([place[key] for key in table.keys])
        return table.vectors, source.template[rows], source.media[rows], source.detector_score[rows]


def template_vectors(
    vectors: np.ndarray,
    template: np.ndarray,
    media: np.ndarray,
    detector_score: np.ndarray,
    *,
    flip: "Flip" = "sum",
    weight_by_norm: bool = True,
    weight_by_detector_score: bool = True,
    media_pooling: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Pool the embeddings of each template's images. The defaults are the field's.

    The flip views of an image are summed, concatenated or left out without normalisation. A template is the normalised
    sum over its media of the mean over the medium's images.

    Args:
        vectors: raw embeddings, float32 (N, F, d), as embed.Embeddings has them.
        template, media: int64 (N,), ids; detector_score: float32 (N,), the detector's confidence in the face.
        weight_by_norm: keep the norm of each image's embedding, which is larger for sharp faces; False normalises it.
        weight_by_detector_score: multiply each image's embedding by the detector's score.
        media_pooling: False sums all images alike, so that a video counts once per frame.

    Returns:
        Template ids, int64 (T,), ascending, and unit rows, float32 (T, d), or (T, 2d) for flip "concat".
    """
    from facedistill.data import combine  # here, because it loads torch, and `results` reads the declarations above

    ids, row = np.unique(template, return_inverse=True)
    weight = np.ones(len(vectors))
    if weight_by_detector_score:
        weight *= detector_score
    if media_pooling:  # the mean over a medium is a sum with weights
        media, medium = np.unique(media, return_inverse=True)
        _, group, images = np.unique(row * len(media) + medium, return_inverse=True, return_counts=True)
        weight /= images[group]
    order = np.argsort(row, kind="stable")
    sums = np.zeros((len(ids), vectors.shape[2] * (vectors.shape[1] if flip == "concat" else 1)))
    for part in (order[start : start + FUSED_IMAGES] for start in range(0, len(order), FUSED_IMAGES)):
        image = combine(vectors[part], flip)
        if not weight_by_norm:
            image = _unit(image)
        rows, starts = np.unique(row[part], return_index=True)
        sums[rows] += np.add.reduceat(image * weight[part, None], starts, axis=0)
    return ids, _unit(sums).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def rows_of(vectors: np.ndarray, ids: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Return the vectors (K, d) of `templates` (K,) from those of ascending `ids` (T,); zero for one not in `ids`."""
    place = np.searchsorted(ids, templates).clip(max=len(ids) - 1)
    return np.where((ids[place] == templates)[:, None], vectors[place], np.zeros(1, vectors.dtype))


def without_image(ids: np.ndarray, *templates: np.ndarray) -> int:
    """Return the number of distinct `templates` that are not among `ids`, so that their vectors are zero."""
    return len(np.setdiff1d(np.concatenate(templates), ids))
