"""What an architecture search is worth: searched cells, random cells, the published ones and MobileFaceNet.

    python benchmarks/search_study.py run --data FACES --teacher T.onnx --lfw lfw.bin --runs R [--random 10]
    python benchmarks/search_study.py table [--runs R]

`run` searches with each objective and a small supernet: a softmax of its own (published), the teacher's inherited
classifier, and that with the measured latency. Then it trains each genotype found, the published one, random ones of
the same space, and a MobileFaceNet. All have the same recipe and, by their width, the price of the MobileFaceNet: the
nearest to its multiply-adds (`--equal macs`), or the widest that takes at most a tenth more than its CPU time for one
image in ONNX Runtime (`--equal latency`). The searches see 32 x 32 pixels and half of the people, the networks 48 x 48
and all. Every result is a file in R; finished ones are skipped, and a stopped search or training resumes. At last it
times the networks of equal multiply-adds in turns, in ONNX Runtime. `table` adds the results of R to
benchmarks/results/search.json and writes the tables of docs/search.md.

With the defaults, a search takes about 8 minutes of one core of this project's machine, and a network 3 to 4.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from export_faults import looking_trained
from exported import ROUNDS, in_runtime, milliseconds
from result_file import write_result
from scipy.stats import ttest_ind
from short_study import (
    FARS,
    SIDES,
    command_line,
    cost,
    embedded,
    figures,
    heads,
    rates,
    recipe_of,
    store,
    stored,
    table_verb,
)
from timing import medians

from facedistill.architecture_search import (
    GENOTYPE,
    WEIGHTS,
    log_likelihood,
    random_genotype,
    read_weights,
    search,
)
from facedistill.backbones import (
    GENOTYPES,
    Backbone,
    Genotype,
    count_macs,
    create_backbone,
    genotype_from,
    read_genotype,
)
from facedistill.data import open_dataset
from facedistill.evaluation import far_key
from facedistill.models import load_model
from facedistill.results import markdown
from facedistill.results.reading import points
from facedistill.run import latest_checkpoint
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "search.json"
SIZE, SEARCH_SIZE, CELLS, SEARCH_BATCH = 48, 32, 5, 64
WIDTHS = range(1, 17)  # channels that are tried
DEARER, TOO_DEAR = 0.1, 2.0  # how much more time is still equal, and the price at which no more channels are tried
SUPERNET = {"channels": 4, "order": 1, "alpha_lr": 5e-3}
SCALE = 24
SOFTMAX = {"margin_softmax": {"margin": "cosface", "scale": SCALE, "margin_options": {"size": 0.0}}}
INHERITED = {
    "name": "proxylesskd",
    "classifier": {"start": "centres"},
    "terms": {"margin_softmax": {"scale": SCALE, "margin_options": {"size": 0.5}}},
}
OBJECTIVES: dict[str, tuple[dict[str, Any], float]] = {  # the method, and the weight of the latency
    "published": ({"name": "scratch", "terms": SOFTMAX}, 0.0),
    "inherited": (INHERITED, 0.0),
    "inherited_latency": (INHERITED, 0.1),
}
WORDS = {
    "published": "searched, own softmax",
    "inherited": "searched, inherited classifier",
    "inherited_latency": "searched, inherited classifier + latency",
    "pocketnet": "published cells (PocketNet)",
    "random": "random cells",
    "mobilefacenet": "MobileFaceNet, width 0.5",
}
MOBILE: dict[str, Any] = {"backbone": "mobilefacenet", "options": {"width": 0.5, "output": "affine"}}
DECIDING = ("teacher", far_key(FARS[0]))  # the figure by which networks are ranked


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    lfw, teacher = open_dataset(args.lfw), load_model(args.teacher)
    gallery, dim = embedded(teacher, lfw), teacher.embedding_dim
    if args.go_on:
        restore(folder)
    for objective in OBJECTIVES:
        searched(args, folder, objective, dim)
    for seed, equal in product(args.seeds, args.equal):
        for name, cells in genotypes(folder, args.random).items():
            done, out = folder / f"network-{equal}-{name}-{seed}.json", folder / f"{equal}-{name}-{seed}"
            kind = name.partition("-")[0]
            if done.exists() or kind not in (args.only or WORDS) or (cells is None and equal != "macs"):
                continue
            width = {} if cells is None else width_of(folder, name, cells, dim, equal)
            student = MOBILE if cells is None else _student(cells, width["channels"])
            train(recipe_of(args.data, args.teacher, student, SIZE, args.epochs, seed), out)
            model = load_model(out)
            found: dict[str, Any] = {"network": name, "equal": equal, "seed": seed}
            found |= {"channels": None, "cells": cells.to_json() if cells else None} | width
            found |= {"macs": model.macs(), "parameters": model.parameters_count(), "tar": rates(model, lfw, gallery)}
            store(done, found | cost(out))
            print(equal, name, seed, found["tar"]["teacher"], flush=True)
    timed(folder)


def searched(args: argparse.Namespace, folder: Path, objective: str, dim: int) -> None:
    """Search with an objective, or do nothing if that is done."""
    done, out = folder / f"search-{objective}.json", folder / f"search-{objective}"
    if done.exists():
        return
    method, latency = OBJECTIVES[objective]
    own = method["name"] == "scratch"
    changes: dict[str, Any] = {
        "method": method,
        "schedule": {"epochs": args.search_epochs, "batch": SEARCH_BATCH, "lr": 0.1, "weight_decay": 3e-4},
        "search": SUPERNET | {"cells": CELLS, "latency": latency},
        "data": {"train": args.data, "in_memory": True, "hold_out": args.without},
    }
    student, teacher = ({"embedding_dim": dim}, None) if own else ({}, args.teacher)
    search(recipe_of(args.data, teacher, student, SEARCH_SIZE, args.search_epochs, 0, changes), out)
    state = latest_checkpoint(out)
    assert state is not None
    found = {"objective": objective, "seconds": round(state["seconds"]), "steps": state["step"]}
    found |= {key: changes[key] for key in ("schedule", "search")} | {"hold_out": args.without}
    found |= {"cells": read_genotype(str(out / GENOTYPE)).to_json(), "weights": read_weights(out / WEIGHTS)}
    store(done, found)


def genotypes(folder: Path, randoms: int) -> dict[str, Genotype | None]:
    """Return what is trained, in this order; None has no cells."""
    found: dict[str, Genotype | None] = {"mobilefacenet": None}
    found |= {row["objective"]: genotype_from(row["cells"]) for row in stored(folder, "search-*.json")}
    return found | GENOTYPES | {f"random-{i}": random_genotype(i) for i in range(randoms)}


def width_of(folder: Path, name: str, cells: Genotype, dim: int, equal: str) -> dict[str, Any]:
    """Return the channels that have the price of MobileFaceNet, and their price as its multiple; a file keeps both."""
    kept = folder / f"width-{equal}-{name}.json"
    if not kept.exists():
        price = PRICES[equal](_network(MOBILE, dim))
        prices: dict[int, float] = {}
        # One by one, because ONNX Runtime computes channels in blocks: 8 may take less time than 5 or 7.
        for channels in WIDTHS:
            prices[channels] = price(_network(_student(cells, channels), dim))
            if prices[channels] > TOO_DEAR:
                break
        fitting = [channels for channels, paid in prices.items() if paid <= 1 + DEARER] or [min(WIDTHS)]
        nearest = min(prices, key=lambda channels: abs(prices[channels] - 1))
        channels = max(fitting) if equal == "latency" else nearest
        store(kept, {"channels": channels, "price": round(prices[channels], 3)})
    found = json.loads(kept.read_text("utf-8"))
    return {key: found[key] for key in ("channels", "price")}


def _student(cells: Genotype, channels: int) -> dict[str, Any]:
    options = {"cells": cells.to_json(), "channels": channels, "depth": CELLS, "output": "affine"}
    return {"backbone": "genotype", "options": options}


def _network(student: Mapping[str, Any], dim: int) -> Backbone:
    return create_backbone(student["backbone"], dim, SIZE, **student["options"]).eval()


def by_macs(unit: Backbone) -> Callable[[Backbone], float]:
    """Return the multiply-adds of a network as a multiple of those of `unit`."""
    whole = count_macs(unit, SIZE)
    return lambda network: count_macs(network, SIZE) / whole


def by_latency(unit: Backbone) -> Callable[[Backbone], float]:
    """Return the CPU time of a network for one image as a multiple of that of `unit`, both measured in turns."""
    images = torch.randint(0, 256, (32, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    other = in_runtime(looking_trained(unit, images))

    def price(network: Backbone) -> float:
        calls = {"network": in_runtime(looking_trained(network, images)), "unit": other}
        ms = medians(calls, ROUNDS, time.process_time)
        return ms["network"] / ms["unit"]

    return price


PRICES = {"macs": by_macs, "latency": by_latency}


def timed(folder: Path) -> None:
    """Time the networks of equal multiply-adds of the first seed in turns; the others' widths were chosen by time."""
    runs = {key: folder / f"{key}-0" for key in map(_key, stored(folder, "network-macs-*.json"))}
    models = {key: load_model(run) for key, run in runs.items() if (run / "model").is_dir()}
    store(folder / "ms.json", {"ms": milliseconds(models)})


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['equal']}-{row['network']}"


def collect(folder: Path) -> None:
    """Add the results of a folder to the stored ones, with what each search thinks of each genotype.

    Stored networks of cells that a search in the folder found otherwise are dropped.
    """
    known = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"searches": [], "networks": [], "ms": {}}
    searches = {one["objective"]: one for one in (*known["searches"], *stored(folder, "search-*.json"))}
    rows = {(_key(row), row["seed"]): row for row in (*known["networks"], *stored(folder, "network-*.json"))}
    networks = [row for row in rows.values() if row["cells"] == searches.get(row["network"], row)["cells"]]
    for row in networks:
        if row["cells"]:
            cells = genotype_from(row["cells"])
            row["log_likelihood"] = {
                objective: round(log_likelihood(cells, one["weights"]), 3) for objective, one in searches.items()
            }
    ms = known["ms"] | {name: value for row in stored(folder, "ms.json") for name, value in row["ms"].items()}
    write_result(RESULTS, {"searches": list(searches.values()), "networks": sorted(networks, key=_place), "ms": ms})


def restore(folder: Path) -> None:
    """Write the stored results as files of the folder, so that what they hold is not done again."""
    result = json.loads(RESULTS.read_text("utf-8"))
    files = {f"search-{one['objective']}.json": one for one in result["searches"]}
    files |= {f"network-{_key(row)}-{row['seed']}.json": row for row in result["networks"]}
    files |= {f"width-{_key(row)}.json": row for row in result["networks"] if row.get("price")}
    for name, content in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps(content), "utf-8")


def _place(row: Mapping[str, Any]) -> tuple[int, int, int, int]:
    kind, _, number = row["network"].partition("-")
    return list(PRICES).index(row["equal"]), list(WORDS).index(kind), int(number or 0), row["seed"]


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    made = {f"search equal {equal}": network_table(result, equal) for equal in PRICES}
    return made | {"search ranking": ranking_table(result)}


def network_table(result: Mapping[str, Any], equal: str) -> str:
    minutes = {row["objective"]: f"{row['seconds'] / 60:.0f}" for row in result["searches"]}
    networks = compared(result, equal)
    rows = []
    of_kind = {kind: [row for row in networks if row["network"].partition("-")[0] == kind] for kind in WORDS}
    for kind, words in WORDS.items():
        for runs in _by_width(of_kind[kind]) if equal == "latency" and kind != "random" else [of_kind[kind]]:
            several = len({row["network"] for row in runs})
            cells = [
                _range([row["channels"] for row in runs if row["channels"]], "d"),
                _range([row["parameters"] / 1e6 for row in runs], ".2f"),
                _range([row["macs"] / 1e6 for row in runs], ".1f"),
                _times(result, runs, equal),
                minutes.get(kind, ""),
            ]
            name = f"{words}: {several} genotypes" if kind == "random" and several else words
            seeds = str(len({row["seed"] for row in runs})) if runs else ""
            ahead = ["" if kind == other else _ahead(runs, of_kind[other]) for other in ("random", "mobilefacenet")]
            beaten = "" if kind == "random" else _beaten(runs, of_kind["random"])
            rows.append([name, *cells, seeds, *figures(runs), beaten, *ahead])
    time_of = "time, MobileFaceNet = 1" if equal == "latency" else "ms"
    about = ["channels", "parameters, M", "MACs, M", time_of, "minutes to search", "seeds"]
    above = ["random cells below it", "above random cells", "above MobileFaceNet"]
    return markdown(["cells", *about, *heads(), *above], rows)


def _times(result: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], equal: str) -> str:
    """Return the milliseconds of networks of equal multiply-adds; else the multiple that chose their width."""
    if equal == "latency":
        return _range([row.get("price", 1.0) for row in runs], ".2f")
    return _range([result["ms"][_key(row)] for row in runs if row["seed"] == 0 and _key(row) in result["ms"]], ".1f")


def _by_width(runs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the runs of each number of channels apart; one empty list without runs."""
    channels = sorted({row["channels"] or 0 for row in runs})
    return [[row for row in runs if (row["channels"] or 0) == width] for width in channels] or [[]]


def compared(result: Mapping[str, Any], equal: str) -> list[Mapping[str, Any]]:
    """Return the networks of one price: MobileFaceNet, which sets it, is among those of every price."""
    return [row for row in result["networks"] if row["equal"] == equal or row["cells"] is None]


def _range(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _beaten(runs: list[Mapping[str, Any]], random: list[Mapping[str, Any]]) -> str:
    """How many of the random networks have a lower deciding figure, by means over seeds."""
    if not runs or not random:
        return ""
    own = np.mean([row["tar"][DECIDING[0]][DECIDING[1]][0] for row in runs])
    others = means(random, *DECIDING).values()
    return f"{sum(value < own for value in others)} of {len(others)}"


def _ahead(runs: list[Mapping[str, Any]], others: list[Mapping[str, Any]]) -> str:
    """The difference of the deciding figure's means in points, with Welch's 95% interval; each needs two networks."""
    side, far = DECIDING
    one, two = ([row["tar"][side][far][0] for row in rows] for rows in (runs, others))
    if min(len(one), len(two)) < 2:
        return ""
    low, high = ttest_ind(one, two, equal_var=False).confidence_interval()
    return f"{points(np.mean(one) - np.mean(two))} [{points(low)}, {points(high)}]"


def means(networks: Sequence[Mapping[str, Any]], side: str, far: str) -> dict[str, float]:
    """Return the mean TAR over seeds, by network."""
    by_name: dict[str, list[float]] = {}
    for row in networks:
        by_name.setdefault(row["network"], []).append(row["tar"][side][far][0])
    return {name: float(np.mean(values)) for name, values in by_name.items()}


def ranking_table(result: Mapping[str, Any]) -> str:
    """How the ranking of each search agrees with that of the trained networks, without its own cells, its first."""
    rows, networks = [], [row for row in compared(result, "macs") if row["cells"]]
    reached = [means(networks, side, far_key(far)) for side in SIDES for far in FARS]
    for one in result["searches"]:
        name = one["objective"]
        likely = {row["network"]: row["log_likelihood"][name] for row in networks if row["network"] != name}
        cells = [f"{kendall(list(likely.values()), [tar[name] for name in likely]):+.2f}" for tar in reached]
        count = len(likely)
        chance = np.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1))) if count > 1 else np.nan
        rows.append([WORDS[one["objective"]], str(count), *cells, f"±{chance:.2f}"])
    return markdown(["search", "genotypes", *heads(), "one deviation of chance"], rows)


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau: the share of pairs that both rank alike, minus that of those that they rank otherwise."""
    agree = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in combinations(range(len(a)), 2)]
    return float(np.mean(agree)) if agree else float("nan")


if __name__ == "__main__":
    writing = table_verb("search.md", RESULTS, tables, collect)
    parser, running = command_line(__doc__, run, writing)
    running.add_argument("--seeds", type=int, nargs="+", default=[0])
    running.add_argument("--random", type=int, default=10, help="how many random genotypes")
    running.add_argument("--equal", nargs="+", choices=list(PRICES), default=list(PRICES))
    running.add_argument("--only", nargs="+", choices=list(WORDS), help="some of the networks")
    running.add_argument("--epochs", type=int, default=2)
    running.add_argument("--search-epochs", type=int, default=4)
    running.add_argument("--without", type=float, default=0.5, help="share of the people that no search sees")
    running.add_argument("--go-on", action="store_true", help="do only what the stored results lack")
    run_verb(parser)
