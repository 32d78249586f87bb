"""The gallery: people and their vectors in one embedding space; enrol, search, forget, upgrade."""

from facedistill.gallery.advice import judge_upgrade
from facedistill.gallery.enrolling import Enrolled, enroll
from facedistill.gallery.holdings import summary
from facedistill.gallery.identifying import Answer, identify
from facedistill.gallery.mapping import Mapping, fit_mapping
from facedistill.gallery.merging import merge
from facedistill.gallery.page import write_page
from facedistill.gallery.salvaging import salvage
from facedistill.gallery.search import Hit
from facedistill.gallery.store import Gallery, Threshold
from facedistill.gallery.thresholds import calibrate
from facedistill.gallery.upgrading import upgrade

__all__ = [
    "Answer",
    "Enrolled",
    "Gallery",
    "Hit",
    "Mapping",
    "Threshold",
    "calibrate",
    "enroll",
    "fit_mapping",
    "identify",
    "judge_upgrade",
    "merge",
    "salvage",
    "summary",
    "upgrade",
    "write_page",
]
