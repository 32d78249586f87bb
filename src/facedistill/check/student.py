"""Check that a student may probe a gallery that its teacher enrolled, and say how well it does."""

from typing import Any

import numpy as np

from facedistill.check.conventions import sample_identities
from facedistill.check.report import CheckReport
from facedistill.data import Dataset, Embeddings
from facedistill.errors import printable
from facedistill.evaluation import Verification, all_pairs, far_key, update_gain
from facedistill.head import centres
from facedistill.models import Model, embed_dataset, untied

FARS = (1e-2, 1e-3)
RESAMPLES = 200
LEAST_TAR = 0.5  # of the teacher's own TAR at FAR 1e-2; two spaces that have nothing in common reach 0.01
WORST = 5  # people that the report names


def check_student(student: Model, teacher: Model, dataset: Dataset, images: int = 2000) -> CheckReport:
    """Check that a student may probe the teacher's gallery: same dimension, same space id, and embeddings that agree.

    Measured on up to `images` images of identities with several: mean cosine with its ceiling; TAR of student against
    teacher (both directions pooled) beside both models alone, and the update gain; FAR and TAR at the thresholds that
    the models keep (see `evaluate --save-threshold`), else at the teacher's own on these images; the people whom the
    student finds worst.

    Raises:
        UserError: a model has no network, or the data no classes with several images.
    """
    report = CheckReport()
    report.values["same_space"] = same_space = student.space is not None and student.space == teacher.space
    report.add("dimensions", f"{student.embedding_dim}", f"{teacher.embedding_dim}", "dimension")
    report.add("space id", f"{student.space}", f"{teacher.space}", "space")
    if not same_space:
        report.faults["space"] = (
            f"the student was not trained into the teacher's space (its space id is {student.space}, the teacher's "
            f"{teacher.space}): distil it from this teacher by a method that anchors it, such as proxylesskd or l2kd"
        )
        if told := untied(student, teacher.space):
            report.faults["space"] += f"; {told}"
    if student.embedding_dim != teacher.embedding_dim:
        report.faults["dimension"] = (
            f"the student's embeddings have {student.embedding_dim} dimensions, the teacher's {teacher.embedding_dim}: "
            "they cannot be compared; give the student the teacher's size or a projection"
        )
        return report
    chosen = dataset.subset(sample_identities(dataset, images))
    probe, gallery = embed_dataset(student, chosen), embed_dataset(teacher, chosen)
    _judge_agreement(probe, gallery, _kept(student, teacher), report)
    return report


def _kept(student: Model, teacher: Model) -> list[dict[str, Any]]:
    """Return the thresholds that are kept for this pair of models, else those of the teacher against itself."""
    own, other = student.fingerprint(), teacher.fingerprint()
    for model, pair in ((student, (own, other)), (teacher, (other, other))):
        kept = [
            t for t in model.thresholds if (t.get("probe"), t.get("gallery")) == pair and t.get("flip", "sum") == "sum"
        ]
        if kept:
            return kept
    return []


def _judge_agreement(
    probe: Embeddings, gallery: Embeddings, thresholds: list[dict[str, Any]], report: CheckReport
) -> None:
    """Add the agreement to the report. The rows of probe and gallery are embeddings of the same images."""
    own, other, labels = probe.fused("sum"), gallery.fused("sum"), gallery.labels
    pairs = {"student_student": (own, own), "student_teacher": (own, other), "teacher_teacher": (other, other)}
    found = {name: all_pairs(*pair, labels, fars=FARS, resamples=RESAMPLES) for name, pair in pairs.items()}
    cosine = float((own * other).sum(1).mean())
    middle = centres(gallery).select(gallery.class_names).weight.numpy()
    ceiling = float((other * middle[labels]).sum(1).mean())
    report.values |= {"images": len(labels), "mean_cosine": cosine, "mean_cosine_ceiling": ceiling}
    report.values |= {name: measured.to_json() for name, measured in found.items()}
    report.lines.append(
        f"mean cosine of student and teacher on the same {len(labels):,} images: {cosine:.3f}; a student that sat "
        f"exactly on each person's centre would have {ceiling:.3f}"
    )
    _judge_rates(found, report)
    _judge_thresholds(found, thresholds, report)
    _name_the_worst(own, other, gallery, report)
    _conclude(found, report)


def _judge_rates(found: dict[str, Verification], report: CheckReport) -> None:
    """Add the TAR of the three pairs of models and the update gain; fail where the spaces do not agree."""
    crossed, alone, ceiling = (found[name] for name in ("student_teacher", "student_student", "teacher_teacher"))
    gains = update_gain(crossed, alone, ceiling)
    report.values["update_gain"] = {far: gain.to_json() for far, gain in gains.items()}
    for far, (point, _) in ceiling.tar_at_far.items():
        own, estimate = crossed.tar_at_far[far]
        low, high = estimate.ci95 or (own.tar, own.tar)
        gain = f"; update gain {gains[far].value:.2f}" if far in gains else ""
        report.lines.append(
            f"at FAR {far}: student against teacher gallery TAR {own.tar:.1%} ({low:.1%} to {high:.1%}), teacher "
            f"against teacher {point.tar:.1%}, student against student {alone.tar_at_far[far][0].tar:.1%}{gain}"
        )
    if "1e-2" not in ceiling.tar_at_far:
        report.warnings["pairs"] = "fewer than 100 impostor pairs: no TAR can be measured; give more classes"
        return
    tar, least = crossed.tar_at_far["1e-2"][0].tar, LEAST_TAR * ceiling.tar_at_far["1e-2"][0].tar
    report.add("TAR at FAR 1e-2, teacher's gallery", f"{tar:.1%}", f"at least {least:.1%}", "agreement")
    if tar < least:
        report.faults["agreement"] = (
            "the embeddings do not agree on these images: against the teacher's gallery the student reaches less than "
            f"{LEAST_TAR:.0%} of the teacher's own TAR at FAR 1e-2"
        )


def _judge_thresholds(found: dict[str, Verification], thresholds: list[dict[str, Any]], report: CheckReport) -> None:
    """Add the FAR and TAR of the student against the teacher's gallery at the thresholds that a gallery would use."""
    crossed = found["student_teacher"]
    if 0 in crossed.roc.pairs:
        return
    own = {far: point.threshold for far, (point, _) in found["teacher_teacher"].tar_at_far.items()}
    at: dict[str, dict[str, object]] = {}
    for one in thresholds or [{"far": float(far), "value": value} for far, value in own.items()]:
        far, tar = crossed.rates_at(one["value"])
        where = f"kept from {one.get('set', 'an evaluation')}" if thresholds else "the teacher's own on these images"
        at[far_key(one["far"])] = {"threshold": one["value"], "where": where, "far": far, "tar": tar}
        report.lines.append(
            f"at the gallery's threshold {one['value']:.3f} (FAR {one['far']:g}, {where}) the student gets FAR "
            f"{far:.2%}, TAR {tar:.1%}"
        )
    report.values["at_gallery_threshold"] = at


def _name_the_worst(own: np.ndarray, other: np.ndarray, gallery: Embeddings, report: CheckReport) -> None:
    """Add the people whose images by the student are least like their other images by the teacher."""
    worst = []
    for c in np.unique(gallery.labels):
        rows = np.flatnonzero(gallery.labels == c)
        if len(rows) < 2:
            continue
        between = ~np.eye(len(rows), dtype=bool)
        student, teacher = ((left[rows] @ other[rows].T)[between].mean() for left in (own, other))
        worst.append((float(student), float(teacher), gallery.class_names[c]))
    worst = sorted(worst)[:WORST]
    report.values["worst_people"] = [
        {"name": name, "mean_cosine": student, "teacher_alone": teacher} for student, teacher, name in worst
    ]
    if worst:
        named = ", ".join(f"{printable(name)} {student:.2f} ({teacher:.2f})" for student, teacher, name in worst)
        report.lines.append(f"found worst, by mean cosine to their other images (the teacher alone): {named}")


def _conclude(found: dict[str, Verification], report: CheckReport) -> None:
    """Add the verdict as a sentence."""
    if "1e-2" not in found["teacher_teacher"].tar_at_far:
        return
    tar = {name: 100 * measured.tar_at_far["1e-2"][0].tar for name, measured in found.items()}
    crossed, alone, teacher = (tar[name] for name in ("student_teacher", "student_student", "teacher_teacher"))
    rates = (
        f"of 100 pairs of one person it accepts {crossed:.0f}, where the teacher accepts {teacher:.0f} and the student "
        f"in a gallery of its own {alone:.0f}, at one false accept in 100"
    )
    if not report.passed:
        verdict = "the student must not probe this gallery"
    elif crossed >= alone:
        verdict = "the student may probe the teacher's gallery, which serves it better than one of its own"
    else:
        verdict = "the student may probe the teacher's gallery, but one of its own would serve it better"
    report.values["verdict"] = f"{verdict}: {rates}"
    report.lines.append(report.values["verdict"])
