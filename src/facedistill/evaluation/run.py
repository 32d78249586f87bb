"""Every pair of models on every set by every protocol that applies, as the evaluation JSON of DESIGN.md section 4."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data.dataset import Dataset, open_dataset
from facedistill.data.verification import VerificationSet
from facedistill.embed import Embeddings, Flip, embed_dataset
from facedistill.errors import UsageError, UserError, closest
from facedistill.evaluation import all_pairs, pairs, relatives
from facedistill.evaluation.statistics import RESAMPLES, SEED
from facedistill.evaluation.verification import Verification
from facedistill.model import FLIPS, Model

SCHEMA = 1
THRESHOLDS = ("grid", "exact")
Spec = str | Path | Dataset


@dataclass(frozen=True)
class Options:
    """What holds for all sets and protocols. `fars`: None takes each protocol's own."""

    flip: Flip = "sum"
    threshold: pairs.Thresholds = "grid"
    fars: tuple[float, ...] | None = None
    resamples: int = RESAMPLES
    seed: int = SEED


def evaluate(
    models: Mapping[str, Model],
    sets: Sequence[Spec] | Mapping[str, Spec],
    *,
    flip: Flip = "sum",
    threshold: pairs.Thresholds = "grid",
    fars: Sequence[float] | None = None,
    cache: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    paths: Mapping[str, str | Path] | None = None,
) -> dict[str, Any]:
    """Evaluate models against themselves and each other.

    Args:
        models: by name, students before their teachers. Each pair of them is evaluated with the earlier one as probe
            and the later one as gallery (student-student, student-teacher, teacher-teacher); a cross pair in both
            directions, pooled. Cross pairs whose dimensions differ are left out.
        sets: whatever `open_dataset` opens, or data sets; by name or not. A .bin gives, when
            the identities are known, the protocol "all-pairs", and "pairs"; any other set, being labelled, "all-pairs".
        threshold: of the pair protocol's folds, see pairs.pair_protocol.
        cache: folder for embeddings.
        resamples: of the bootstrap; 0 for no intervals.
        paths: where each model came from, for the record.

    Returns:
        The evaluation JSON (DESIGN.md section 4), and per result `set`, `data` (fingerprint), `images`, `genuine`; per
        FAR the `threshold` (cosine) and the `far` obtained; `false_accepts` by kind of impostor where identities are
        related (relatives.py); in cross results `at_gallery_threshold` (the rates that
        the gallery model's own thresholds give) and `mean_cosine` of the two models' embeddings of the same image,
        with `ceiling`, the gallery model's mean cosine to its own class rows, where it has those of this set.

    Raises:
        UserError: an unreadable image in a .bin; a model without a network; an embedding that is not finite.
    """
    for name, value, known in (("flip", flip, FLIPS), ("threshold", threshold, THRESHOLDS)):
        if value not in known:
            raise UsageError(f"{name} '{value}'{closest(value, known)}: expected one of {', '.join(known)}")
    if fars is not None and not all(0 < far < 1 for far in fars):
        raise UsageError(f"false-accept rates {list(fars)}: expected numbers between 0 and 1, e.g. 0.001")
    options = Options(flip, threshold, None if fars is None else tuple(fars), resamples, seed)
    results = []
    for name, spec in sets.items() if isinstance(sets, Mapping) else ((_name(spec), spec) for spec in sets):
        dataset = spec if isinstance(spec, Dataset) else open_dataset(spec)
        results += [
            {"protocol": result["protocol"], "set": name, **result}
            for result in _evaluate_set(models, dataset, options, cache)
        ]
    return {
        "schema": SCHEMA,
        "models": {name: _describe(model, (paths or {}).get(name)) for name, model in models.items()},
        "results": results,
    }


def _evaluate_set(
    models: Mapping[str, Model], dataset: Dataset, options: Options, cache: Path | None
) -> list[dict[str, Any]]:
    tables = {name: embed_dataset(m, dataset, options.flip != "none", cache=cache) for name, m in models.items()}
    first, *others = tables.values()
    if any(table.keys != first.keys for table in others):
        raise UserError(f"{dataset.source.path}: its readable images changed between two models; evaluate again")
    units = {name: table.fused(options.flip) for name, table in tables.items()}
    crossed = [
        (probe, gallery)
        for probe, gallery in combinations_with_replacement(models, 2)
        if models[probe].embedding_dim == models[gallery].embedding_dim
    ]
    results = []
    readable = dataset if len(first) == len(dataset) else dataset.subset(_rows(dataset, first))
    kinds = relatives.kinds_of(readable)
    for protocol, run in protocols(dataset, first).items():
        measured = {(p, g): run(units[p], units[g], options) for p, g in crossed}
        for (probe, gallery), (verification, settings) in measured.items():
            result = {
                "protocol": protocol,
                "probe": probe,
                "gallery": gallery,
                "same_space": probe == gallery or _same_space(models[probe], models[gallery]),
                "settings": {"flip": options.flip, **settings, "resamples": options.resamples, "seed": options.seed},
                "data": dataset.fingerprint,
                "images": len(first),
                **verification.to_json(),
            }
            if protocol == "all-pairs" and kinds is not None:
                thresholds = {far: at["threshold"] for far, at in result["tar_at_far"].items()}
                result["false_accepts"] = relatives.false_accepts(
                    units[probe], units[gallery], first.labels, kinds, thresholds
                )
            if probe != gallery:
                result["settings"]["directions"] = "both, pooled"
                calibrated = verification.at_thresholds_of(measured[gallery, gallery][0])
                result |= {"at_gallery_threshold": calibrated} if calibrated else {}
                result["mean_cosine"] = _mean_cosine(units[probe], units[gallery], first, models[gallery])
            results.append(result)
    return results


def _rows(dataset: Dataset, table: Embeddings) -> list[int]:
    kept = set(table.keys)
    return [i for i, key in enumerate(dataset.keys) if key in kept]


Protocol = Callable[[np.ndarray, np.ndarray, Options], tuple[Verification, dict[str, Any]]]


def protocols(dataset: Dataset, table: Embeddings) -> dict[str, Protocol]:
    """The protocols that apply to a set: name -> function of unit embeddings (probe, gallery) and the options.

    Each function returns the measurement and the settings that are its own. A new protocol is one more entry.
    """

    def by_pairs(probe: np.ndarray, gallery: np.ndarray, o: Options) -> tuple[Verification, dict[str, Any]]:
        assert isinstance(source, VerificationSet)
        persons = table.labels if source.identities else None
        settings = {
            "threshold": o.threshold,
            "folds": pairs.FOLDS,
            "resampled": "identities" if source.identities else "pairs",
        }
        return pairs.pair_protocol(
            probe,
            gallery,
            source.pairs,
            source.same,
            persons=persons,
            thresholds=o.threshold,
            fars=o.fars or pairs.FARS,
            resamples=o.resamples,
            seed=o.seed,
        ), settings

    def by_all_pairs(probe: np.ndarray, gallery: np.ndarray, o: Options) -> tuple[Verification, dict[str, Any]]:
        fars = o.fars or all_pairs.FARS
        found = all_pairs.all_pairs(probe, gallery, table.labels, fars=fars, resamples=o.resamples, seed=o.seed)
        return found, {"resampled": "identities"}

    source = dataset.source
    if not isinstance(source, VerificationSet) or len(dataset) != len(source):
        return {"all-pairs": by_all_pairs}
    if len(table) != len(source):
        missing = sorted(set(dataset.keys) - set(table.keys))
        raise UserError(
            f"{source.path}: {len(missing)} images cannot be read (number {missing[0]} of the distinct ones); pairs "
            "need all of them: get the file anew"
        )
    return ({"all-pairs": by_all_pairs} if source.identities else {}) | {"pairs": by_pairs}


def _mean_cosine(probe: np.ndarray, gallery: np.ndarray, table: Embeddings, model: Model) -> dict[str, float]:
    """Mean cosine of the two embeddings of each image; "ceiling": of the gallery's embedding and its class row."""
    found = {"value": _mean_dot(probe, gallery)}
    classifier = model.classifier
    if (
        classifier is not None
        and classifier.dim == gallery.shape[1]
        and set(table.class_names) <= set(classifier.class_names)
    ):
        rows = classifier.select(table.class_names).weight.cpu().numpy()
        found["ceiling"] = _mean_dot(gallery, rows[table.labels])
    return found


def _same_space(a: Model, b: Model) -> bool:
    return a.space is not None and a.space == b.space


def _mean_dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.einsum("nd,nd->n", a, b, dtype=np.float64).mean())


def _describe(model: Model, path: str | Path | None) -> dict[str, Any]:
    known = {
        "path": path and str(path),
        "space": model.space,
        "parameters": model.parameters_count(),
        "macs": model.macs(),
    }
    return {key: value for key, value in known.items() if value is not None}


def _name(spec: Spec) -> str:
    """lfw for .../lfw.bin, the folder's name for a folder, the whole text for synthetic:..."""
    path = str(spec.source.path if isinstance(spec, Dataset) else spec)
    return path if path.startswith("synthetic:") else Path(path).stem
