"""The gallery: people and their vectors in one embedding space; enrol, search, forget, upgrade."""

from facedistill.gallery.mapping import Mapping, fit_mapping
from facedistill.gallery.search import Hit
from facedistill.gallery.store import Gallery, Threshold

__all__ = ["Gallery", "Hit", "Mapping", "Threshold", "fit_mapping"]
