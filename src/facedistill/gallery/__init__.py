"""The gallery: people and their vectors in one embedding space; enrol, search, forget, upgrade."""

from facedistill.gallery.enrolling import Enrolled, enroll
from facedistill.gallery.holdings import summary
from facedistill.gallery.identifying import Answer, identify
from facedistill.gallery.merging import merge
from facedistill.gallery.page import write_page
from facedistill.gallery.salvaging import salvage
from facedistill.gallery.search import Hit
from facedistill.gallery.store import Gallery, Threshold
from facedistill.gallery.thresholds import calibrate

__all__ = [
    "Answer",
    "Enrolled",
    "Gallery",
    "Hit",
    "Threshold",
    "calibrate",
    "enroll",
    "identify",
    "merge",
    "salvage",
    "summary",
    "write_page",
]
