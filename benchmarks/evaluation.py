"""Measure the cost of evaluation beside the network: embedding, all-pairs, its bootstrap, searches, IJB-C's pairs.

    python benchmarks/evaluation.py run --lfw lfw.bin --model MODEL.onnx [--threads 1]
    python benchmarks/evaluation.py table

Embedding and the bare forward pass of the same network on the same pixels take turns in one process; times are medians
of wall time. The search and the template pairs run in fresh processes, so that their peak memory is their own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from docs_table import put_table
from result_file import write_result

import facedistill as fd
from facedistill.data.dataset import open_dataset
from facedistill.evaluation.protocols.all_pairs import all_pairs
from facedistill.evaluation.protocols.identification import identify
from facedistill.evaluation.protocols.template_verification import TemplatePairs, verify_templates
from facedistill.models.embed import embed_dataset
from facedistill.models.folder import load_model
from facedistill.models.model import Model

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
IMAGES, BATCH, REPEATS = 512, 64, 5
TEMPLATES, SUBJECTS, IMPOSTOR_PAIRS = 23_124, 3_531, 15_638_932
PROBES, GALLERY, DISTRACTORS, DIM, BLOCK = 1000, 1000, 1_000_000, 512, 16_384


def embedding(model: Model, lfw: str) -> dict[str, float]:
    """Return images per second of embed_dataset (decode, batch, normalise, both flips) and of the bare network."""
    dataset = open_dataset(lfw).subset(range(IMAGES))
    pixels = dataset.batch(range(BATCH)).images
    model.eval()
    ready = model.normalise(pixels)
    backbone = model.backbone
    assert backbone is not None

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(2 * IMAGES // BATCH):  # an image and its mirror image
                backbone(ready)

    times: dict[str, list[float]] = {"bare": [], "evaluation": []}
    for _ in range(REPEATS):
        for name, work in (("bare", bare), ("evaluation", lambda: embed_dataset(model, dataset, batch=BATCH))):
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: IMAGES / float(np.median(t)) for name, t in times.items()}


def pairs(model: Model, lfw: str) -> dict[str, float]:
    """Return the seconds of LFW all-pairs on existing embeddings, without and with its bootstrap."""
    table = embed_dataset(model, open_dataset(lfw))
    unit = table.fused("sum")
    found = {}
    for name, resamples in (("all_pairs", 0), ("all_pairs_bootstrap", 1000)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            all_pairs(unit, unit, table.labels, resamples=resamples)
            times.append(time.perf_counter() - start)
        found[name] = float(np.median(times))
    return found


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    x = rng.standard_normal((rows, DIM), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def peak_mb() -> float:
    """Return the peak memory of this process, libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def template_pairs() -> dict[str, float]:
    """Return seconds and peak memory of 1:1 verification on a list as long as IJB-C's, with 1,000 resamples."""
    rng = np.random.default_rng(1)
    subject = np.sort(rng.integers(0, SUBJECTS, TEMPLATES))
    vectors = unit(rng, SUBJECTS)[subject] + 0.06 * rng.standard_normal((TEMPLATES, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = rng.integers(0, TEMPLATES, (2, IMPOSTOR_PAIRS))
    mates = np.flatnonzero(subject[:-1] == subject[1:])  # neighbours of one subject
    first, second = np.concatenate([mates, first]), np.concatenate([mates + 1, second])
    listed = TemplatePairs.of([(first, second, subject[first] == subject[second])])
    began = time.perf_counter()
    found = verify_templates(vectors, vectors, np.arange(TEMPLATES), listed)
    seconds = time.perf_counter() - began
    tar = found.to_json()["tar_at_far"]["1e-4"]["value"]
    return {"template_pairs": seconds, "template_pairs_peak_mb": peak_mb(), "template_pairs_tar": tar}


def search() -> dict[str, float]:
    """Return seconds and peak memory of a search for 1,000 probes among a million distractors, read in blocks."""

    spent = [0.0]

    def distractors() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(2)
        for start in range(0, DISTRACTORS, BLOCK):
            began = time.perf_counter()
            block = unit(rng, min(BLOCK, DISTRACTORS - start))
            spent[0] += time.perf_counter() - began
            yield block

    rng = np.random.default_rng(1)
    gallery = unit(rng, GALLERY)
    probe = gallery + 0.06 * rng.standard_normal(gallery.shape, dtype=np.float32)
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    labels = np.arange(PROBES)
    began = time.perf_counter()
    found = identify(probe, labels, gallery, labels, distractors=distractors(), resamples=100)
    seconds = time.perf_counter() - began - spent[0]  # drawing the distractors is not searching
    return {"search": seconds, "search_peak_mb": peak_mb(), "rank_1": found.rank[1].value}


def _alone(what: str) -> dict[str, float]:
    return json.loads(subprocess.check_output([sys.executable, __file__, what], text=True))


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    student = fd.Model(fd.create_backbone("mobilefacenet", embedding_dim=128, width=0.5, input_size=64))
    teacher = load_model(args.model)
    found: dict[str, Any] = {
        "threads": args.threads,
        "images_per_second": {
            "MobileFaceNet x 0.5, 64 x 64": embedding(student, args.lfw),
            "the ONNX teacher, 112 x 112": embedding(teacher, args.lfw),
        },
        **pairs(teacher, args.lfw),
        **_alone("search"),
        **_alone("template_pairs"),
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip(),
    }
    write_result(RESULTS, found)


def table(found: dict[str, Any]) -> str:
    lines = ["| network | bare forward pass, images/s | evaluation, images/s | ratio |", "| --- | --- | --- | --- |"]
    for name, rate in found["images_per_second"].items():
        bare, whole = rate["bare"], rate["evaluation"]
        lines.append(f"| {name} | {bare:.0f} | {whole:.0f} | {whole / bare:.2f} |")
    lines += ["", "| after embedding | |", "| --- | --- |"]
    lines.append(f"| LFW all-pairs, 29.6 million scores | {found['all_pairs']:.1f} s |")
    lines.append(f"| the same with 1,000 bootstrap resamples | {found['all_pairs_bootstrap']:.1f} s |")
    lines.append(
        f"| 1,000 probes among 1,000 enrolled and a million distractors, 512-d | {found['search']:.1f} s, "
        f"{found['search_peak_mb']:.0f} MB for the whole process |"
    )
    lines.append(
        "| 15.7 million pairs of 23,124 templates (IJB-C's size), 512-d, with 1,000 resamples | "
        f"{found['template_pairs']:.1f} s, {found['template_pairs_peak_mb']:.0f} MB for the whole process |"
    )
    return "\n".join(lines)


def write_table(_: argparse.Namespace) -> None:
    put_table("evaluation.md", "evaluation", table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    run_parser = verbs.add_parser("run")
    run_parser.add_argument("--lfw", required=True)
    run_parser.add_argument("--model", required=True)
    run_parser.add_argument("--threads", type=int, default=1)
    run_parser.set_defaults(verb=run)
    verbs.add_parser("table").set_defaults(verb=write_table)
    for alone in (search, template_pairs):
        verbs.add_parser(alone.__name__).set_defaults(verb=lambda _, alone=alone: print(json.dumps(alone())))
    run_verb(parser)
