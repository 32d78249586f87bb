"""Who is on a photo? Every face is searched for, and the answer may be that it is nobody enrolled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.errors import printable
from facedistill.gallery.enrolling import embedded, look, require_space
from facedistill.gallery.faces import Face, FaceReader
from facedistill.gallery.photos import Photos
from facedistill.gallery.search import By, Hit
from facedistill.gallery.store import Gallery, Threshold
from facedistill.gallery.thresholds import calibrate, threshold_for
from facedistill.models import Model


@dataclass
class Answer:
    """What the gallery says of a face, or of several photos of one person.

    Attributes:
        photo: its path. face: its number among the faces of the photo, the largest first, from 1. faces: how many.
        hits: people, the nearest first. threshold: which the first must reach; None if the face was refused.
        refused: why the face was not searched for; "" if it was.
    """

    photo: str
    face: int
    faces: int
    hits: list[Hit]
    threshold: Threshold | None
    refused: str = ""

    @property
    def accepted(self) -> bool:
        """True if the nearest person's score reaches the threshold."""
        return bool(self.hits) and self.threshold is not None and self.hits[0].score >= self.threshold.value

    @property
    def margin(self) -> float | None:
        """By how much the nearest person's score is above the second's; None without a second."""
        return self.hits[0].score - self.hits[1].score if len(self.hits) > 1 else None

    def text(self) -> str:
        """Return what a person reads."""
        where = printable(self.photo) + (f", face {self.face} of {self.faces}" if self.faces > 1 else "")
        if self.refused or not self.hits or self.threshold is None:
            return f"{where}: refused: {self.refused}"
        first, *others = self.hits
        found = f"{printable(first.name)}, {first.score:.3f}"
        told = found if self.accepted else f"unknown; the nearest is {found}"
        second = "".join(f"; then {printable(name)}, {score:.3f}" for name, score in others)
        margin = "" if self.margin is None else f"; margin {self.margin:.3f}"
        return f"{where}: {told} (threshold {self.threshold.value:.3f}{second}{margin})"

    def to_json(self) -> dict[str, Any]:
        """Return the answer; keys that do not apply are absent."""
        json: dict[str, Any] = {"photo": self.photo, "face": self.face, "faces": self.faces}
        if self.refused or self.threshold is None:
            return json | {"refused": self.refused}
        json |= {"accepted": self.accepted, "name": self.hits[0].name if self.accepted else None}
        json |= {"hits": [hit._asdict() for hit in self.hits], "threshold": self.threshold._asdict()}
        return json | ({} if self.margin is None else {"margin": self.margin})


def identify(
    gallery: Gallery,
    photos: Sequence[str | Path],
    model: Model,
    *,
    far: float = 1e-4,
    top: int = 5,
    by: By = "best",
    k: int = 3,
    detector: str | Path | None = None,
    together: bool = False,
    strangers: str | Path | None = None,
    index: bool = False,
) -> list[Answer]:
    """Say who is on photos: an answer for each face, in the order of the photos.

    Args:
        photos: files, or folders with photos. model: of the gallery's space.
        far: the false-accept rate of one comparison; the threshold of exactly this pair of models is used.
        by, k: how a person with several vectors is scored; see `Gallery.search`.
        detector: finds the faces; None: the images are aligned crops.
        together: all photos show one person; each vector's cosines with them are averaged.
        strangers: calibrate the threshold on these images first; see `calibrate`.
        index: search with the index beside the gallery; see `Gallery.search`.

    Raises:
        UserError: the model is of another space, or its pair has no threshold at this rate.
    """
    require_space(gallery, model)
    if strangers is not None:
        calibrate(gallery, model, strangers, far, detector)
    threshold = threshold_for(gallery, model, far)
    source, reader = Photos(photos), FaceReader(model.input_size, detector)
    asked: list[tuple[Answer, Face]] = []
    for row, _, faces in look(source, range(len(source)), reader.one_person if together else reader.faces):
        for number, face in enumerate(faces, 1):
            asked.append((Answer(source.keys[row], number, len(faces), [], None, face.refused), face))
    used = [one for one in asked if one[1].crop is not None]
    vectors = [vector for _, vector in embedded(used, lambda one: one[1].crop, model, gallery.flip)]
    answers = [answer for answer, _ in asked]
    if not vectors:
        return answers
    probes = np.stack(vectors)
    if together:
        photo = f"{len(vectors)} photos"
        (hits,) = gallery.search(probes, top, by, k, together=True, index=index)
        return [*(answer for answer in answers if answer.refused), Answer(photo, 1, 1, hits, threshold)]
    found = gallery.search(probes, top, by, k, index=index)
    for (answer, _), hits in zip(used, found, strict=True):
        answer.hits, answer.threshold = hits, threshold
    return answers
