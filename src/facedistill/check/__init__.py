"""`check`: find out before training or enrolling whether classifier, class names, pixels and spaces fit."""

from facedistill.check.conventions import Convention, rank_conventions, sample_identities
from facedistill.check.fit import ClassifierFit, fit_of, require_fit
from facedistill.check.labels import check_labels, require_labels_fit
from facedistill.check.report import CheckReport
from facedistill.check.student import check_student
from facedistill.check.teacher import check_teacher

__all__ = [
    "CheckReport",
    "ClassifierFit",
    "Convention",
    "check_labels",
    "check_student",
    "check_teacher",
    "fit_of",
    "rank_conventions",
    "require_fit",
    "require_labels_fit",
    "sample_identities",
]
