"""The registry of terms. A name with a colon, `package.module:Class`, is imported from elsewhere."""

import importlib
import inspect
from typing import Any

from facedistill.errors import UsageError, closest
from facedistill.terms.embedding_l2 import EmbeddingL2
from facedistill.terms.margin_softmax import MarginSoftmax
from facedistill.terms.soft_targets import SoftTargets
from facedistill.terms.term import Term

TERMS: dict[str, type[Term]] = {
    "margin_softmax": MarginSoftmax,
    "embedding_l2": EmbeddingL2,
    "soft_targets": SoftTargets,
}


def make_term(name: str, options: dict[str, Any]) -> Term:
    """Build the term `name` with `options`. Raises UsageError for an unknown term or option."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            term = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as e:
            raise UsageError(f"term '{name}' cannot be imported: {e}") from e
    elif name in TERMS:
        term = TERMS[name]
    else:
        raise UsageError(f"term '{name}' is unknown{closest(name, TERMS)}; known: {', '.join(TERMS)}")
    known = list(inspect.signature(term).parameters)
    for option in options:
        if option not in known:
            raise UsageError(
                f"term '{name}' has no option '{option}'{closest(option, known)}; it has: {', '.join(known)}"
            )
    return term(**options)


__all__ = ["TERMS", "EmbeddingL2", "MarginSoftmax", "SoftTargets", "Term", "make_term"]
