"""From an evaluation to the thresholds that a model folder keeps for its users."""

from collections.abc import Mapping, Sequence
from typing import Any

from facedistill.errors import UserError
from facedistill.evaluation.metrics import far_key
from facedistill.evaluation.protocols import PROTOCOLS, declaration
from facedistill.models import Model


def thresholds_of(
    evaluation: dict[str, Any], models: Mapping[str, Model], fars: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the thresholds of the first model as probe, against every gallery, from the first set that has them.

    Each: {"far", "value" (cosine), "interval" [low, high], "impostors" (how many decide it), "probe", "gallery"
    (fingerprints of the models), "space" (of the gallery), "flip", "set", "protocol"}.

    Raises:
        UserError: a rate that the set cannot measure.
    """
    probe = next(iter(models))
    fingerprints = {name: model.fingerprint() for name, model in models.items()}
    results = [r for r in evaluation["results"] if _rates(r) is not None and "resolution" not in r["settings"]]
    found = []
    for r in results:
        first = results[0]
        if r["probe"] != probe or (r["set"], r["protocol"]) != (first["set"], first["protocol"]):
            continue
        for far in fars:
            rates = _rates(r) or {}
            at = rates.get(far_key(far))
            if at is None:
                raise UserError(
                    f"{r['set']}: no threshold for a false-accept rate of {far:g}; {r['protocol']} measured "
                    f"{', '.join(rates) or 'none'}: choose one of them, or ask for it with --far"
                )
            known = {
                "far": far,
                "value": at["threshold"],
                "interval": at.get("threshold_ci95"),
                "impostors": at["impostors"],
                "probe": fingerprints[r["probe"]],
                "gallery": fingerprints[r["gallery"]],
                "space": models[r["gallery"]].space,
                "flip": r["settings"]["flip"],
                "set": r["set"],
                "protocol": r["protocol"],
            }
            found.append({key: value for key, value in known.items() if value is not None})
    if not found:
        able = [name for name, kind in PROTOCOLS.items() if kind.declaration().calibrating]
        raise UserError(
            f"--save-threshold: no set was measured at false-accept rates; add --protocol, one of {', '.join(able)}"
        )
    return found


def _rates(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the values and thresholds of a result by rate, or None if its protocol calibrates none."""
    figure = declaration(result).calibrating
    return result.get(figure.key) if figure else None
