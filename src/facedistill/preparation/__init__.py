"""From a folder of photos to aligned faces: find them, crop them, and say what became of each photo."""

from facedistill.preparation.dataset import Prepared, prepare
from facedistill.preparation.detector import LAYOUTS, Detector
from facedistill.preparation.faces import Faces
from facedistill.preparation.fetch import detector_file
from facedistill.preparation.landmarks import read_landmarks
from facedistill.preparation.photo import faces_of
from facedistill.preparation.search import find_faces

__all__ = [
    "LAYOUTS",
    "Detector",
    "Faces",
    "Prepared",
    "detector_file",
    "faces_of",
    "find_faces",
    "prepare",
    "read_landmarks",
]
