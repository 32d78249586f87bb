"""The threshold of a pair of models: kept in the gallery or with the model, or calibrated; never another pair's."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from facedistill.data import open_source
from facedistill.errors import UserError
from facedistill.evaluation import draws
from facedistill.gallery.enrolling import embedded, look
from facedistill.gallery.faces import FaceReader
from facedistill.gallery.store import Gallery, Threshold
from facedistill.models import Model

BLOCK = 256  # strangers at a time
RESAMPLES = 200
KEPT = 8  # times as many of the highest scores are kept as may pass, so that every resample finds its threshold


def threshold_for(gallery: Gallery, model: Model, far: float) -> Threshold:
    """Return the threshold of `model` as probe against the gallery's vectors, at a false-accept rate of one comparison.

    If several models enrolled, the highest of their pairs' thresholds, which lets no pair pass too much.

    Raises UserError if one of the pairs has none at this rate.
    """
    probe, chosen = model.fingerprint(), []
    kept = gallery.thresholds
    for enrolled_by in gallery.models():
        known = [*kept.get((probe, enrolled_by), []), *_of_model(model, probe, enrolled_by, gallery.flip)]
        found = next((one for one in known if math.isclose(one.far, far, rel_tol=1e-9)), None)
        if found is None:
            rates = ", ".join(f"{one.far:g}" for one in known)
            others = f"it has one at {rates}" if rates else "it has none"
            raise UserError(
                f"{gallery.path}: no threshold at a false-accept rate of {far:g} for this pair of models (probe "
                f"{probe}, enrolled by {enrolled_by}); {others}. Give --calibrate "
                "STRANGERS, images of people who are not in the gallery"
            )
        chosen.append(found)
    if not chosen:
        raise UserError(
            f"{gallery.path}: nobody is enrolled; `facedistill enroll {gallery.path} PHOTOS --model TEACHER`"
        )
    return max(chosen, key=lambda one: one.value)


def _of_model(model: Model, probe: str, gallery: str, flip: str) -> Iterator[Threshold]:
    """Yield the thresholds that the model's folder keeps for exactly this pair, and this use of mirror images."""
    for one in model.thresholds:
        if (one.get("probe"), one.get("gallery"), one.get("flip")) == (probe, gallery, flip):
            interval = one.get("interval")
            yield Threshold(
                *(probe, gallery, float(one["far"]), float(one["value"])),
                (float(interval[0]), float(interval[1])) if interval else None,
                one.get("impostors"),
                f"{one.get('set', '')}, {one.get('protocol', '')}",
            )


def calibrate(
    gallery: Gallery, model: Model, strangers: str | Path, far: float, detector: str | Path | None = None
) -> list[Threshold]:
    """Measure the threshold of `model` against each model that enrolled, and keep it in the gallery.

    Every image of the strangers is compared with every vector of people of other names. The threshold is the lowest
    score at or above which at most `far` of these comparisons lie. Its interval comes from drawing the strangers anew.

    Args:
        strangers: a data set of people who are not enrolled; whoever has the name of an enrolled person is compared
            with the others only.

    Raises:
        UserError: too few comparisons for this rate, or no image can be used.
    """
    source, reader = open_source(strangers), FaceReader(model.input_size, detector)
    looked = look(source, range(len(source)), reader.one_person)
    accepted = ((row, face) for row, _, (face,) in looked if face.crop is not None)
    found = [(one[0], vector) for one, vector in embedded(accepted, lambda one: one[1].crop, model, gallery.flip)]
    if not found:
        raise UserError(f"{strangers}: no image can be used to calibrate; see `facedistill enroll`, which says why")
    who = source.labels[[row for row, _ in found]]
    probes = torch.from_numpy(np.stack([vector for _, vector in found]))
    made = []
    for enrolled_by in gallery.models():
        vectors, people, names = gallery.matrix(enrolled_by)
        place = {name: i for i, name in enumerate(names)}
        own = np.array([place.get(name, -1) for name in source.class_names])[who]
        value, interval, passed = _threshold(probes, who, own, torch.from_numpy(vectors), people, far, str(strangers))
        one = Threshold(model.fingerprint(), enrolled_by, far, value, interval, passed, f"{strangers}, as strangers")
        gallery.set_threshold(
            *one[:2], far=far, value=value, interval=interval, impostors=passed, measured=one.measured
        )
        made.append(one)
    return made


def _threshold(
    probes: torch.Tensor,
    who: np.ndarray,
    own: np.ndarray,
    vectors: torch.Tensor,
    people: np.ndarray,
    far: float,
    strangers: str,
) -> tuple[float, tuple[float, float], int]:
    """Return the threshold at `far`, its interval, and how many comparisons lie at or above it.

    Args:
        probes: (P, d), of the persons `who` (P,). own: (P,), the place in `people` of the same name; -1 for none.
    """
    same = np.bincount(people, minlength=int(people.max()) + 1)
    each = len(people) - np.where(own >= 0, same[own], 0)  # comparisons of each probe
    allowed = math.floor(far * each.sum() * (1 + 1e-12))
    if allowed < 1:
        raise UserError(
            f"{strangers}: {each.sum():,} comparisons with strangers cannot measure a false-accept rate of {far:g}; "
            f"{math.ceil(1 / far):,} are needed, and many times that to be sure: give more images, or a higher --far"
        )
    highest, whose = np.zeros(0, np.float32), np.zeros(0, np.int64)
    for start in range(0, len(probes), BLOCK):
        scores = (probes[start : start + BLOCK] @ vectors.T).numpy()
        for row in np.flatnonzero(own[start : start + BLOCK] >= 0).tolist():
            scores[row, people == own[start + row]] = -2
        flat = scores.ravel()
        top = np.argpartition(-flat, min(KEPT * allowed, len(flat) - 1))[: KEPT * allowed + 1]
        highest = np.concatenate([highest, flat[top]])
        whose = np.concatenate([whose, who[start + top // len(vectors)]])
        order = np.argsort(-highest, kind="stable")[: KEPT * allowed + 1]
        highest, whose = highest[order], whose[order]
    persons = np.unique(who)
    at, counts = np.searchsorted(persons, whose), np.bincount(np.searchsorted(persons, who), each)
    resampled = [_at(highest, drawn[at], far * float(drawn @ counts)) for drawn in draws(len(persons), RESAMPLES)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return _at(highest, np.ones(len(highest)), allowed), (float(low), float(high)), allowed


def _at(scores: np.ndarray, weights: np.ndarray, allowed: float) -> float:
    """Return the lowest of the descending scores at or above which at most `allowed` comparisons lie, ties together."""
    passed = np.cumsum(weights)
    last = np.append(scores[1:] < scores[:-1], True)  # of equal scores
    good = np.flatnonzero(last & (passed <= allowed * (1 + 1e-12)))
    return float(scores[good[-1]]) if len(good) else float(np.nextafter(scores[0], np.float32(2)))
