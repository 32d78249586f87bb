"""The gallery: people and their vectors in one embedding space; enrol, search, forget, upgrade."""

from facedistill.gallery.mapping import Mapping, fit_mapping

__all__ = ["Mapping", "fit_mapping"]
