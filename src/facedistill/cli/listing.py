"""The lists of methods, terms, backbones and so on. Each function imports only what it lists."""

from typing import Any

from facedistill.errors import UsageError, closest


def listing(what: str) -> str:
    """Return the entries of the kind `what` (methods, terms, ...), one a line. Raises UsageError for another kind."""
    kinds = {
        "methods": _methods,
        "terms": _terms,
        "backbones": _backbones,
        "margins": _margins,
        "views": _views,
        "protocols": _protocols,
        "recipes": _recipes,
    }
    if what not in kinds:
        raise UsageError(f"list '{what}'{closest(what, kinds)}: expected one of {', '.join(kinds)}")
    return "\n".join(kinds[what]())


def _methods() -> list[str]:
    from facedistill.methods import METHODS

    rows = []
    for name, row in METHODS.items():
        w = f"{row.classifier.start} / {row.classifier.moved_by}" if row.classifier.start else "none"
        rows.append(f"{name:24} W: {w:20} terms: {', '.join(row.terms)}")
    return rows


def _terms() -> list[str]:
    from facedistill.terms import TERMS

    return [f"{name:18} {_summary(term)}" for name, term in TERMS.items()]


OTHERS = {  # networks whose cost is not that of an image of 112 x 112
    "genotype": "of the cells in `student.options.file`",
    "mlp": "for vectors of features, not images",
}


def _backbones() -> list[str]:
    from facedistill.backbones import BACKBONES, COSTS, noted_latency

    rows = ["name                  parameters   MACs at 112x112   ms here   published IJB-C, TAR at FAR 1e-4"]
    for name in BACKBONES:
        if name in COSTS:
            cost = COSTS[name]
            figure = f"{cost.ijbc:.2f} ({cost.data})" if cost.ijbc else ""
            ms = "" if (noted := noted_latency(name)) is None else f"{noted:.1f}"
            rows.append(f"{name:20} {cost.parameters / 1e6:9.2f} M {cost.macs:15.1f} M {ms:>9}   {figure}".rstrip())
        else:
            rows.append(f"{name:20} {OTHERS[name]}")
    about = "ms here: one image in PyTorch, one thread, where `facedistill bench` has measured such a model"
    return [*rows, f"{'timm:NAME':20} any network of timm, where it is installed", about]


def _margins() -> list[str]:
    from facedistill.head import MARGINS

    return [f"{name:18} {_summary(margin)}" for name, margin in MARGINS.items()]


def _views() -> list[str]:
    from facedistill.data import VIEWS

    return [f"{name:18} {_summary(view)}" for name, view in VIEWS.items()]


def _protocols() -> list[str]:
    from facedistill.evaluation import PROTOCOLS

    return [f"{name:18} {_summary(protocol)}" for name, protocol in PROTOCOLS.items()]


def _recipes() -> list[str]:
    from facedistill.recipe import shipped_recipes

    return shipped_recipes()


def _summary(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]
