"""An evaluation JSON as a real one looks: every protocol, three models, low resolution, groups, and hostile names."""

from functools import cache
from typing import Any

import numpy as np

MODELS = {
    "student": {
        "path": 'runs/a <b>bold</b> & "quoted" name/model',
        "space": "f6f7187911dbe6ab",
        "parameters": 280_000,
        "macs": 19_320_832,
        "latency_ms": 1.234,
    },
    "baseline": {"path": "runs/scratch", "space": "0123456789abcdef", "parameters": 280_000, "macs": 19_320_832},
    "teacher": {"space": "f6f7187911dbe6ab", "parameters": 989_952, "macs": 233_810_432, "latency_ms": 9.87},
}
HOSTILE = "<script>alert(1)</script>_$x$.bin"  # the name of a set, as somebody's file may be called
PAIRS = [("student", "student"), ("student", "baseline"), ("student", "teacher"), ("baseline", "baseline")]
PAIRS += [("baseline", "teacher"), ("teacher", "teacher")]
MEAN = dict(zip(PAIRS, (0.55, 0.05, 0.42, 0.48, 0.02, 0.72)))  # of the genuine scores
FARS = ("1e-2", "1e-3", "1e-4")
GENUINE, IMPOSTOR = 2_000, 50_000


@cache
def example(shift: float = 0.0) -> dict[str, Any]:
    """Not to be changed by a test. `shift` moves the student's genuine scores: another run."""
    results = [_verification("lfw", "all-pairs", pair, shift) for pair in PAIRS]
    for pixels in (14, 28):
        for both in (False, True):
            resolution = {"probe": pixels} | ({"gallery": pixels} if both else {})
            loss = 4 / pixels * (1.3 if both else 1)
            results += [_verification("lfw", "all-pairs", pair, shift - loss, resolution) for pair in PAIRS]
    results += [_pairs("lfw", pair, 0.9 + shift) for pair in PAIRS]
    for number, name in enumerate(("African", "Asian", "Caucasian", "Indian")):
        results += [_pairs(f"rfw/{name}", pair, 0.8 + 0.02 * number) for pair in PAIRS if pair[0] == pair[1]]
    results += [_pairs(HOSTILE, ("student", "student"), 0.7)]
    results += [_identification(pair) for pair in PAIRS if "baseline" not in pair]
    results += [_retrieval(pair) for pair in PAIRS if "baseline" not in pair]
    results += [_classification()]
    return {
        "schema": 1,
        "made": {
            "facedistill": "0.1.0",
            "torch": "2.13.0",
            "threads": 2,
            "command": "facedistill evaluate <run> & more",
        },
        "models": MODELS,
        "results": results,
        "differences": _differences(results),
        "compatibility": [
            {
                "protocol": "all-pairs",
                "set": "lfw",
                "probe": "student",
                "gallery": "teacher",
                "of": {
                    "tar_at_far.1e-3": _difference(0.031, 0.01) | {"compatible": True},
                    "tar_at_far.1e-4": _difference(0.004, 0.012),
                },
            }
        ],
        "groups": [
            {
                "group": "rfw",
                "protocol": "pairs",
                "probe": name,
                "gallery": name,
                "sets": {
                    f"rfw/{one}": 0.8 + 0.02 * n for n, one in enumerate(("African", "Asian", "Caucasian", "Indian"))
                },
                "mean": 0.83,
                "std": 0.02236,
                "skewed_error_ratio": 1.4286,
            }
            for name in MODELS
        ],
        "errors": [
            {
                "set": "lfw",
                "probe": "student",
                "gallery": "teacher",
                "false_accepts": [
                    {"a": f"Secret_Person/{n}.jpg", "b": f"<img src=x>/{n}.jpg", "score": 0.61 - n / 100}
                    for n in range(3)
                ],
                "false_rejects": [{"a": "Secret_Person/7.jpg", "b": "Secret_Person/8.jpg", "score": -0.0451}],
            }
        ],
    }


def brief(shift: float = 0.0) -> dict[str, Any]:
    """The same with one set and one protocol, which is quicker to draw."""
    whole = example(shift)
    of = {"set": "lfw", "protocol": "all-pairs"}
    return whole | {"results": [r for r in whole["results"] if of.items() <= r.items()][:12], "groups": []}


def log(scale: float) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [
        {
            "step": step,
            "epoch": step // 100,
            "lr": 0.3 * (1 - step / 1000),
            "loss": 15 * scale / (1 + step / 200),
            "gradient_norm": 1.5 + 0.2 * (step // 20 % 3),
            "margin_softmax": 14 * scale / (1 + step / 200),
            "images_per_second": 200.5 + step % 7,
        }
        for step in range(20, 1001, 20)
    ]


def _base(name: str, protocol: str, pair: tuple[str, str], resolution: dict[str, int] | None = None) -> dict[str, Any]:
    settings: dict[str, Any] = {"flip": "sum", "resampled": "identities", "resamples": 1000, "seed": 0}
    if pair[0] != pair[1]:
        settings["directions"] = "both, pooled"
    if resolution:
        settings["resolution"] = resolution
    space = MODELS[pair[0]]["space"] == MODELS[pair[1]]["space"]
    about = {"probe": pair[0], "gallery": pair[1], "same_space": space, "settings": settings}
    return {"protocol": protocol, "set": name, **about, "data": "929d4d9b5fe2a67c", "images": 7701}


def _measure(mean: float, fars: tuple[str, ...], genuine: int, impostors: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    own, other = rng.normal(mean, 0.14, genuine).clip(-1, 1), rng.normal(0, 0.12, impostors).clip(-1, 1)
    own, other = np.sort(own)[::-1], np.sort(other)[::-1]

    def at(threshold: float) -> tuple[float, float]:
        return float((other >= threshold).mean()), float((own >= threshold).mean())

    tar_at_far = {}
    for key in fars:
        allowed = int(float(key) * impostors + 1e-9)
        if allowed:
            far, tar = at(other[allowed - 1])
            spread = 0.01 + 0.3 * float(key) ** 0.5 * (1 - tar)
            tar_at_far[key] = {
                "value": tar,
                "ci95": [max(tar - spread, 0), min(tar + spread, 1)],
                "impostors": allowed,
                "far": far,
                "threshold": float(other[allowed - 1]),
                "threshold_ci95": [float(other[allowed - 1]) - 0.01, float(other[allowed - 1]) + 0.012],
                "closest": {"tar": tar, "far": far},
            }
    ranks = np.unique(np.geomspace(1, impostors, 80).astype(int)) - 1
    points = [(0.0, float((own > other[0]).mean())), *(at(threshold) for threshold in other[ranks])]
    counts = [np.histogram(scores, 50, (-1, 1))[0].tolist() for scores in (own, other)]
    return {
        "pairs": genuine + impostors,
        "genuine": genuine,
        "tar_at_far": tar_at_far,
        "eer": min((abs(far - 1 + tar), (far + 1 - tar) / 2) for far, tar in points)[1],
        "auc": 0.987654,
        "curves": {
            "roc": {"far": [far for far, _ in points], "tar": [tar for _, tar in points]},
            "scores": {"low": -1.0, "high": 1.0, "genuine": counts[0], "impostor": counts[1]},
        },
    }


def _verification(
    name: str, protocol: str, pair: tuple[str, str], shift: float, resolution: dict[str, int] | None = None
) -> dict[str, Any]:
    mean = MEAN[pair] + (shift if pair[0] == "student" or resolution else 0)
    found = _base(name, protocol, pair, resolution) | _measure(mean, FARS, GENUINE, IMPOSTOR, PAIRS.index(pair))
    if pair[0] != pair[1]:
        found["at_gallery_threshold"] = {
            far: {"threshold": 0.4, "far": 8.6e-7 if far == "1e-4" else float(far) / 3, "tar": 0.3} for far in FARS
        }
        found["mean_cosine"] = {"value": 0.4066} | ({"ceiling": 0.523} if pair[1] == "teacher" else {})
    if not resolution:
        found["false_accepts"] = {
            kind: {far: {"far": float(far) * times, "impostors": 31, "pairs": 45_678} for far in FARS}
            for kind, times in (("within_family", 4.4), ("across_families", 0.9), ("across_sources", 0.3))
        }
    return found


def _pairs(name: str, pair: tuple[str, str], accuracy: float) -> dict[str, Any]:
    found = _base(name, "pairs", pair)
    found["settings"] |= {"threshold": "grid", "folds": 10}
    fold = {"accuracy": accuracy, "std": 0.0147, "ci95": [accuracy - 0.012, accuracy + 0.009]}
    return found | fold | _measure(MEAN[pair], ("1e-1", "1e-2", "1e-3"), 3000, 3000, 7)


def _of(value: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "ci95": [value - 0.021, value + 0.018], **more}


def _identification(pair: tuple[str, str]) -> dict[str, Any]:
    first = {"student": 0.61, "teacher": 0.88}[pair[0]]
    cmc = [1 - (1 - first) / (1 + 0.2 * k) for k in range(50)]
    return _base("tinyface", "identification", pair) | {
        "probes": 3728,
        "mated": 3700,
        "non_mated": 28,
        "gallery_size": 4443,
        "gallery_identities": 2569,
        "distractors": 153_428,
        "rank": {"1": _of(cmc[0]), "5": _of(cmc[4]), "10": _of(cmc[9])},
        "tpir_at_fpir": {"1e-1": _of(0.4321, non_mated=2, fpir=0.0714, threshold=0.4567)},
        "curves": {"cmc": cmc},
    }


def _retrieval(pair: tuple[str, str]) -> dict[str, Any]:
    return _base("photos", "retrieval", pair) | {
        "queries": 512,
        "alone": 12,
        "recall_at": {"1": _of(0.7531), "10": _of(0.9012)},
        "map": _of(0.6123),
        "r_precision": _of(0.5834),
        "knn": {"5": _of(0.7712)},
    }


def _classification() -> dict[str, Any]:
    figures = {"top1": _of(0.8123), "top5": _of(0.9345), "per_class": _of(0.8011), "classes": 1000}
    figures |= {"few_shots": _of(0.1), "macro_f1": _of(0.75), "class_auc": _of(0.98)}
    figures["of_classes"] = [
        {"class": "<b>boots</b>", "images": 10, "training_images": 6000, "top1": 0.9, "f1": 0.85, "auc": 0.99},
        {"class": "=1+1", "images": 10, "training_images": 60, "top1": 0.1, "f1": 0.15, "auc": 0.91},
    ]
    return _base("photos", "classification", ("student", "teacher")) | figures


def _difference(value: float, spread: float) -> dict[str, Any]:
    ends = [value - spread, value + spread]
    return {"value": value, "ci95": ends, "distinguishable": ends[0] > 0 or ends[1] < 0}


def _differences(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    own = [pair for pair in PAIRS if pair[0] == pair[1]]
    crossed = [pair for pair in PAIRS if pair[0] != pair[1]]
    for protocol in ("all-pairs", "pairs"):
        of = {
            (r["probe"], r["gallery"]): r
            for r in results
            if r["set"] == "lfw" and r["protocol"] == protocol and "resolution" not in r["settings"]
        }
        pairs = [(a, b) for i, a in enumerate(own) for b in own[i + 1 :]] + [(a, b) for a in crossed for b in own]
        for a, b in pairs:
            paths = {f"tar_at_far.{far}": of[a]["tar_at_far"][far]["value"] for far in of[a]["tar_at_far"]}
            values = {path: value - of[b]["tar_at_far"][path[11:]]["value"] for path, value in paths.items()}
            entry: dict[str, Any] = {"protocol": protocol, "set": "lfw", "a": list(a), "b": list(b)}
            entry["of"] = {path: _difference(value, 0.02) for path, value in values.items()}
            if protocol == "pairs":
                entry["of"]["accuracy"] = _difference(0.0042, 0.006)
                entry["mcnemar"] = {"a_only": 132, "b_only": 119, "p": 0.4489}
            found.append(entry)
    return found
