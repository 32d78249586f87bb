"""Change the model that searches a gallery: keep its vectors, map them to the new space, or enrol again from photos."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from facedistill.data import Dataset, Embeddings, hold_out
from facedistill.errors import UsageError, UserError, some
from facedistill.evaluation import all_pairs
from facedistill.files import fingerprint
from facedistill.gallery.advice import require_space
from facedistill.gallery.database import SIDE_FILES
from facedistill.gallery.erasing import CACHES, overwrite
from facedistill.gallery.mapping import Mapping, fit_mapping
from facedistill.gallery.store import Gallery
from facedistill.models import Model, embed_dataset
from facedistill.progress import track

FARS = (1e-2, 1e-3, 1e-4)
CALIBRATED_ON = 0.3  # of the identities; the map does not see them
GATHERED = ".upgrade"  # after the gallery's name: where people are enrolled again until all are
LEAST_IDENTITIES = 50  # with several images each; with fewer, a threshold would rest on a handful of people


def upgrade(
    gallery: Gallery,
    old: Model,
    new: Model,
    data: Dataset | None = None,
    photos: Dataset | None = None,
    out: Path | None = None,
    cache: Path | None = None,
) -> str:
    """Change the gallery's model from `old` to `new` in the way that the arguments allow; return what was done.

    With `photos`, people are enrolled again (`enrol_again`). A model of the gallery's own space needs nothing else
    (`keep_vectors`). Otherwise the vectors are mapped, and the map is fitted to `data` (`map_vectors`).

    Raises:
        UsageError: the spaces differ, and neither images nor photos are given.
        UserError: see there; nothing is then changed.
    """
    require_space(gallery, old)
    if photos is not None:
        return enrol_again(gallery, new, photos, data, cache)
    if new.space == gallery.space:
        return keep_vectors(gallery, old, new, data, cache)
    if data is None:
        raise UsageError(
            f"{gallery.path}: the new model is of another space, so the vectors must change: give --data IMAGES (some "
            "thousands, of anybody) to map them, or --photos DIR to enrol again; `facedistill check NEW --against OLD "
            f"--data IMAGES --gallery {gallery.path}` measures which is good enough"
        )
    return map_vectors(gallery, old, new, data, out, cache)


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
    if old.fingerprint() not in gallery.models():
        return "\n".join([*lines, "no threshold was made: the vectors were not made by --from, but by another model"])
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
            f"{gallery.path}: {sum(others.values()):,} of {len(gallery):,} vectors are by other models than --from; "
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


def enrol_again(
    gallery: Gallery, new: Model, photos: Dataset, data: Dataset | None = None, cache: Path | None = None
) -> str:
    """Upgrade by enrolling everybody again from photos, a class for each person under the name in the gallery.

    The new vectors are gathered in a gallery beside this one and replace the old ones in one transaction, at the end.
    Until then the old ones serve; the same call resumes one that was stopped, person by person.

    Args:
        data: images of other people, to calibrate thresholds.

    Raises:
        UserError: a person has no photo, or none that can be read. Nothing is then changed.
    """
    names, before = set(gallery.names()), len(gallery)
    if missing := sorted(names - set(photos.class_names)):
        raise UserError(
            f"{photos.source.path}: no photos of {len(missing):,} of {len(names):,} people ({some(missing)}); nothing "
            "was changed: add theirs, remove them with `facedistill forget`, or map the vectors with --data"
        )
    began = time.perf_counter()
    with _gathered(gallery, new) as fresh:
        if gone := set(fresh.names()) - names:
            fresh.forget(*gone)  # forgotten since an earlier call was stopped
        done, by_person = set(fresh.names()), np.argsort(photos.labels, kind="stable")
        rows = np.split(by_person, np.cumsum(np.bincount(photos.labels, minlength=len(photos.class_names)))[:-1])
        left = [(name, rows[c]) for c, name in enumerate(photos.class_names) if name in names - done]
        for name, own in track(left, "enrolling again", sum(len(own) for _, own in left), size=lambda one: len(one[1])):
            images = photos.batch(own.tolist()).images
            if not len(images):
                raise UserError(
                    f"{photos.source.path}: no photo of '{name}' can be read; replace it and run this again"
                )
            fresh.add(name, new.embed(images, gallery.flip).float().cpu().numpy(), made_by=new.fingerprint())
        with gallery.writing():
            if (set(gallery.names()), len(gallery)) != (names, before):
                raise UserError(f"{gallery.path}: people were added or forgotten meanwhile; run this again to resume")
            count = gallery.become(fresh)
    _remove(fresh.path)
    resumed = f"; {len(done):,} people were already done" if done else ""
    lines = [
        f"{len(names):,} people enrolled again, {count:,} vectors of space {gallery.space}, in one transaction; it "
        f"cost their photos and {time.perf_counter() - began:.0f} s{resumed}"
    ]
    if strangers := len(set(photos.class_names) - names):
        lines.append(f"{strangers:,} people of {photos.source.path} are not in the gallery and were left out")
    people = None if data is None else _calibrating(data)
    if people is None:
        return "\n".join([*lines, _uncalibrated(data)])
    table = embed_dataset(new, people, cache=cache)
    vectors = table.fused(gallery.flip)
    return "\n".join([*lines, _calibrate(gallery, vectors, vectors, table, new.fingerprint(), new)])


@contextmanager
def _gathered(gallery: Gallery, new: Model) -> Iterator[Gallery]:
    """Yield the gallery beside this one in which people are enrolled again; one of another model is begun anew."""
    place = gallery.path.with_name(gallery.path.name + GATHERED)
    dim = new.embedding_dim * (2 if gallery.flip == "concat" else 1)
    described = {"space": new.space or "", "dim": dim, "precision": gallery.precision, "flip": gallery.flip}
    if place.exists():
        with Gallery.open(place) as before:
            same = all(getattr(before, key) == value for key, value in described.items())
            same = same and set(before.models()) <= {new.fingerprint()}
        if not same:
            _remove(place)
    with Gallery.create(place, **described) as found:
        yield found


def _remove(path: Path) -> None:
    """Overwrite and remove a gallery that is no longer needed: its vectors are biometric data."""
    for suffix in ("", *SIDE_FILES, *CACHES):
        overwrite(path.with_name(path.name + suffix))


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
