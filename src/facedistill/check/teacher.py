"""Check that a teacher's classifier fits the data, and that its network gets the pixels it was made for."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from facedistill.check.conventions import Convention, likely_right, rank_conventions
from facedistill.check.fit import MOST_IMAGES, ClassifierFit, fit_of
from facedistill.check.report import CheckReport
from facedistill.data import Dataset, Embeddings
from facedistill.data.sources import classes_with_images
from facedistill.errors import UserError, some
from facedistill.head import Margin, centres, check_scale
from facedistill.models import Model, embed_dataset

CROWDED = 0.3  # mean cosine between rows of W above which a margin softmax hardly moves
MISNAMED = 0.02  # share of images; clean faces measure 0.1 to 0.3%
NO_SKILL = 1.0  # separation; 0 is chance, real networks under a wrong scale reach 0.5, under the right one 2.8 to 5


def check_teacher(
    model: Model,
    dataset: Dataset,
    margin: Margin,
    scale: float,
    least: float = 0.5,
    images: int = 2000,
    cache: Path | None = None,
) -> CheckReport:
    """Check a teacher against the data that a student will be trained on.

    Three checks pass or fail independently: the labels against the teacher's embeddings (leave-one-out centres, without
    W), W against both, and the declared input convention against the other plausible ones (without W).

    Args:
        margin, scale: of the margin softmax that a student will be trained with.
        least: own-class accuracy below which the check fails (recipe: check.own_class).
        images: the most images for the input conventions; see `rank_conventions`.
        cache: folder for embeddings.

    Raises:
        UsageError: the scale is no finite number above 0.
        UserError: the model has no network, or the data no classes with several images.
    """
    check_scale(scale)
    report = CheckReport()
    part = _whole_classes(dataset)
    if len(part) < len(dataset):
        report.lines.append(f"measured on {len(part):,} of {len(dataset):,} images, whole classes drawn at random")
    embeddings = embed_dataset(model, part, cache=cache)
    by_centres = fit_of(centres(embeddings), embeddings, margin, scale)
    through_own = _through_classifier(model, dataset, embeddings, margin, scale, report)
    report.values["fit_by_centres"] = asdict(by_centres)
    _judge_labels(by_centres, report)
    _judge_fit(through_own or by_centres, by_centres, scale, least, report)
    if not model.takes_features:
        _judge_input(rank_conventions(model, dataset, images), report)
    return report


def _whole_classes(dataset: Dataset) -> Dataset:
    """Return at most MOST_IMAGES images: whole classes, as centres need; single images if every class is too large."""
    if len(dataset) <= MOST_IMAGES:
        return dataset
    sizes = np.bincount(dataset.labels)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(sizes))
    chosen = np.isin(dataset.labels, order[np.cumsum(sizes[order]) <= MOST_IMAGES])
    some = np.flatnonzero(chosen) if chosen.any() else np.sort(rng.permutation(len(dataset))[:MOST_IMAGES])
    return dataset.subset(some)


def _through_classifier(
    model: Model, dataset: Dataset, embeddings: Embeddings, margin: Margin, scale: float, report: CheckReport
) -> ClassifierFit | None:
    """Return the fit through the model's own W, or None if it has no W or W lacks classes of the data."""
    own = model.classifier
    if own is None:
        report.lines.append(
            "W: the teacher's own classifier is not used; this check takes the data's class centres in its place. They "
            "carry the data's own names, so a wrong class order is impossible"
        )
        return None
    if len(own) != len(dataset.class_names):
        report.lines.append(f"W: has {len(own):,} classes, the data {len(dataset.class_names):,}")
    known_names = len(set(dataset.class_names) & set(own.class_names))
    report.add("classes of the data in W", f"{known_names:,}", f"{len(dataset.class_names):,}", "classes")
    unreadable = set(embeddings.class_names) - set(classes_with_images(embeddings.labels, embeddings.class_names)[1])
    try:
        known = own.select([name for name in dataset.class_names if name not in unreadable])
        return fit_of(known, embeddings, margin, scale)
    except UserError as e:
        report.faults["classes"] = str(e)
        return None


def _judge_labels(by_centres: ClassifierFit, report: CheckReport) -> None:
    report.lines.append(
        f"labels, by leave-one-out class centres: {by_centres.own_class:.1%} of {by_centres.images:,} images are "
        f"nearest to their own class; {by_centres.misnamed:.1%} seem to carry another class's name (this test "
        f"cannot detect less than {MISNAMED:.0%}, or images of people without a class here"
        f"{f', or {by_centres.single:,} classes of one image' if by_centres.single else ''})"
    )
    report.add("labels of another class", f"{by_centres.misnamed:.1%}", f"under {MISNAMED:.0%}", "labels")
    if by_centres.misnamed >= MISNAMED:
        report.warnings["labels"] = (
            f"at least {by_centres.misnamed:.1%} of the images seem to carry another class's name: clean the data "
            "before training on it"
        )


def _judge_fit(fit: ClassifierFit, by_centres: ClassifierFit, scale: float, least: float, report: CheckReport) -> None:
    report.values["fit"] = asdict(fit) | {"chance_loss": fit.chance_loss}
    suggestion = f"scale {fit.suggested_scale:g}"
    if fit.suggested_size is not None:
        suggestion = f"margin {fit.suggested_size:g}, {suggestion}"
    how = "with each image left out of its own centre" if fit.leave_one_out else "with W unchanged"
    report.lines += [
        f"W ({fit.origin}, {fit.classes:,} classes): {fit.own_class:.1%} of the embeddings are nearest to their own "
        f"row, {how}; mean cosine to it {fit.cosine:.3f}; mean cosine between two rows {fit.crowding:.3f}",
        f"margin softmax: the teacher's own loss at scale {scale:g} is {fit.loss:.2f}, and a uniform guess "
        f"has log C = {fit.chance_loss:.2f}; suggested start: {suggestion}",
    ]
    if fit.origin == "fitted":
        report.lines.append(
            "W was fitted: if it was fitted on these images, it has memorised their labels, right or wrong; rely on "
            "the class centres instead"
        )
    report.add("nearest to its own row of W", f"{fit.own_class:.1%}", f"at least {least:.1%}", "own_class", "names")
    report.add("the teacher's own loss", f"{fit.loss:.2f}", f"under {fit.chance_loss:.2f}", "loss")
    report.add("cosine between rows of W", f"{fit.crowding:.3f}", f"under {CROWDED}", "crowded")
    if fit.own_class < least:
        report.faults["own_class"] = _why_not(fit, by_centres, least)
    elif lost := sorted(set(fit.lost_classes) - set(by_centres.lost_classes)):
        report.warnings["names"] = (
            f"{len(lost)} of {fit.classes:,} classes ({some(lost)}) have no image nearest to their row of W, though "
            "their images agree with each other: their names in W may be swapped"
        )
    if fit.loss > fit.chance_loss:
        report.warnings["loss"] = (
            f"the teacher's own loss {fit.loss:.2f} exceeds log C = {fit.chance_loss:.2f}: this margin and scale ask "
            f"for more than the teacher itself reaches; try {suggestion}"
        )
    if fit.crowding > CROWDED:
        report.warnings["crowded"] = (
            f"the rows of W lie in a narrow cone (mean cosine {fit.crowding:.2f}, above {CROWDED}): a margin softmax "
            "hardly separates them; import the teacher with --centre"
        )


def _why_not(fit: ClassifierFit, by_centres: ClassifierFit, least: float) -> str:
    found = (
        f"only {fit.own_class:.1%} of the embeddings are nearest to their own row of W (at least {least:.1%} expected)"
    )
    if fit is not by_centres and by_centres.own_class >= least:
        return (
            f"{found}, but {by_centres.own_class:.1%} to their own class's centre: the class names or their order do "
            "not fit W, or W belongs to another network; give the right class file, or start W from centres"
        )
    return f"{found}: labels, colour order or normalisation are wrong, or the network does not know such images"


def _judge_input(found: list[Convention], report: CheckReport) -> None:
    report.values["conventions"] = [asdict(c) | {"verdict": c.verdict} for c in found]
    declared = next(c for c in found if c.declared)
    kinds = ("better", "slightly better", "same", "undecided")
    names = {verdict: [c.name for c in found if c.verdict == verdict] for verdict in kinds}
    report.lines.append(
        f"input, by pairs of images without W: declared {declared.name}; genuine pairs lie {declared.separation:.2f} "
        "deviations above impostor pairs"
    )
    right = likely_right(found)
    expected = f"{right[0].name}: {right[0].separation:.2f}" if right else "no other is better"
    measured = f"{declared.name}: {declared.separation:.2f} deviations"
    report.add("colour order and pixel scale", measured, expected, "input", "contrast")
    if right:
        best = right[0]
        others = f", hardly distinguishable from {', '.join(c.name for c in right[1:])}" if right[1:] else ""
        report.values["right_input"] = [c.name for c in right]
        report.faults["input"] = (
            f"the declared input {declared.name} is wrong: with {best.name} genuine pairs lie {best.separation:.2f} "
            f"deviations above impostor pairs, better by {best.difference:.2f} (99% interval {best.interval[0]:.2f} to "
            f"{best.interval[1]:.2f}){others}; import the teacher with the right colour, mean and std"
        )
    elif names["same"]:
        report.lines.append(
            f"input, equivalent here: {', '.join(names['same'])}: the network answers the same, so it does not matter"
        )
    if names["slightly better"] and not names["better"]:
        report.warnings["contrast"] = (
            f"with {', '.join(names['slightly better'])} genuine pairs lie a little further above impostor pairs, "
            "which may be the contrast of these images: look up how the teacher was trained"
        )
    if names["undecided"]:
        report.lines.append(
            f"input, undecided: {', '.join(names['undecided'])}: neither better nor worse here; more classes may decide"
        )
    if not any(names.values()):
        report.lines.append("input: every other colour order and pixel scale is clearly worse")
    if max(c.separation for c in found) < NO_SKILL:
        report.warnings["input"] = (
            "no input convention separates people: the network is untrained, or made for other images than these"
        )
