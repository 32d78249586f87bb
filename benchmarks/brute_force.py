"""Count the figures of `facedistill evaluate` again without any of its code: one plain loop over all scores.

    facedistill evaluate a.onnx --on lfw.bin --against b.onnx --json result.json
    python benchmarks/brute_force.py result.json --lfw lfw.bin

Reads the .bin and its names itself, runs the networks by onnxruntime, sorts every score, and prints each figure beside
the JSON's. It takes gigabytes of memory. It unpickles the .bin, so use only a file that you trust.
"""

import argparse
import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


def distinct(lfw: Path) -> tuple[list[bytes], list[str], np.ndarray, np.ndarray]:
    """Return the distinct images in file order, the person on each, the pairs as their indexes, and the labels."""
    images, same = pickle.loads(lfw.read_bytes(), encoding="bytes")
    names = lfw.with_name(f"{lfw.stem}_bin_names.txt").read_text().splitlines()
    place: dict[bytes, int] = {}
    people: list[str] = []
    rows = []
    for image, name in zip(images, names, strict=True):
        image = bytes(image)
        if image not in place:
            place[image] = len(place)
            people.append(name.partition("/")[0])
        rows.append(place[image])
    return list(place), people, np.array(rows).reshape(-1, 2), np.array(same)


def embed(model: str, images: list[bytes]) -> np.ndarray:
    """Return unit embeddings, image and mirror image added; the graph takes RGB pixels 0..255."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (data,) = session.get_inputs()
    found = []
    for start in range(0, len(images), 32):
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(i)).convert("RGB")) for i in images[start : start + 32]])
        x = pixels.transpose(0, 3, 1, 2).astype(np.float32)
        found.append(sum(session.run(None, {data.name: np.ascontiguousarray(v)})[0] for v in (x, x[..., ::-1])))
    vectors = np.concatenate(found).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def all_pairs(
    probe: np.ndarray, gallery: np.ndarray, people: list[str], symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted scores of genuine and impostor pairs: each pair once, or in both directions."""
    _, person = np.unique(people, return_inverse=True)
    genuine, impostor = [], []
    for i in range(len(probe)):
        scores = gallery @ probe[i]
        others = np.arange(len(probe)) > i if symmetric else np.arange(len(probe)) != i
        genuine.append(scores[others & (person == person[i])])
        impostor.append(scores[others & (person != person[i])])
    return np.sort(np.concatenate(genuine)), np.sort(np.concatenate(impostor))


def accuracy(probe: np.ndarray, gallery: np.ndarray, pairs: np.ndarray, same: np.ndarray, symmetric: bool) -> float:
    """Return the accuracy by insightface's ten folds: squared distances against 0, 0.01, ..., 3.99."""
    both = [(pairs[:, 0], pairs[:, 1])] + ([] if symmetric else [(pairs[:, 1], pairs[:, 0])])
    distance = np.stack([((probe[a] - gallery[b]) ** 2).sum(1) for a, b in both])
    found = []
    for fold in np.array_split(np.arange(len(pairs)), 10):
        train = np.setdiff1d(np.arange(len(pairs)), fold)
        rates = [((distance[:, train] < t) == same[train]).mean() for t in np.arange(0, 4, 0.01)]
        best = np.arange(0, 4, 0.01)[int(np.argmax(rates))]
        found.append(((distance[:, fold] < best) == same[fold]).mean())
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("."), help="the folder that the JSON's paths start from")
    arguments = parser.parse_args()
    evaluation = json.loads(arguments.result.read_text())
    images, people, pairs, same = distinct(arguments.lfw)
    vectors = {name: embed(str(arguments.models / m["path"]), images) for name, m in evaluation["models"].items()}
    different = 0
    for r in evaluation["results"]:
        probe, gallery = vectors[r["probe"]], vectors[r["gallery"]]
        symmetric = r["probe"] == r["gallery"]
        rows: list[tuple[str, Any, Any]] = []
        if r["protocol"] == "pairs":
            rows.append(("accuracy", r["accuracy"], accuracy(probe, gallery, pairs, same, symmetric)))
        else:
            genuine, impostor = all_pairs(probe, gallery, people, symmetric)
            for far, at in r["tar_at_far"].items():
                allowed = int(np.floor(float(far) * len(impostor) * (1 + 1e-12)))
                tar = (genuine >= impostor[len(impostor) - allowed]).mean()
                rows.append((f"TAR at FAR {far}", at["value"], tar))
        for figure, ours, theirs in rows:
            different += f"{100 * ours:.2f}" != f"{100 * theirs:.2f}"
            print(f"{r['protocol']}, {r['probe']} -> {r['gallery']}, {figure}: {ours:.8f} and {theirs:.8f}")
    print(f"{different} figures differ as printed")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
