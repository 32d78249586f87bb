"""Check that a student may probe a gallery that its teacher enrolled."""

import numpy as np

from facedistill.check.conventions import sample_identities
from facedistill.check.report import CheckReport
from facedistill.data import Dataset
from facedistill.evaluation import all_pairs
from facedistill.models import Model, embed_dataset

FARS = (1e-2, 1e-3)
LEAST_TAR = 0.5  # of the teacher's own TAR at FAR 1e-2; two spaces that have nothing in common reach 0.01


def check_student(student: Model, teacher: Model, dataset: Dataset, images: int = 2000) -> CheckReport:
    """Check that a student may probe the teacher's gallery: same dimension, same space id, and embeddings that agree.

    Measured on up to `images` images of identities with several: mean cosine, and TAR of student against teacher (both
    directions pooled) beside teacher against teacher. It says whether the spaces agree, not how good the student is.

    Raises:
        UserError: a model has no network, or the data no identities with several images.
    """
    report = CheckReport()
    report.values["same_space"] = same_space = student.space is not None and student.space == teacher.space
    report.add("dimensions", f"{student.embedding_dim}", f"{teacher.embedding_dim}", "dimension")
    report.add("space id", f"{student.space}", f"{teacher.space}", "space")
    if student.embedding_dim != teacher.embedding_dim:
        report.faults["dimension"] = (
            f"the student's embeddings have {student.embedding_dim} dimensions, the teacher's {teacher.embedding_dim}: "
            "they cannot be compared; give the student the teacher's size or a projection"
        )
        return report
    if not same_space:
        report.faults["space"] = (
            f"the student was not trained into the teacher's space (its space id is {student.space}, the teacher's "
            f"{teacher.space}): distil it from this teacher by a method that anchors it, such as proxylesskd or l2kd"
        )
    chosen = dataset.subset(sample_identities(dataset, images))
    probe, gallery = embed_dataset(student, chosen), embed_dataset(teacher, chosen)
    _judge_agreement(probe.fused("sum"), gallery.fused("sum"), gallery.labels, report)
    return report


def _judge_agreement(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, report: CheckReport) -> None:
    """Add the agreement to the report. The rows of probe and gallery are unit embeddings of the same images."""
    crossed = all_pairs(probe, gallery, labels, fars=FARS, resamples=200)
    ceiling = all_pairs(gallery, gallery, labels, fars=FARS, resamples=0)
    at = crossed.at_thresholds_of(ceiling)
    cosine = float((probe * gallery).sum(1).mean())
    report.values |= {
        "images": len(labels),
        "mean_cosine": cosine,
        "student_teacher": crossed.to_json(),
        "teacher_teacher": ceiling.to_json(),
        "at_gallery_threshold": at,
    }
    report.lines.append(f"mean cosine of student and teacher on the same {len(labels):,} images: {cosine:.3f}")
    for far, (point, _) in ceiling.tar_at_far.items():
        own, estimate = crossed.tar_at_far[far]
        low, high = estimate.ci95 or (own.tar, own.tar)
        report.lines.append(
            f"at FAR {far}: student against teacher gallery TAR {own.tar:.1%} ({low:.1%} to {high:.1%}), teacher "
            f"against teacher {point.tar:.1%}; at the teacher's own threshold the student gets FAR "
            f"{at[far]['far']:.2%}, TAR {at[far]['tar']:.1%}"
        )
    for far in list(ceiling.tar_at_far)[:1]:
        found, least = crossed.tar_at_far[far][0].tar, LEAST_TAR * ceiling.tar_at_far[far][0].tar
        report.add(f"TAR at FAR {far}, teacher's gallery", f"{found:.1%}", f"at least {least:.1%}", "agreement")
    if "1e-2" not in ceiling.tar_at_far:
        report.warnings["pairs"] = "fewer than 100 impostor pairs: no TAR can be measured; give more identities"
    elif crossed.tar_at_far["1e-2"][0].tar < LEAST_TAR * ceiling.tar_at_far["1e-2"][0].tar:
        report.faults["agreement"] = (
            "the embeddings do not agree on these images: against the teacher's gallery the student reaches less than "
            f"{LEAST_TAR:.0%} of the teacher's own TAR at FAR 1e-2"
        )
