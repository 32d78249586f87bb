"""Face hallucination with priors (RIM): a network that makes a sharp face of a few pixels."""

from facedistill.hallucination.composed import HallucinatingBackbone, compose
from facedistill.hallucination.fhn import FHN, PRESETS, create_fhn
from facedistill.hallucination.images import hallucinate
from facedistill.hallucination.loop import train
from facedistill.hallucination.report import text_of
from facedistill.hallucination.sheet import WARNING
from facedistill.hallucination.starts import MEASURES, ORDER, network_of
from facedistill.hallucination.storing import load_fhn, save_fhn

__all__ = [
    "FHN",
    "MEASURES",
    "ORDER",
    "PRESETS",
    "WARNING",
    "HallucinatingBackbone",
    "compose",
    "create_fhn",
    "hallucinate",
    "load_fhn",
    "network_of",
    "save_fhn",
    "text_of",
    "train",
]
