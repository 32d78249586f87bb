"""Evaluate every pair of models on every set by every protocol; the result is the JSON of docs/evaluation.md."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simplejpeg import encode_jpeg

from facedistill import __version__
from facedistill.data import Dataset, Embeddings
from facedistill.errors import UsageError, UserError, closest
from facedistill.evaluation import relatives
from facedistill.evaluation.groups import group_results
from facedistill.evaluation.latency import latency_ms
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.options import EvaluationOptions, Resolution
from facedistill.evaluation.paired import compatibility, differences, mcnemar
from facedistill.evaluation.protocols import PROTOCOLS, Protocol, carried, find_protocol
from facedistill.evaluation.sets import EvaluationSet, LabelledSet, Side, Spec, open_sets
from facedistill.evaluation.verification import Verification
from facedistill.evaluation.worst import worst_errors, worst_pairs
from facedistill.models import Model
from facedistill.progress import console

RESULT_SCHEMA = 1
FULL_RESOLUTION = Resolution()


def evaluate(
    models: Mapping[str, Model],
    sets: Sequence[Spec] | Mapping[str, Spec],
    options: EvaluationOptions | None = None,
    *,
    paths: Mapping[str, str | Path] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Evaluate models against themselves and each other.

    Args:
        models: by name, students before their teachers. Each pair of them is evaluated with the earlier one as probe
            and the later one as gallery (student-student, student-teacher, teacher-teacher); a cross pair in both
            directions, pooled. Cross pairs whose dimensions differ are left out. A model named "baseline" is a student
            that was not distilled: "compatibility" then says whether student against teacher beats it.
        sets: as `open_sets` takes them, with or without names. Sets named "group/..." also make a group (RFW).
        options: what is measured and how, see `EvaluationOptions`.
        paths: where each model came from, for the record.
        changes: options by their names, in place of those of `options`: `protocols=["pairs"], flip="none"`.

    Returns:
        The evaluation JSON, see docs/evaluation.md.

    Raises:
        UsageError: an unknown option or protocol; an option of the wrong type; a protocol that does not fit a set.
        UserError: an unreadable image in a list of pairs; a model without a network; an embedding that is not finite.
    """
    options = (options or EvaluationOptions()).changed(changes)
    found: dict[str, list[dict[str, Any]]] = {
        key: [] for key in ("results", "differences", "compatibility", "groups", "errors")
    }
    opened = open_sets(sets)
    chosen = {name: protocols_of(one, name, options.protocols) for name, one in opened.items()}
    for name, one in opened.items():
        _Evaluation(models, name, one, options).run(chosen[name], found)
    for group in dict.fromkeys(r["set"].partition("/")[0] for r in found["results"] if "/" in r["set"]):
        members = [r for r in found["results"] if r["set"].startswith(f"{group}/")]
        found["groups"] += group_results(group, members)
    return {
        "schema": RESULT_SCHEMA,
        "made": {"facedistill": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()},
        "models": {name: _describe(model, (paths or {}).get(name), options.latency) for name, model in models.items()},
        **{key: value for key, value in found.items() if value or key == "results"},
    }


def protocols_of(data: EvaluationSet, name: str, asked: Sequence[str] | None) -> list[type[Protocol]]:
    """Return the protocols that `asked` names, or the usual ones of the set called `name`.

    Raises:
        UsageError: a protocol is unknown or cannot measure this kind of set; two protocols have one name.
    """
    known = {one: kind for one, kind in PROTOCOLS.items() if set(kind.kinds) & set(data.kinds)}
    if asked is None:
        return [kind for kind in known.values() if set(kind.usual) & set(data.kinds)]
    found: list[type[Protocol]] = []
    for one in asked:
        if one not in known and ":" not in one:
            raise UsageError(
                f"protocol '{one}'{closest(one, known)}: {name} is measured by {', '.join(known)}; "
                "`package.module:Class` names one of your own"
            )
        kind = find_protocol(one)
        if not set(kind.kinds) & set(data.kinds):
            raise UsageError(
                f"protocol '{one}' measures {_either(kind.kinds)}, and {name} is a set of {_either(data.kinds)}: "
                f"choose one of {', '.join(known)}"
            )
        if any(kind is not other and kind.name == other.name for other in found):
            raise UsageError(f"protocol '{one}': another one is called '{kind.name}', too; give it another `name`")
        found.append(kind)
    return found


def _either(kinds: Sequence[str]) -> str:
    return " or ".join(kinds)


class _Evaluation:
    """The evaluation of one set, which appends results and their differences to the lists of the evaluation JSON."""

    def __init__(
        self, models: Mapping[str, Model], name: str, there: EvaluationSet, options: EvaluationOptions
    ) -> None:
        self.models, self.name, self.set, self.options = models, name, there, options
        self.sides: dict[tuple[str, Resolution], Side] = {}
        self.crossed = [
            (probe, gallery)
            for probe, gallery in combinations_with_replacement(models, 2)
            if models[probe].embedding_dim == models[gallery].embedding_dim
        ]

    def run(self, protocols: Iterable[type[Protocol]], found: dict[str, list[dict[str, Any]]]) -> None:
        for protocol in (kind(self.set, self.options) for kind in protocols):
            at, declared = {"protocol": protocol.name, "set": self.name}, carried(type(protocol))
            conditions = [(FULL_RESOLUTION, FULL_RESOLUTION)]
            conditions += [pair for r in self.options.resolutions for pair in ((r, FULL_RESOLUTION), (r, r))]
            measured: dict[tuple[Resolution, Resolution], dict[tuple[str, str], Measurement]] = {}
            for condition in conditions:
                settings = _resolution_settings(condition)
                own = {pair: self._measure(protocol, pair, condition) for pair in self.crossed}
                results = measured[condition] = {pair: measurement for pair, (measurement, _) in own.items()}
                self._say_what_is_missing(protocol, list(results.values()))
                for pair in self.crossed:
                    reference = measured.get((condition[1], condition[1]), {}).get((pair[1], pair[1]))
                    result = self._result(protocol, pair, condition, *own[pair], reference)
                    found["results"].append(at | result | declared)
                found["differences"] += [at | settings | d | declared for d in _differences(results)]
                found["compatibility"] += [at | settings | c | declared for c in _compatibility(results, protocol)]
        if self.options.errors and isinstance(self.set, LabelledSet):
            found["errors"] += [self._worst(self.set, pair) for pair in self.crossed]

    @cached_property
    def kinds(self) -> np.ndarray | None:
        """The family and source of every image, or None if no identities are related."""
        return relatives.kinds_of(self._readable(self.set.dataset)) if isinstance(self.set, LabelledSet) else None

    def _side(self, model: str, resolution: Resolution) -> Side:
        key = (model, resolution)
        if key not in self.sides:
            self.sides[key] = Side(
                self.models[model], self.set.parts, self.options.flip, resolution, self.options.cache
            )
        return self.sides[key]

    def _sides(self, pair: tuple[str, str], condition: tuple[Resolution, Resolution]) -> tuple[Side, Side]:
        """Return probe and gallery: one object if model and resolution are the same."""
        probe, gallery = (self._side(model, resolution) for model, resolution in zip(pair, condition, strict=True))
        for part in self.set.held:
            if probe.table(part).keys != gallery.table(part).keys:
                raise UserError(f"{self.name}: its readable images changed between two models; evaluate again")
        return probe, gallery

    def _measure(
        self, protocol: Protocol, pair: tuple[str, str], condition: tuple[Resolution, Resolution]
    ) -> tuple[Measurement, dict[str, Any]]:
        probe, gallery = self._sides(pair, condition)
        if why := protocol.refusal(probe, gallery):
            raise UserError(why)
        measurement, settings = protocol.measure(probe, gallery)
        for path in measurement.estimates():
            if protocol.declaration().figure(path) is None:
                raise UserError(f"protocol '{protocol.name}' measured '{path}', which is not one of its `figures`")
        return measurement, settings

    def _say_what_is_missing(self, protocol: Protocol, measured: Sequence[Measurement]) -> None:
        """Say why a set without pairs of one kind has no rates: all its people have one image, or it has one person."""
        for one in measured[:1]:
            if isinstance(one, Verification) and not all(one.roc.pairs):
                kind = "different people" if one.roc.pairs[0] else "the same person"
                text = f"{self.name}, {protocol.name}: no pairs of {kind} in this set, so its rates cannot be measured"
                console.print(text, soft_wrap=True, markup=False)

    def _result(
        self,
        protocol: Protocol,
        pair: tuple[str, str],
        condition: tuple[Resolution, Resolution],
        measured: Measurement,
        own_settings: dict[str, Any],
        reference: Measurement | None,
    ) -> dict[str, Any]:
        """Return one result. `reference`: the gallery's own model at the gallery's resolution, for calibration."""
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
        if o.keep_resamples and (kept := _resampled(measured)):
            result["resampled"] = kept
        if not isinstance(measured, Verification):
            return result
        if protocol.compares_all and self.kinds is not None:
            thresholds = {far: point.threshold for far, (point, _) in measured.tar_at_far.items()}
            units = probe.unit("images"), gallery.unit("images")
            labels = gallery.table("images").labels
            result["false_accepts"] = relatives.false_accepts(*units, labels, self.kinds, thresholds)
        if probe is not gallery:
            settings["directions"] = "both, pooled"
            if isinstance(reference, Verification) and (at := measured.at_thresholds_of(reference)):
                result["at_gallery_threshold"] = at
        if pair[0] != pair[1] and "images" in self.set.parts:
            result["mean_cosine"] = _mean_cosine(probe, gallery)
        return result

    def _worst(self, there: LabelledSet, pair: tuple[str, str]) -> dict[str, Any]:
        probe, gallery = self._sides(pair, (FULL_RESOLUTION, FULL_RESOLUTION))
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
        table = self._side(next(iter(self.models)), FULL_RESOLUTION).table("images")
        return dataset if len(table) == len(dataset) else dataset.subset(_rows(dataset, table))


def _rows(dataset: Dataset, table: Embeddings) -> list[int]:
    kept = set(table.keys)
    return [i for i, key in enumerate(dataset.keys) if key in kept]


def _resolution_settings(condition: tuple[Resolution, Resolution]) -> dict[str, Any]:
    """Return {"resolution": {"probe": 14, "gallery": 14}}, with blur and JPEG quality; {} for unchanged images."""
    probe, gallery = condition
    if probe.pixels is None:
        return {}
    settings: dict[str, Any] = {"probe": probe.pixels} | ({"gallery": gallery.pixels} if gallery.pixels else {})
    settings |= {key: value for key, value in (("blur", probe.blur), ("jpeg", probe.jpeg)) if value}
    return {"resolution": settings}


def _resampled(measured: Measurement) -> dict[str, list[float]]:
    """Return each figure in every resample, to six digits; a figure that some resample lacks is left out."""
    found = {path: estimate.resampled for path, estimate in measured.estimates().items()}
    return {
        path: values.round(6).tolist() for path, values in found.items() if len(values) and np.isfinite(values).all()
    }


Measured = Mapping[tuple[str, str], Measurement]


def _differences(measured: Measured) -> list[dict[str, Any]]:
    """Return the differences between the models' own results, and between each cross result and every own one."""
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


def _compatibility(measured: Measured, protocol: Protocol) -> list[dict[str, Any]]:
    """Compare student against teacher with the baseline against itself."""
    figure = protocol.declaration().calibrating
    baseline = measured.get(("baseline", "baseline"))
    if baseline is None:
        return []
    return [
        {"probe": probe, "gallery": gallery, "of": compatibility(crossed, baseline, figure.key if figure else "")}
        for (probe, gallery), crossed in measured.items()
        if probe != gallery and "baseline" not in (probe, gallery)
    ]


def _mean_cosine(probe: Side, gallery: Side) -> dict[str, float]:
    """Return the mean cosine of each image's two embeddings; "ceiling": of the gallery's embedding and its row of W."""
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
        if dataset.source.features is not None:
            continue
        place = {key: i for i, key in enumerate(dataset.keys)}
        for pair in [*entry["false_accepts"], *entry["false_rejects"]]:
            for key in (pair["a"], pair["b"]):
                found[entry["set"], key] = encode_jpeg(dataset.image(place[key]), quality=90)
    return found
