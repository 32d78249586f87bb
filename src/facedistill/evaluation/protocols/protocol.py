"""A Protocol: one way of measuring a set, and its declarations."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from facedistill.evaluation.figures import Count, Declaration, Figure, Line
from facedistill.evaluation.measurement import Measurement

if TYPE_CHECKING:
    from facedistill.evaluation.options import EvaluationOptions
    from facedistill.evaluation.sets import EvaluationSet, Side


class Protocol(ABC):
    """One way of measuring a set. An object of it measures one set, for all pairs of models.

    A subclass declares what it needs and what it measures, and defines `measure`. The command line, the evaluation,
    tables and reports read the declarations: a new protocol is one class, in the package or outside it.

    Attributes:
        name: the name of its results.
        kinds: the kinds of set that it measures, one of which a set must be: "labels" (images with class names),
            "multi-hot" (images that may have several labels),
            "pairs" (a list of pairs), "gallery" (probes and a gallery), "templates" (templates with pairs of them),
            "galleries" (templates with galleries of them).
        usual: the kinds of set that it measures even if no protocol was asked for.
        figures, counts, plots: its declarations about its results, see `Declaration`.
        compares_all: True if it compares every image of a labelled set with every other and returns a Verification.
            If identities are related, its false accepts are then counted by kind (`relatives`).
        data, options: the set that an object measures, and the options of the evaluation.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    usual: ClassVar[tuple[str, ...]] = ()
    figures: ClassVar[tuple[Figure, ...]]
    counts: ClassVar[tuple[Count, ...]] = ()
    plots: ClassVar[tuple[Line | str, ...]] = ()
    compares_all: ClassVar[bool] = False

    def __init__(self, data: "EvaluationSet", options: "EvaluationOptions") -> None:
        self.data, self.options = data, options

    @classmethod
    def declaration(cls) -> Declaration:
        return Declaration(cls.figures, cls.counts, cls.plots)

    def refusal(self, probe: "Side", gallery: "Side") -> str | None:
        """Return why these two cannot be measured and what to do instead; None if they can. Called before `measure`."""
        return None

    @abstractmethod
    def measure(self, probe: "Side", gallery: "Side") -> tuple[Measurement, dict[str, Any]]:
        """Compare the probe's embeddings with the gallery's; both are one object if a model meets itself.

        Returns:
            The measurement, and the settings that belong to this protocol, {"resampled": "identities"}.
        """
