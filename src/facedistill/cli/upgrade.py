"""The verb that changes a gallery's model: upgrade."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from facedistill.cli.app import File, answer, app


@app.command(sort_key=9.5)
def upgrade(
    gallery: Path,
    /,
    *,
    from_: Annotated[Path, Parameter(name="--from")],
    to: Path,
    data: str | None = None,
    photos: str | None = None,
    detector: str | None = None,
    map_: Annotated[File | None, Parameter(name="--map")] = None,
) -> None:
    """Change the model of a gallery, without enrolling again if that is possible.

    A new model of the gallery's own space searches it as it is. For a model of another space the stored vectors are
    mapped, by a map that is fitted to --data, or everybody is enrolled again from --photos. Each says what it cost. The
    vectors change in one transaction. A threshold belongs to a pair of models: old ones are never used for a new pair,
    and a new one is calibrated on --data.

    Before, `facedistill check NEW --against OLD --data IMAGES --gallery GALLERY` measures which way is good enough.

    Examples:

    `facedistill upgrade people.gallery --from old --to new --data photos`

    `facedistill upgrade people.gallery --from old --to new --photos albums`

    Parameters
    ----------
    gallery:
        The gallery.
    from_:
        The model that enrolled it: a model folder, a run, or an .onnx.
    to:
        The model that will search it.
    data:
        Images of people who are not enrolled, without names if need be: some thousands fit a map, and calibrate the
        threshold.
    photos:
        Photos of the enrolled people, a folder for each under the name in the gallery: enrol everybody again. A command
        that was stopped resumes.
    detector:
        yunet, scrfd or a file: finds the faces in photos that are no aligned crops, as in `enroll`.
    map_:
        Also write the map to this .safetensors file.
    """
    from facedistill.files import cache_dir
    from facedistill.gallery import Gallery, upgrade as change
    from facedistill.models import load_model

    old, new = (load_model(path, classifier=False) for path in (from_, to))
    cache = cache_dir() / "embeddings"
    with Gallery.open(gallery) as opened:
        answer(change(opened, old, new, data, photos, detector=detector, out=map_, cache=cache))
