"""The class matrix W: where it starts, what moves it, and the margin softmax against it."""

from facedistill.head.classifier import Classifier, ClassWeight
from facedistill.head.fitting import fit
from facedistill.head.frozen_softmax import FrozenMarginSoftmax, frozen_margin_softmax
from facedistill.head.margins import (
    MARGINS,
    AdaFace,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    Margin,
    SphereFace,
    check_scale,
    make_margin,
    margin_softmax,
    observe,
)
from facedistill.head.nearest import cached_nearest, neighbourhood
from facedistill.head.rows import Rows, load_rows, quantise, save_rows
from facedistill.head.starts import (
    STARTS,
    Centres,
    Given,
    NoClassifier,
    Start,
    centres,
    completed,
    fit_classifier,
    instances,
    make_start,
    random_classifier,
)

__all__ = [
    "MARGINS",
    "STARTS",
    "AdaFace",
    "ArcFace",
    "Centres",
    "ClassWeight",
    "Classifier",
    "CombinedMargin",
    "CosFace",
    "CurricularFace",
    "FrozenMarginSoftmax",
    "Given",
    "Margin",
    "NoClassifier",
    "Rows",
    "SphereFace",
    "Start",
    "cached_nearest",
    "centres",
    "check_scale",
    "completed",
    "fit",
    "fit_classifier",
    "frozen_margin_softmax",
    "instances",
    "load_rows",
    "make_margin",
    "make_start",
    "margin_softmax",
    "neighbourhood",
    "observe",
    "quantise",
    "random_classifier",
    "save_rows",
]
