"""The gallery: people and their vectors in one embedding space; enrol, search, forget, upgrade."""

from facedistill.gallery.advice import judge_upgrade
from facedistill.gallery.mapping import Mapping, fit_mapping
from facedistill.gallery.search import Hit
from facedistill.gallery.store import Gallery, Threshold
from facedistill.gallery.upgrade import upgrade

__all__ = ["Gallery", "Hit", "Mapping", "Threshold", "fit_mapping", "judge_upgrade", "upgrade"]
