"""The registry of protocols. A name with a colon, `package.module:Class`, is imported."""

from collections.abc import Mapping
from functools import cache
from inspect import isabstract
from typing import Any

from facedistill.errors import UsageError
from facedistill.evaluation.figures import Declaration
from facedistill.evaluation.protocols.all_pairs import AllPairs
from facedistill.evaluation.protocols.classification import ByClassifier
from facedistill.evaluation.protocols.identification import InGallery
from facedistill.evaluation.protocols.multi_label import ByLabels
from facedistill.evaluation.protocols.pairs import Pairs
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.protocols.retrieval import AmongOthers
from facedistill.evaluation.protocols.template_search import TemplateSearch
from facedistill.evaluation.protocols.template_verification import TemplateVerification
from facedistill.recipe import find

# The order in which they run if several are usual for a set. The first one that measured a set leads it in summaries,
# because it says most.
PROTOCOLS: dict[str, type[Protocol]] = {
    "all-pairs": AllPairs,
    "templates 1:1": TemplateVerification,
    "pairs": Pairs,
    "templates 1:N": TemplateSearch,
    "identification": InGallery,
    "retrieval": AmongOthers,
    "classification": ByClassifier,
    "multi-label": ByLabels,
}

# The protocols that measure a recipe's task; None: the usual ones of each set.
TASKS: dict[str, tuple[str, ...] | None] = {
    "recognition": None,
    "classification": ("classification", "retrieval"),
    "retrieval": ("retrieval",),
}


def protocols_of_task(task: str, sets: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the protocols that measure a recipe's task on these sets; None: the usual ones of each.

    Images with several labels are always measured by their usual one.
    """
    several = [one for one in sets.values() if "multi-hot" in one.kinds]
    return None if several and len(several) == len(sets) else TASKS[task]


def find_protocol(name: str) -> type[Protocol]:
    """Return the entry `name`, or the class that `package.module:Class` names.

    Raises:
        UsageError: the name is unknown, or the class is not a Protocol, lacks an attribute, or has the name of an
            entry.
    """
    kind = find(PROTOCOLS, name, "protocol", Protocol)
    lacking = [what for what in ("name", "kinds", "figures") if not hasattr(kind, what)]
    if lacking or isabstract(kind):
        raise UsageError(f"protocol '{name}' lacks {', '.join([*lacking, *sorted(kind.__abstractmethods__)])}")
    if PROTOCOLS.get(kind.name, kind) is not kind:
        raise UsageError(f"protocol '{name}' is called '{kind.name}', as one of facedistill is; give it another name")
    return kind


def carried(kind: type[Protocol]) -> dict[str, Any]:
    """Return what results hold so that they can be read without `kind`; {} for a protocol of this package."""
    ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return {} if ours else {"declared": kind.declaration().to_json()}


def declaration(*entries: Mapping[str, Any]) -> Declaration:
    """Return the declarations of these results' protocols; for an undeclared protocol, those of all protocols.

    Args:
        entries: results, differences or other entries of the evaluation JSON with a "protocol".
    """
    return Declaration.joined([_declaration(entry) for entry in entries] or [everything()])


def _declaration(entry: Mapping[str, Any]) -> Declaration:
    if "declared" in entry:
        return Declaration.read(entry["declared"])
    kind = PROTOCOLS.get(entry.get("protocol", ""))
    return kind.declaration() if kind else everything()


@cache
def everything() -> Declaration:
    """Return the declarations of all protocols of this package."""
    return Declaration.joined([kind.declaration() for kind in PROTOCOLS.values()])


__all__ = [
    "PROTOCOLS",
    "TASKS",
    "Protocol",
    "carried",
    "declaration",
    "everything",
    "find_protocol",
    "protocols_of_task",
]
