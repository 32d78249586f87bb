"""Change the model that searches a gallery: keep its vectors, map them to the new space, or enrol again from photos."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facedistill.data import open_dataset, open_source
from facedistill.errors import UsageError, UserError, some
from facedistill.files import fingerprint
from facedistill.gallery.database import SIDE_FILES
from facedistill.gallery.enrolling import enroll
from facedistill.gallery.erasing import CACHES
from facedistill.gallery.mapping import Mapping, fit_mapping
from facedistill.gallery.names import read_name, stored_name
from facedistill.gallery.store import Gallery
from facedistill.gallery.thresholds import calibrate
from facedistill.models import Model, embed_dataset, untied

FAR = 1e-4  # of the threshold that is calibrated: the one that `identify` asks for
GATHERED = ".upgrade"  # after the gallery's name: where people are enrolled again until all are


def upgrade(
    gallery: Gallery,
    old: Model,
    new: Model,
    data: str | None = None,
    photos: str | None = None,
    *,
    detector: str | Path | None = None,
    out: Path | None = None,
    cache: Path | None = None,
) -> str:
    """Change the gallery's model from `old` to `new` in the way that the arguments allow; return what was done.

    With `photos`, people are enrolled again (`enrol_again`). A model of the gallery's own space needs nothing else.
    Otherwise the vectors are mapped, and the map is fitted to `data` (`map_vectors`). A threshold of the new pair of
    models is calibrated on `data`; without it there is none, and none of another pair is used.

    Args:
        data: a data set of some thousands of images of people who are not enrolled; labels are not needed.
        photos: a data set of the enrolled people, each under the name in the gallery.
        detector: finds the faces in `photos`, as in `enroll`.
        out: where to keep the map, for other galleries.

    Raises:
        UsageError: the spaces differ, and neither images nor photos are given; or an argument would do nothing.
        UserError: the gallery is of another space than `old`, or see `map_vectors` and `enrol_again`. Nothing is then
            changed.
    """
    require_old(gallery, old)
    if out is not None and (photos is not None or new.space == gallery.space):
        raise UsageError(f"--map {out}: no map is made where vectors stay or people are enrolled again; leave it out")
    if detector is not None and photos is None:
        raise UsageError("--detector finds faces in photos; give --photos, too, or leave it out")
    if photos is not None:
        said = enrol_again(gallery, new, photos, detector)
    elif new.space == gallery.space:
        said = f"{new.space} is the gallery's own space: its {len(gallery):,} vectors stay as they are, at no cost"
    elif data is not None:
        said = map_vectors(gallery, old, new, data, out, cache)
    else:
        told = untied(new, gallery.space)
        raise UsageError(
            f"{gallery.path}: the new model is of another space, so the vectors must change{told and f' ({told})'}; "
            "give --data IMAGES (some thousands, of anybody) to map them, or --photos DIR to enrol again; `facedistill "
            f"check NEW --against OLD --data IMAGES --gallery {gallery.path}` measures which is good enough"
        )
    return f"{said}\n{_calibrated(gallery, new, data)}"


def require_old(gallery: Gallery, old: Model) -> None:
    """Raise UserError unless the gallery holds vectors, and they are of the old model's space."""
    if not len(gallery):
        raise UserError(f"{gallery.path}: nobody is enrolled; make a new gallery with the new model")
    if old.space != gallery.space:
        raise UserError(
            f"{gallery.path}: holds vectors of space {gallery.space}, but the old model is of space {old.space}; give "
            "the model that enrolled them"
        )


def map_vectors(
    gallery: Gallery, old: Model, new: Model, data: str, out: Path | None = None, cache: Path | None = None
) -> str:
    """Map every vector to the new model's space, in one transaction, by a map that is fitted to `data`.

    Raises:
        UserError: some vector was made by another model than `old`, or the images are too few. Nothing is then changed.
    """
    others = {by: count for by, count in gallery.models().items() if by != old.fingerprint()}
    if others:
        raise UserError(
            f"{gallery.path}: {sum(others.values()):,} of {len(gallery):,} vectors are by other models than --from; a "
            "map holds for one: give the model that enrolled them, or enrol again with --photos"
        )
    began, images = time.perf_counter(), open_dataset(data)
    x, y = (embed_dataset(model, images, cache=cache) for model in (old, new))
    mapping, line = fit_mapping(x.fused(gallery.flip), y.fused(gallery.flip), gallery.space, new.space or "")
    if out is not None:
        mapping.save(out)
    count = gallery.replace_vectors(
        mapping, space=new.space or "", made_by=made_by_map(mapping, new), dim=mapping.dims[1]
    )
    return (
        f"{line}\n{count:,} vectors mapped to space {new.space} in one transaction; it cost {len(x):,} images through "
        f"both models and {time.perf_counter() - began:.0f} s, and no photo of an enrolled person\nwhat the old model "
        "did not see, no map gives back: enrol people again when their photos are at hand"
    )


def made_by_map(mapping: Mapping, new: Model) -> str:
    """Return the fingerprint under which mapped vectors are kept: they are not those of the new model itself."""
    return fingerprint("mapped to", new.fingerprint(), *(t.numpy() for _, t in sorted(mapping.tensors.items())))


def enrol_again(gallery: Gallery, new: Model, photos: str, detector: str | Path | None = None) -> str:
    """Enrol everybody again from photos, by `enroll`.

    The new vectors are gathered in a gallery beside this one and replace the old ones in one transaction, at the end.
    Until then the old ones serve; the same call resumes one that was stopped.

    Raises:
        UserError: a person has no photo, or none that was accepted. Nothing is then changed.
    """
    names, before, began = set(gallery.names()), len(gallery), time.perf_counter()
    given = {read_name(stored_name(name)) for name in open_source(photos).class_names}
    _require_everybody(names - given, names, f"{photos}: no photos", "")
    with _gathered(gallery, new) as fresh:
        done = enroll(fresh.path, photos, new, detector=detector)
        refused = next((f": {key}: {why}" for key, why in done.refused.items()), "")
        _require_everybody(names - set(fresh.names()), names, f"{photos}: no photo was accepted", refused)
        if strangers := set(fresh.names()) - names:
            fresh.forget(*strangers)
        with gallery.writing():
            if (set(gallery.names()), len(gallery)) != (names, before):
                raise UserError(f"{gallery.path}: people were added or forgotten meanwhile; run this again to resume")
            count = gallery.become(fresh)
    _remove(fresh.path)
    left = f"; {len(strangers):,} people of {photos} are not in the gallery and were left out" if strangers else ""
    return (
        f"{len(names):,} people enrolled again, {count:,} vectors of space {gallery.space}, in one transaction; it "
        f"cost their photos and {time.perf_counter() - began:.0f} s ({done.text()}){left}"
    )


def _require_everybody(missing: set[str], names: set[str], what: str, why: str) -> None:
    if missing:
        raise UserError(
            f"{what} of {len(missing):,} of {len(names):,} people ({some(sorted(missing))}){why}; nothing was changed: "
            "give others, remove these people with `facedistill forget`, or map the vectors with --data"
        )


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
    """Remove a gallery that is no longer needed, with what stands beside it."""
    for suffix in ("", *SIDE_FILES, *CACHES):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _calibrated(gallery: Gallery, new: Model, data: str | None) -> str:
    """Calibrate the thresholds of the new model in the gallery, if there are images for that, and say so."""
    why = "no --data"
    if data is not None:
        try:
            found = calibrate(gallery, new, data, FAR)
            each = ", ".join(f"{one.value:.3f}" for one in found)
            return f"threshold of the new model in this gallery, calibrated on {data} at FAR {FAR:g}: {each}"
        except UserError as e:  # the upgrade itself is done
            why = str(e)
    return (
        f"no threshold of the new model was calibrated ({why}), and those of other models are not used: `facedistill "
        f"identify {gallery.path} PHOTO --model NEW --calibrate STRANGERS`"
    )
