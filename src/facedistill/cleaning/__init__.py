"""From a data set with errors to a clean selection of it: wrong labels, copies, people of an evaluation set."""

from facedistill.cleaning.dataset import Cleaned, clean, faces_of
from facedistill.cleaning.evidence import Verdict, judge
from facedistill.cleaning.examining import Faces, examine
from facedistill.cleaning.findings import Finding
from facedistill.cleaning.neighbours import nearest
from facedistill.cleaning.pictures import Pictures, small

__all__ = [
    "Cleaned",
    "Faces",
    "Finding",
    "Pictures",
    "Verdict",
    "clean",
    "examine",
    "faces_of",
    "judge",
    "nearest",
    "small",
]
