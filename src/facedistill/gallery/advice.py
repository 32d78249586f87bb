"""Which way to upgrade a gallery is good enough: measured on people whom no map has seen."""

import time
from dataclasses import dataclass

import numpy as np

from facedistill.check import CheckReport, sample_identities
from facedistill.data import Dataset, hold_out
from facedistill.errors import UserError
from facedistill.evaluation import Verification, all_pairs, compatibility, update_gain
from facedistill.gallery.mapping import LEAST_IMAGES, fit_mapping
from facedistill.gallery.store import Gallery
from facedistill.gallery.upgrading import require_old
from facedistill.models import Model, embed_dataset

FARS = (1e-2, 1e-3)
RESAMPLES = 200
MOST_FITTED, MOST_JUDGED = 4000, 2000  # images
HALF = 0.5  # of the identities judge; the map is fitted to the others


@dataclass(frozen=True)
class Way:
    """A way to search the gallery with the new model: what it is, what it costs, and how well it does."""

    key: str
    what: str
    cost: str
    measured: Verification


def judge_upgrade(new: Model, old: Model, gallery: Gallery, dataset: Dataset) -> CheckReport:
    """Compare the ways to upgrade a gallery from `old` to `new`, and name the cheapest that is good enough.

    (a) The old vectors as they are, (b) mapped to the new space, (c) everybody enrolled again. Good enough is what BCT
    (arXiv 2003.11942) asks: the new model finds more in it than the old one does, TAR(new/gallery) > TAR(old/old),
    beyond the interval. The map is fitted to half of the identities, and all is measured on the other half.

    Args:
        dataset: images of people, several of some; not those that are enrolled, if possible.

    Raises:
        UserError: the gallery is not of the old model's space, a model has no network, or the images are too few.
    """
    require_old(gallery, old)
    fitted, judged = hold_out(dataset, HALF, 0)
    judged = judged.subset(sample_identities(judged, MOST_JUDGED))
    fitted = fitted.subset(np.sort(np.random.default_rng(0).permutation(len(fitted))[:MOST_FITTED]))
    began = time.perf_counter()
    x, y = (embed_dataset(model, fitted).fused(gallery.flip) for model in (old, new))
    seconds = time.perf_counter() - began
    own, other = embed_dataset(old, judged), embed_dataset(new, judged)
    before, after = own.fused(gallery.flip), other.fused(gallery.flip)

    def measure(probe: np.ndarray, enrolled: np.ndarray) -> Verification:
        return all_pairs(probe, enrolled, own.labels, fars=FARS, resamples=RESAMPLES)

    report, ways = CheckReport(), []
    if before.shape[1] == after.shape[1]:
        ways.append(Way("a", "the old vectors as they are", "nothing but new thresholds", measure(after, before)))
    if len(x) >= LEAST_IMAGES:
        mapping, line = fit_mapping(x, y)
        report.lines.append(f"map: {line}")
        cost = f"{len(x):,} images through both models ({seconds:.0f} s here), then {len(gallery):,} vectors at once"
        ways.append(Way("b", "the old vectors, mapped", cost, measure(after, mapping(before))))
    again = f"the photos of {len(gallery.names()):,} people through the new model"
    ways.append(Way("c", "everybody enrolled again", again, measure(after, after)))
    _compare(ways, measure(before, before), new.space == gallery.space, report)
    return report


def _compare(ways: list[Way], before: Verification, same_space: bool, report: CheckReport) -> None:
    """Add every way beside the old model in its own gallery, and the verdict."""
    far = next((key for key in ("1e-3", "1e-2") if key in before.tar_at_far), None)
    if far is None:
        raise UserError("fewer than 100 pairs of two people: no TAR can be measured; give more people")
    least = before.tar_at_far[far][0].tar
    report.values["old_old"] = before.to_json()
    report.lines.append(f"the old model in its own gallery: {_rates(before)}")
    good = []
    for way in ways:
        criterion = compatibility(way.measured, before)[f"tar_at_far.{far}"]
        gain = update_gain(way.measured, before, ways[-1].measured).get(far)
        report.add(
            f"({way.key}) {way.what}", f"TAR {way.measured.tar_at_far[far][0].tar:.1%}", f"above {least:.1%}", way.key
        )
        report.lines.append(
            f"({way.key}) {way.what}: {_rates(way.measured)}" + (f"; update gain {gain.value:.2f}" if gain else "")
            + f"; costs {way.cost}"
        )  # fmt: skip
        report.values[way.key] = way.measured.to_json() | {"criterion": criterion}
        if way.key == "a" and not same_space:
            report.warnings["a"] = "(a) is refused: the new model is of another space than the gallery"
        elif not criterion.get("compatible"):
            unclear = "is not distinguishable from" if "compatible" not in criterion else "is below"
            report.warnings[way.key] = f"({way.key}) {unclear} the old model in its own gallery at FAR {far}"
        else:
            good.append(way)
    report.values["good_enough"] = [way.key for way in good]
    _advise(good, report)


def _advise(good: list[Way], report: CheckReport) -> None:
    if not good:
        report.faults["upgrade"] = "no way is better than what the gallery has now: stay with the old model"
        return
    best, last = good[0], good[-1]
    advice = f"({best.key}) is good enough: {best.what}, which costs {best.cost}"
    if best is not last:
        possible, reached = (
            next(iter(reversed(way.measured.tar_at_far.values())))[0].tar for way in (last, best)
        )  # fmt: skip
        advice += f"; enrolling again would find {100 * (possible - reached):.1f} more of 100 pairs"
    report.values["advice"] = advice
    report.lines.append(advice)


def _rates(measured: Verification) -> str:
    return ", ".join(f"TAR {point.tar:.1%} at FAR {far}" for far, (point, _) in measured.tar_at_far.items())
