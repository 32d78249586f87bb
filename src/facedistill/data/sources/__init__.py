"""The forms of data, one per module. Each form is read as a Source."""

from facedistill.data.sources.ijb import IjbSource, is_ijb
from facedistill.data.sources.open import SOURCES, form_of, is_path, open_source, open_union
from facedistill.data.sources.reading import IMAGE_SUFFIXES, is_hidden, read_lines, read_table, read_text
from facedistill.data.sources.selection import save_selection
from facedistill.data.sources.source import BETWEEN_OPTIONS, Source, classes_with_images
from facedistill.data.sources.survface import is_survface, open_survface
from facedistill.data.sources.tinyface import is_tinyface, open_tinyface
from facedistill.data.sources.verification import VerificationSet, draw_pairs, save_verification

__all__ = [
    "BETWEEN_OPTIONS",
    "IMAGE_SUFFIXES",
    "SOURCES",
    "IjbSource",
    "Source",
    "VerificationSet",
    "classes_with_images",
    "draw_pairs",
    "form_of",
    "is_hidden",
    "is_ijb",
    "is_path",
    "is_survface",
    "is_tinyface",
    "open_source",
    "open_survface",
    "open_tinyface",
    "open_union",
    "read_lines",
    "read_table",
    "read_text",
    "save_selection",
    "save_verification",
]
