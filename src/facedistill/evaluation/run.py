"""Every pair of models on every set by every protocol, as the evaluation JSON of docs/evaluation.md."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simplejpeg import encode_jpeg

from facedistill import __version__
from facedistill.data import Dataset, Embeddings, Flip
from facedistill.errors import UsageError, UserError, closest
from facedistill.evaluation import relatives
from facedistill.evaluation.groups import group_results
from facedistill.evaluation.latency import latency_ms
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.paired import compatibility, differences, mcnemar
from facedistill.evaluation.protocols import pairs
from facedistill.evaluation.sets import EvaluationSet, LabelledSet, Options, Resolution, Side, Spec, open_sets
from facedistill.evaluation.statistics import RESAMPLES, SEED
from facedistill.evaluation.verification import Verification
from facedistill.evaluation.worst import worst_errors, worst_pairs
from facedistill.models import FLIPS, Model

SCHEMA = 1
THRESHOLDS = ("grid", "exact")
FULL = Resolution()


def evaluate(
    models: Mapping[str, Model],
    sets: Sequence[Spec] | Mapping[str, Spec],
    *,
    protocols: Sequence[str] | None = None,
    flip: Flip = "sum",
    threshold: pairs.Thresholds = "grid",
    fars: Sequence[float] | None = None,
    resolutions: Sequence[Resolution] = (),
    cache: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    paths: Mapping[str, str | Path] | None = None,
    latency: bool = False,
    errors: bool = False,
    keep_resamples: bool = False,
    **of_templates: bool,
) -> dict[str, Any]:
    """Evaluate models against themselves and each other.

    Args:
        models: by name, students before their teachers. Each pair of them is evaluated with the earlier one as probe
            and the later one as gallery (student-student, student-teacher, teacher-teacher); a cross pair in both
            directions, pooled. Cross pairs whose dimensions differ are left out. A model named "baseline" is a student
            that was not distilled: "compatibility" then says whether student against teacher beats it.
        sets: whatever `open_sets` takes, by name or not. Sets named "group/..." are also summed up as a group (RFW).
        protocols: by name; None takes those that are usual for each set: "pairs" for a list of pairs, "all-pairs"
            where identities are known, "identification" for a gallery, "templates 1:1" and "templates 1:N" for IJB.
        threshold: of the pair protocol's folds, see pairs.pair_protocol.
        resolutions: each set is measured anew with the probe's images, and with both sides', at each of them.
        cache: folder for embeddings.
        resamples: of the bootstrap; 0 for no intervals.
        paths: where each model came from, for the record.
        latency: also measure how long one image takes.
        errors: also list the worst false accepts and false rejects of labelled sets and lists of pairs, by image keys.
        keep_resamples: also list each figure's value in every resample, by which `compare` pairs runs.
        of_templates: weight_by_norm, weight_by_detector_score, media_pooling, see templates.template_vectors.

    Returns:
        The evaluation JSON, see docs/evaluation.md.

    Raises:
        UsageError: an unknown protocol, flip, threshold or rate.
        UserError: an unreadable image in a list of pairs; a model without a network; an embedding that is not finite.
    """
    for name, value, known in (("flip", flip, FLIPS), ("threshold", threshold, THRESHOLDS)):
        if value not in known:
            raise UsageError(f"{name} '{value}'{closest(value, known)}: expected one of {', '.join(known)}")
    if fars is not None and not all(0 < far < 1 for far in fars):
        raise UsageError(f"false-accept rates {list(fars)}: expected numbers between 0 and 1, e.g. 0.001")
    options = Options(flip, threshold, None if fars is None else tuple(fars), resamples, seed, **of_templates)
    found: dict[str, list[dict[str, Any]]] = {
        key: [] for key in ("results", "differences", "compatibility", "groups", "errors")
    }
    for name, one in open_sets(sets).items():
        _Evaluation(models, name, one, options, cache, errors, keep_resamples).run(protocols, resolutions, found)
    for group in dict.fromkeys(r["set"].partition("/")[0] for r in found["results"] if "/" in r["set"]):
        members = [r for r in found["results"] if r["set"].startswith(f"{group}/")]
        found["groups"] += group_results(group, members)
    return {
        "schema": SCHEMA,
        "made": {"facedistill": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()},
        "models": {name: _describe(model, (paths or {}).get(name), latency) for name, model in models.items()},
        **{key: value for key, value in found.items() if value or key == "results"},
    }


class _Evaluation:
    """One set: its results, and how they differ, appended to the lists of the evaluation JSON."""

    def __init__(
        self,
        models: Mapping[str, Model],
        name: str,
        there: EvaluationSet,
        options: Options,
        cache: Path | None,
        errors: bool,
        keep_resamples: bool,
    ) -> None:
        self.models, self.name, self.set, self.options = models, name, there, options
        self.cache, self.errors, self.keep_resamples = cache, errors, keep_resamples
        self.sides: dict[tuple[str, Resolution], Side] = {}
        self.crossed = [
            (probe, gallery)
            for probe, gallery in combinations_with_replacement(models, 2)
            if models[probe].embedding_dim == models[gallery].embedding_dim
        ]
        data = there.dataset if isinstance(there, LabelledSet) else None
        self.kinds = None if data is None else relatives.kinds_of(self._readable(data))

    def run(
        self, asked: Sequence[str] | None, resolutions: Iterable[Resolution], found: dict[str, list[dict[str, Any]]]
    ) -> None:
        for protocol in self._chosen(asked):
            conditions = [(FULL, FULL)]
            conditions += [pair for r in resolutions for pair in ((r, FULL), (r, r))]
            measured: dict[tuple[Resolution, Resolution], dict[tuple[str, str], Measurement]] = {}
            for condition in conditions:
                at = {"protocol": protocol, "set": self.name}
                settings = _resolution_settings(condition)
                own = {pair: self._measure(protocol, pair, condition) for pair in self.crossed}
                results = measured[condition] = {pair: measurement for pair, (measurement, _) in own.items()}
                for pair in self.crossed:
                    reference = measured.get((condition[1], condition[1]), {}).get((pair[1], pair[1]))
                    found["results"].append(at | self._result(pair, condition, *own[pair], reference))
                found["differences"] += [at | settings | d for d in _differences(results)]
                found["compatibility"] += [at | settings | c for c in _compatibility(results)]
        if self.errors and isinstance(self.set, LabelledSet):
            found["errors"] += [self._worst(self.set, pair) for pair in self.crossed]

    def _chosen(self, asked: Sequence[str] | None) -> Sequence[str]:
        if asked is None:
            return self.set.usual
        known = self.set.protocols()
        for protocol in asked:
            if protocol not in known:
                able = ", ".join(known)
                raise UsageError(f"protocol '{protocol}'{closest(protocol, known)}: {self.name} is measured by {able}")
        return asked

    def _side(self, model: str, resolution: Resolution) -> Side:
        key = (model, resolution)
        if key not in self.sides:
            self.sides[key] = Side(self.models[model], self.set.parts, self.options.flip, resolution, self.cache)
        return self.sides[key]

    def _sides(self, pair: tuple[str, str], condition: tuple[Resolution, Resolution]) -> tuple[Side, Side]:
        """Probe and gallery; one and the same object where model and resolution are."""
        probe, gallery = (self._side(model, resolution) for model, resolution in zip(pair, condition, strict=True))
        for part in self.set.held:
            if probe.table(part).keys != gallery.table(part).keys:
                raise UserError(f"{self.name}: its readable images changed between two models; evaluate again")
        return probe, gallery

    def _measure(
        self, protocol: str, pair: tuple[str, str], condition: tuple[Resolution, Resolution]
    ) -> tuple[Measurement, dict[str, Any]]:
        return self.set.protocols()[protocol](*self._sides(pair, condition), self.options)

    def _result(
        self,
        pair: tuple[str, str],
        condition: tuple[Resolution, Resolution],
        measured: Measurement,
        own_settings: dict[str, Any],
        reference: Measurement | None,
    ) -> dict[str, Any]:
        """`reference`: the gallery's own model at the gallery's resolution, which is where a system is calibrated."""
        probe, gallery = self._sides(pair, condition)
        o = self.options
        settings: dict[str, Any] = {"flip": o.flip, **own_settings, "resamples": o.resamples, "seed": o.seed}
        settings |= _resolution_settings(condition)
        result: dict[str, Any] = {
            "probe": pair[0],
            "gallery": pair[1],
            "same_space": pair[0] == pair[1] or _same_space(probe.model, gallery.model),
            "settings": settings,
            "data": self.set.fingerprint,
            "images": sum(len(probe.table(part)) for part in self.set.held),
            **measured.to_json(),
        }
        if self.keep_resamples and (kept := _resampled(measured)):
            result["resampled"] = kept
        if not isinstance(measured, Verification):
            return result
        if self.kinds is not None and "accuracy" not in result:
            thresholds = {far: at["threshold"] for far, at in result["tar_at_far"].items()}
            units = probe.unit("images"), gallery.unit("images")
            labels = gallery.table("images").labels
            result["false_accepts"] = relatives.false_accepts(*units, labels, self.kinds, thresholds)
        if probe is not gallery:
            settings["directions"] = "both, pooled"
            if isinstance(reference, Verification) and (at := measured.at_thresholds_of(reference)):
                result["at_gallery_threshold"] = at
        if pair[0] != pair[1]:
            result["mean_cosine"] = _mean_cosine(probe, gallery)
        return result

    def _worst(self, there: LabelledSet, pair: tuple[str, str]) -> dict[str, Any]:
        probe, gallery = self._sides(pair, (FULL, FULL))
        table, units = gallery.table("images"), (probe.unit("images"), gallery.unit("images"))
        if there.named or there.pair_list is None:
            worst = worst_errors(*units, table.labels)
        else:
            worst = worst_pairs(*units, there.pair_list.pairs, there.pair_list.same)
        lists = zip(("false_accepts", "false_rejects"), worst, strict=True)
        named = {
            kind: [{"a": table.keys[i], "b": table.keys[j], "score": score} for i, j, score in found]
            for kind, found in lists
        }
        return {"set": self.name, "probe": pair[0], "gallery": pair[1], **named}

    def _readable(self, dataset: Dataset) -> Dataset:
        table = self._side(next(iter(self.models)), FULL).table("images")
        return dataset if len(table) == len(dataset) else dataset.subset(_rows(dataset, table))


def _rows(dataset: Dataset, table: Embeddings) -> list[int]:
    kept = set(table.keys)
    return [i for i, key in enumerate(dataset.keys) if key in kept]


def _resolution_settings(condition: tuple[Resolution, Resolution]) -> dict[str, Any]:
    """{"resolution": {"probe": 14, "gallery": 14}} and what else was done to the images; {} where nothing was."""
    probe, gallery = condition
    if probe.pixels is None:
        return {}
    settings: dict[str, Any] = {"probe": probe.pixels} | ({"gallery": gallery.pixels} if gallery.pixels else {})
    settings |= {key: value for key, value in (("blur", probe.blur), ("jpeg", probe.jpeg)) if value}
    return {"resolution": settings}


def _resampled(measured: Measurement) -> dict[str, list[float]]:
    """Each figure in every resample, to six digits; a figure that some resample lacks is left out."""
    found = {path: estimate.resampled for path, estimate in measured.estimates().items()}
    return {
        path: values.round(6).tolist() for path, values in found.items() if len(values) and np.isfinite(values).all()
    }


Measured = Mapping[tuple[str, str], Measurement]


def _differences(measured: Measured) -> list[dict[str, Any]]:
    """Each model's own result against each other's, and each cross result against every own one."""
    own = [pair for pair in measured if pair[0] == pair[1]]
    crossed = [pair for pair in measured if pair[0] != pair[1]]
    found = []
    for a, b in [*combinations(own, 2), *((a, b) for a in crossed for b in own)]:
        of = differences(measured[a], measured[b])
        if not any("ci95" in difference for difference in of.values()):
            continue  # without resamples a difference says nothing
        entry: dict[str, Any] = {"a": list(a), "b": list(b), "of": of}
        right = [getattr(measured[pair], "decisions", None) for pair in (a, b)]
        if right[0] is not None and right[1] is not None and len(right[0]) == len(right[1]):
            entry["mcnemar"] = mcnemar(right[0], right[1])
        found.append(entry)
    return found


def _compatibility(measured: Measured) -> list[dict[str, Any]]:
    """Student against teacher beside the baseline against itself."""
    baseline = measured.get(("baseline", "baseline"))
    if baseline is None:
        return []
    return [
        {"probe": probe, "gallery": gallery, "of": compatibility(crossed, baseline)}
        for (probe, gallery), crossed in measured.items()
        if probe != gallery and "baseline" not in (probe, gallery)
    ]


def _mean_cosine(probe: Side, gallery: Side) -> dict[str, float]:
    """Mean cosine of the two embeddings of each image; "ceiling": of the gallery's embedding and its class row."""
    table, vectors, classifier = gallery.table("images"), gallery.unit("images"), gallery.model.classifier
    found = {"value": _mean_dot(probe.unit("images"), vectors)}
    if (
        classifier is not None
        and classifier.dim == vectors.shape[1]
        and set(table.class_names) <= set(classifier.class_names)
    ):
        rows = classifier.select(table.class_names).weight.cpu().numpy()
        found["ceiling"] = _mean_dot(vectors, rows[table.labels])
    return found


def _same_space(a: Model, b: Model) -> bool:
    return a.space is not None and a.space == b.space


def _mean_dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.einsum("nd,nd->n", a, b, dtype=np.float64).mean())


def _describe(model: Model, path: str | Path | None, latency: bool) -> dict[str, Any]:
    known = {
        "path": path and str(path),
        "space": model.space,
        "parameters": model.parameters_count(),
        "macs": model.macs(),
        "latency_ms": latency_ms(model) if latency else None,
    }
    return {key: value for key, value in known.items() if value is not None}


def faces(evaluation: Mapping[str, Any], sets: Mapping[str, EvaluationSet]) -> dict[tuple[str, str], bytes]:
    """Return the images that the list of worst errors names, (set, key) -> JPEG."""
    found = {}
    for entry in evaluation.get("errors", []):
        dataset = sets[entry["set"]].parts["images"]
        place = {key: i for i, key in enumerate(dataset.keys)}
        for pair in [*entry["false_accepts"], *entry["false_rejects"]]:
            for key in (pair["a"], pair["b"]):
                found[entry["set"], key] = encode_jpeg(dataset.image(place[key]), quality=90)
    return found
