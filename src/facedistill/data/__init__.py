"""Images with class names, as batches, and their embeddings as tables."""

from facedistill.data.align import TEMPLATE, align as align_face, similarity
from facedistill.data.batch import Batch, Output
from facedistill.data.dataset import Dataset, ImageBatch, UnreadableImage, open_dataset
from facedistill.data.decode import decode as decode_image, reduced, resize, thumbnail
from facedistill.data.degrade import degraded, shrink
from facedistill.data.embeddings import Embeddings, Flip, combine, fuse
from facedistill.data.loader import Loader, decoded
from facedistill.data.quality import GREY, middle, sharpness
from facedistill.data.samplers import SAMPLERS, Sampler, make_sampler
from facedistill.data.sources import (
    IMAGE_SUFFIXES,
    SOURCES,
    IjbSource,
    Source,
    VerificationSet,
    classes_with_images,
    draw_pairs,
    form_of,
    is_hidden,
    is_ijb,
    is_path,
    is_survface,
    is_tinyface,
    open_source,
    open_survface,
    open_tinyface,
    open_union,
    read_lines,
    read_table,
    read_text,
    save_selection,
    save_verification,
)
from facedistill.data.split import FIW_IDENTITY, components, groups, hold_out
from facedistill.data.stored import ArrayWriter, load_array, save_array
from facedistill.data.tail import long_tail
from facedistill.data.view import ImageView, TeacherSees, View, seen
from facedistill.data.views import VIEWS, make_view

__all__ = [
    "FIW_IDENTITY",
    "GREY",
    "IMAGE_SUFFIXES",
    "SAMPLERS",
    "SOURCES",
    "TEMPLATE",
    "VIEWS",
    "ArrayWriter",
    "Batch",
    "Dataset",
    "Embeddings",
    "Flip",
    "IjbSource",
    "ImageBatch",
    "ImageView",
    "Loader",
    "Output",
    "Sampler",
    "Source",
    "TeacherSees",
    "UnreadableImage",
    "VerificationSet",
    "View",
    "align_face",
    "classes_with_images",
    "combine",
    "components",
    "decode_image",
    "decoded",
    "degraded",
    "draw_pairs",
    "form_of",
    "fuse",
    "groups",
    "hold_out",
    "is_hidden",
    "is_ijb",
    "is_path",
    "is_survface",
    "is_tinyface",
    "load_array",
    "long_tail",
    "make_sampler",
    "make_view",
    "middle",
    "open_dataset",
    "open_source",
    "open_survface",
    "open_tinyface",
    "open_union",
    "read_lines",
    "read_table",
    "read_text",
    "reduced",
    "resize",
    "save_array",
    "save_selection",
    "save_verification",
    "seen",
    "sharpness",
    "shrink",
    "similarity",
    "thumbnail",
]
