"""What cleaning is worth: the same student from the data as they are, with planted errors, and cleaned of them.

    python benchmarks/clean_worth.py run --data FACES --teacher T.onnx --lfw lfw.bin --runs R
    python benchmarks/clean_worth.py table

`run` plants 5% of each error of `clean.py find` together (swapped, merged, split, copies), as files; cleans them with
`facedistill clean`; distils a student from each of the three; and measures LFW over all pairs. People of LFW are not
planted: they would help. Finished runs are skipped, and a stopped one resumes; all data of one seed come first.

The method is ProxylessKD with class centres and nothing beside it: the labels make both W and the targets, so errors
in labels count fully. A method that imitates embeddings (L2, or a class for each image) needs no labels, and only
copies could matter to it. It is a short training: the table says how many epochs.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from clean_planted import duplicate, merged, split, swapped
from command import run_verb
from docs_table import put_table
from result_file import write_result

from facedistill import __version__
from facedistill.cleaning import faces_of
from facedistill.data import open_dataset
from facedistill.files import cache_dir
from facedistill.models import embed_dataset, load_model

RESULTS = Path(__file__).parent / "results" / "clean_worth.json"
SHARE, EPOCHS, SEEDS, FAR = 0.05, 4, (0, 1, 2), 1e-4
DATA = {"original": "as they are", "dirty": "with planted errors", "cleaned": "cleaned of them"}
STUDENT = ("student.options.width=0.5", "student.input_size=64")
SCHEDULE = ("schedule.batch=128", "schedule.lr=0.3", "schedule.warmup_epochs=0.5", f"schedule.epochs={EPOCHS}")
METHOD = ("method.terms.margin_softmax.scale=32", "method.terms.margin_softmax.margin_options.size=0.5")
ALL_DATA = ("data.hold_out=0", "check.own_class=0")  # dirty labels are meant to be dirty
PAIRS = ("student-student", "student-teacher")


def plant(data: str, teacher: str, folder: Path) -> None:
    """Write the data set with errors of all kinds: links to the images, and files for copies that are re-encoded."""
    dataset, model, rng = open_dataset(data), load_model(teacher), np.random.default_rng(0)
    base = faces_of(dataset, embed_dataset(model, dataset, cache=cache_dir() / "embeddings"), model)
    faces = swapped(base, SHARE, rng).faces
    faces = split(merged(faces, SHARE, rng).faces, SHARE, rng).faces
    planted = duplicate(faces, SHARE, rng, dataset, model)
    for key, label in zip(planted.faces.keys, planted.faces.labels.tolist(), strict=True):
        file = folder / planted.faces.class_names[label] / key.replace("/", "_")
        file.parent.mkdir(parents=True, exist_ok=True)
        if (made := planted.files.get(key)) is not None:
            file.write_bytes(made)
        else:
            file.symlink_to(Path(data).resolve() / key.rpartition(" of ")[2])


def facedistill(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "facedistill", *map(str, words)], check=True)


def run(args: argparse.Namespace) -> None:
    folder = Path(args.runs)
    places = {"original": Path(args.data), "dirty": folder / "dirty", "cleaned": folder / "cleaned"}
    if not (folder / "planted").exists():
        plant(args.data, args.teacher, places["dirty"])
        (folder / "planted").touch()
    if not places["cleaned"].exists():
        facedistill("clean", places["dirty"], "--teacher", args.teacher, "--out", places["cleaned"])
    rows = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    done = {(row["data"], row["seed"]) for row in rows}
    for seed in SEEDS:
        for name, data in places.items():
            if (name, seed) not in done:
                rows.append({"data": name, "seed": seed} | measured(args, data, folder / f"{name}-{seed}", seed))
                print(rows[-1], flush=True)
                write_result(RESULTS, {"version": __version__, "epochs": EPOCHS, "share": SHARE, "runs": rows})


def measured(args: argparse.Namespace, data: Path, out: Path, seed: int) -> dict[str, Any]:
    options = (*STUDENT, *SCHEDULE, *METHOD, *ALL_DATA, f"seed={seed}")
    facedistill("distill", "--teacher", args.teacher, "--data", data, "--out", out, *options)
    result = out / "lfw.json"
    words = ("--against", args.teacher, "--protocol", "all-pairs", "--far", FAR, "--json", result)
    facedistill("evaluate", out, "--on", args.lfw, *map(str, words))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    dataset, figures = open_dataset(data), {}
    for found in json.loads(result.read_text("utf-8"))["results"]:
        (at,) = found["tar_at_far"].values()
        figures[f"{found['probe']}-{found['gallery']}"] = round(at["value"], 4)
    return {
        **{"images": len(dataset), "people": len(dataset.class_names)},
        **{pair: figures[pair] for pair in PAIRS},
        "images_per_second": sorted(line["images_per_second"] for line in log)[len(log) // 2],
    }


def table(result: dict[str, Any]) -> str:
    """Mean over seeds of each data set, and the seeds' own figures."""
    lines = [
        "| training data | images | people | seeds | TAR, student → student | TAR, student → teacher |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, told in DATA.items():
        runs = sorted((row for row in result["runs"] if row["data"] == name), key=lambda row: row["seed"])
        cells = [f"{runs[0]['images']:,}", f"{runs[0]['people']:,}", str(len(runs))] if runs else [""] * 3
        lines.append(f"| {' | '.join([told, *cells, *(_mean(runs, pair) for pair in PAIRS)])} |")
    return "\n".join(lines)


def _mean(runs: list[dict[str, Any]], pair: str) -> str:
    values = [100 * row[pair] for row in runs]
    return f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" if values else ""


def write_table(_: argparse.Namespace) -> None:
    result = json.loads(RESULTS.read_text("utf-8"))
    put_table("clean.md", "clean worth", table(result))
    print(table(result), Counter(row["data"] for row in result["runs"]), sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, verb in (("run", run), ("table", write_table)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        if name == "run":
            for option in ("data", "teacher", "lfw", "runs"):
                sub.add_argument(f"--{option}", required=True)
    run_verb(parser)
