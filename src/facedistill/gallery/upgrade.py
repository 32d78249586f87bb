"""Change the model that searches a gallery: keep its vectors, map them to the new space, or enrol again from photos."""

import time
from pathlib import Path

import numpy as np

from facedistill.data import Dataset, Embeddings, hold_out
from facedistill.errors import UserError
from facedistill.evaluation import all_pairs
from facedistill.files import fingerprint
from facedistill.gallery.advice import require_space
from facedistill.gallery.mapping import Mapping, fit_mapping
from facedistill.gallery.store import Gallery
from facedistill.models import Model, embed_dataset

FARS = (1e-2, 1e-3, 1e-4)
CALIBRATED_ON = 0.3  # of the identities; the map does not see them
LEAST_IDENTITIES = 50  # with several images each; with fewer, a threshold would rest on a handful of people


def keep_vectors(gallery: Gallery, old: Model, new: Model, data: Dataset | None, cache: Path | None = None) -> str:
    """Upgrade to a model of the same space: the vectors stay, and the new pair of models gets thresholds of its own.

    Returns what was done, in words. Without labelled images no threshold is made, and none of another pair is used.
    """
    require_space(gallery, old)
    people = None if data is None else _calibrating(data)
    lines = [
        f"{new.space} is the gallery's own space: its {len(gallery):,} vectors stay as they are, and it costs nothing"
    ]
    if people is None:
        return "\n".join([*lines, _uncalibrated(data)])
    own, other = (embed_dataset(model, people, cache=cache) for model in (old, new))
    made = _calibrate(gallery, own.fused(gallery.flip), other.fused(gallery.flip), own, old.fingerprint(), new)
    return "\n".join([*lines, made])


def map_vectors(
    gallery: Gallery, old: Model, new: Model, data: Dataset, out: Path | None = None, cache: Path | None = None
) -> str:
    """Upgrade to a model of another space by a map that is fitted to images: every vector is mapped, at once.

    Args:
        data: some thousands of images of anybody; labels are not needed. If many people have several images, 30% of the
            identities are kept from the map and calibrate thresholds.
        out: where to keep the map, for other galleries.

    Raises:
        UserError: the gallery is of another space, some vector was made by another model than `old`, or the images are
            too few. Nothing is then changed.
    """
    require_space(gallery, old)
    others = {by: count for by, count in gallery.models().items() if by != old.fingerprint()}
    if others:
        raise UserError(
            f"{gallery.path}: {sum(others.values()):,} of {len(gallery):,} vectors were made by other models than --from; "
            "a map holds for one: give the model that enrolled them, or enrol again with --photos"
        )
    began = time.perf_counter()
    people = _calibrating(data)
    fitted = data if people is None else hold_out(data, CALIBRATED_ON, 0)[0]
    x, y = (embed_dataset(model, fitted, cache=cache) for model in (old, new))
    mapping, line = fit_mapping(x.fused(gallery.flip), y.fused(gallery.flip), gallery.space, new.space or "")
    if out is not None:
        mapping.save(out)
    made_by = made_by_map(mapping, new)
    held = None if people is None else [embed_dataset(model, people, cache=cache) for model in (old, new)]
    count = gallery.replace_vectors(mapping, space=new.space or "", made_by=made_by, dim=mapping.dims[1])
    seconds = time.perf_counter() - began
    lines = [
        line,
        f"{count:,} vectors mapped to space {new.space} in one transaction; it cost {len(x):,} images through both "
        f"models and {seconds:.0f} s in all, and no photo of an enrolled person",
        "what the old model did not see, no map gives back: enrol people again when their photos are at hand",
    ]
    if held is None:
        return "\n".join([*lines, _uncalibrated(data)])
    own, other = held
    mapped = mapping(own.fused(gallery.flip))
    return "\n".join([*lines, _calibrate(gallery, mapped, other.fused(gallery.flip), own, made_by, new)])


def made_by_map(mapping: Mapping, new: Model) -> str:
    """Return the fingerprint under which mapped vectors are kept: they are not those of the new model itself."""
    return fingerprint("mapped to", new.fingerprint(), *(t.numpy() for _, t in sorted(mapping.tensors.items())))


def _calibrating(data: Dataset) -> Dataset | None:
    """Return the people who calibrate thresholds, or None if too few have several images."""
    if int((np.bincount(data.labels) > 1).sum()) * CALIBRATED_ON < LEAST_IDENTITIES:
        return None
    return hold_out(data, CALIBRATED_ON, 0)[1]


def _calibrate(
    gallery: Gallery, enrolled: np.ndarray, probes: np.ndarray, people: Embeddings, made_by: str, new: Model
) -> str:
    """Keep thresholds of (the new model, the gallery's vectors), measured between all pairs of the people's images."""
    found = all_pairs(probes, enrolled, people.labels, fars=FARS, resamples=200)
    said = []
    for far, (point, _) in found.tar_at_far.items():
        interval = found.thresholds[far].ci95
        gallery.set_threshold(
            new.fingerprint(),
            made_by,
            far=float(far),
            value=point.threshold,
            interval=interval,
            impostors=point.impostors,
            measured=f"upgrade, {len(people):,} images, all pairs",
        )
        said.append(f"{point.threshold:.3f} at FAR {far} (TAR {point.tar:.1%})")
    return (
        f"thresholds of the new model in this gallery, from {len(people):,} images of other people: {', '.join(said)}"
    )


def _uncalibrated(data: Dataset | None) -> str:
    why = "without images of people" if data is None else f"fewer than {LEAST_IDENTITIES} people would calibrate"
    return (
        f"no threshold was made ({why}), and those of other models are not used: calibrate with images of some hundred "
        "people, several of each"
    )
