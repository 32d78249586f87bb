"""A network with all that is needed to use it: running, saving, loading and importing it."""

from facedistill.models.crossing import not_tied, untied
from facedistill.models.embed import embed_blocks, embed_dataset
from facedistill.models.facts import FACTS, Facts, Input, Layout, Pixels, Precision, facts_of
from facedistill.models.folder import load_model, load_weights, save_model, save_weights
from facedistill.models.fused import Fused, Fusion, fuse_models
from facedistill.models.hub import is_hub_address
from facedistill.models.importers import import_model
from facedistill.models.model import FLIPS, InputSpec, Model, make_space, resized
from facedistill.models.push import push_model
from facedistill.models.tensors import save_tensors
from facedistill.models.thresholds import save_thresholds, thresholds_folder

__all__ = [
    "FACTS",
    "FLIPS",
    "Facts",
    "Fused",
    "Fusion",
    "Input",
    "InputSpec",
    "Layout",
    "Model",
    "Pixels",
    "Precision",
    "embed_blocks",
    "embed_dataset",
    "facts_of",
    "fuse_models",
    "import_model",
    "is_hub_address",
    "load_model",
    "load_weights",
    "make_space",
    "not_tied",
    "push_model",
    "resized",
    "save_model",
    "save_tensors",
    "save_thresholds",
    "save_weights",
    "thresholds_folder",
    "untied",
]
