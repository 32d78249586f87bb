"""Compare the frozen head with others: time, memory, exactness, and ten million classes from disk.

    python benchmarks/head.py speed [--classes 10000 100000 1000000]
    python benchmarks/head.py profile
    python benchmarks/head.py memory [--classes 100000 1000000]
    python benchmarks/head.py exactness
    python benchmarks/head.py large --folder FOLDER [--classes 10000 ... 10000000]
    python benchmarks/head.py table

The first five write benchmarks/results/head/NAME.json; `table` renders docs/head.md and its plot from them. A step is
the loss and its gradient for the embeddings, and W's update if W is trained; the network is left out. `speed`
interleaves the steps in one process and takes medians. `memory` runs each step in a fresh process. `large` writes its
synthetic W, up to 10 GB, into FOLDER and deletes it. Rivals: head_rivals.py. d = 512, batch 256, ArcFace 0.5, s = 64.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import head_rivals as rivals
import torch
from docs_table import DOCS, put_table
from result_file import write_result
from torch import Tensor
from torch.nn import functional as F

from facedistill.backbones import processor
from facedistill.head.frozen_softmax import BLOCK_ROWS, frozen_margin_softmax
from facedistill.head.margins import ArcFace
from facedistill.head.nearest import nearest_classes
from facedistill.head.products import product_type
from facedistill.head.rows import Rows, load_rows, quantise

RESULTS = Path(__file__).parent / "results" / "head"
DIM, BATCH = 512, 256
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: "int8"}
OURS = "frozen, streaming, bf16 rows"
NEIGHBOURS = 64
NEAREST = f"frozen, {NEIGHBOURS} nearest of each class, bf16 rows"
SEARCHED = 100_000  # the most classes whose nearest are searched for: the time grows with their square


def batch(weight: Tensor, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Return embeddings at cosine 0.5 to their class, of norm 20, and their labels."""
    labels = torch.randint(len(weight), (size,))
    noise = F.normalize(torch.randn(size, weight.shape[1]), dim=1)
    return 20 * (0.5 * weight[labels].float() + 0.75**0.5 * noise), labels


def make_weight(classes: int) -> Tensor:
    weight = torch.randn(classes, DIM)
    return weight.div_(weight.norm(dim=1, keepdim=True))


def steps(weight: Tensor) -> dict[str, Callable[[], rivals.Step]]:
    """Return every step by its name; a step makes its other inputs beside W when called."""
    half = cache(weight.bfloat16)
    momentum = cache(lambda: torch.zeros_like(weight))  # shared by the steps: 2 GB for a million rows
    return {
        "frozen, streaming, fp32 rows": lambda: rivals.streaming(Rows(weight)),
        OURS: lambda: rivals.streaming(Rows(half())),
        "frozen, streaming, int8 rows": lambda: rivals.streaming(quantise(weight)),
        "frozen, streaming, int8 rows, int8 products": lambda: rivals.streaming(quantise(weight), torch.int8),
        "trainable, insightface's margin, fp32": lambda: rivals.Trainable(weight, momentum()),
        "trainable, margin on the own class alone, fp32": lambda: rivals.Trainable(weight, momentum(), published=False),
        "trainable, 10% sampled (PartialFC), fp32": lambda: rivals.PartialFC(weight, momentum()),
        "frozen, all logits, fp32": lambda: rivals.full_logits(weight),
        "frozen, 10% sampled, fp32": lambda: rivals.sampled(weight),
        "torch's linear_cross_entropy, no margin, fp32": lambda: rivals.linear_cross_entropy(weight),
        "trainable, insightface's margin, bf16 products": lambda: rivals.Trainable(
            weight, momentum(), products=torch.bfloat16
        ),
        "trainable, 10% sampled (PartialFC), bf16 products": lambda: rivals.PartialFC(
            weight, momentum(), products=torch.bfloat16
        ),
        "frozen, 10% sampled, bf16 products": lambda: rivals.sampled(half()),
        "frozen, all logits, bf16 products": lambda: rivals.full_logits(half()),
        "frozen, streaming, bf16 rows, bf16 products": lambda: rivals.streaming(Rows(half()), torch.bfloat16),
    }


def timed(work: Callable[..., Any], *given: Any, **named: Any) -> float:
    """Return the seconds that `work(*given, **named)` takes."""
    start = time.perf_counter()
    work(*given, **named)
    return time.perf_counter() - start


def speed(classes: list[int], repeats: int) -> dict[str, Any]:
    """Measure milliseconds of every step, seconds of the nearest-class search, and the machine's matrix products."""
    rivals.check_partial_fc()
    result: dict[str, Any] = {"products": {}, "steps": {}, "search_seconds": {}}
    for count in classes:
        weight = make_weight(count)
        # At a million, steps of minutes are left out: torch's, and bfloat16 products without a bfloat16 unit.
        unit = product_type(Rows(weight[:1].bfloat16())) == torch.bfloat16
        slow = ["torch's", *([] if unit else ["bf16 products"])]
        all_steps = steps(weight).items()
        chosen = {n: make() for n, make in all_steps if count <= 100_000 or not any(part in n for part in slow)}
        if count <= SEARCHED:
            rows, start = Rows(weight.bfloat16()), time.perf_counter()
            chosen[NEAREST] = rivals.nearest(rows, nearest_classes(rows, NEIGHBOURS))
            result["search_seconds"][str(count)] = time.perf_counter() - start
        x, labels = batch(weight)
        found: dict[str, list[float]] = {name: [] for name in chosen}
        gemms: dict[str, list[float]] = {}
        for i in range(1 + (repeats if count <= 100_000 else min(repeats, 3))):
            for name, gflops in matrix_products().items():
                gemms.setdefault(name, []).append(gflops)
            for name, step in chosen.items():
                seconds = timed(step, x, labels)
                if i:
                    found[name].append(1e3 * seconds)
        result["steps"][str(count)] = {name: statistics.median(ms) for name, ms in found.items()}
        result["products"][str(count)] = {name: statistics.median(g) for name, g in gemms.items()}
        print(count, json.dumps(result["steps"][str(count)], indent=1), result["products"][str(count)])
        del weight, chosen
    return result | {"repeats": repeats, "block": BLOCK_ROWS, "path": path_of(torch.bfloat16)}


def matrix_products() -> dict[str, float]:
    """Return GFLOP/s of the head's two products on data in the cache: rows x embeddings, and exponentials x rows."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        rows, x = torch.randn(BLOCK_ROWS, DIM).to(dtype), torch.randn(DIM, BATCH).to(dtype)
        p, logits = torch.rand(BLOCK_ROWS, BATCH).to(dtype), torch.empty(BLOCK_ROWS, BATCH, dtype=dtype)
        gradient = torch.empty(BATCH, DIM, dtype=dtype)
        for name, factors, out in (("logits", (rows, x), logits), ("gradient", (p.T, rows), gradient)):
            torch.mm(*factors, out=out)
            seconds = statistics.median(timed(torch.mm, *factors, out=out) for _ in range(15))
            found[f"{name}, {SHORT[dtype]}"] = 2e-9 * BLOCK_ROWS * DIM * BATCH / seconds
    return found


def path_of(stored: torch.dtype) -> str:
    """Return the code path that our rows of this type take on this machine."""
    rows = quantise(torch.ones(1, 1)) if stored == torch.int8 else Rows(torch.ones(1, 1, dtype=stored))
    return f"torch loop, {SHORT[product_type(rows)]} products"


GROUPS = {
    "the two matrix products": ("aten::mm", "aten::addmm", "aten::addmm_"),
    "copies from one type to another": ("aten::copy_", "aten::_to_copy"),
    "exponentials": ("aten::exp_",),
    "sums, maxima, additions": ("aten::sum", "aten::amax", "aten::add_", "aten::add", "aten::maximum", "aten::mul"),
}


def profile(classes: int) -> dict[str, Any]:
    """Measure our step with bf16 rows: the time share of each group of operations; the rest is dispatch."""
    weight = make_weight(classes)
    x, labels = batch(weight)
    step = steps(weight)[OURS]()
    step(x, labels)
    with torch.profiler.profile() as found:
        for _ in range(5):
            step(x, labels)
    spent = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    shares = {group: sum(spent.get(name, 0) for name in names) for group, names in GROUPS.items()}
    total = sum(spent.values())
    shares = {group: us / total for group, us in shares.items()}
    return {"classes": classes, "shares": shares | {"everything else": 1 - sum(shares.values())}}


def profile_table(result: dict[str, Any]) -> str:
    lines = [f"| of our step, bf16 rows, C = {result['classes']:,} | share of the time |", "| --- | ---: |"]
    lines += [f"| {group} | {share:.0%} |" for group, share in result["shares"].items()]
    return "\n".join(lines)


def memory(classes: list[int]) -> dict[str, Any]:
    """Measure the peak memory of each step's second run, less that before the first, in fresh processes; MB."""
    result: dict[str, Any] = {"steps": {}}
    for count in classes:
        result["steps"][str(count)] = {}
        for name in steps(torch.empty(1, 1)):
            if "bf16 products" in name:
                continue
            command = [
                sys.executable,
                __file__,
                "one",
                "--classes",
                str(count),
                "--name",
                name,
                "--threads",
                str(torch.get_num_threads()),
            ]
            said = subprocess.run(command, capture_output=True, text=True)
            extra = json.loads(said.stdout) if said.returncode == 0 else None
            result["steps"][str(count)][name] = extra
            print(count, name, extra, said.stderr[-300:] if extra is None else "")
    return result


def one(classes: int, name: str) -> None:
    """Print the extra memory of one step, MB."""
    weight = make_weight(classes)
    x, labels = batch(weight)
    step = steps(weight)[name]()
    if "streaming" in name:
        del weight
    held = _memory("VmRSS")
    step(x, labels)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    step(x, labels)
    print(round((_memory("VmHWM") - held) / 1e6, 1))


def _memory(key: str) -> int:
    """Return bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key + ":")).split()[1])


def isotropic(classes: int) -> Tensor:
    return F.normalize(torch.randn(classes, DIM, dtype=torch.float64), dim=1)


def beside(rows: Tensor, cosine: float) -> Tensor:
    """Return unit vectors at this cosine to the rows."""
    noise = isotropic(len(rows))
    noise = F.normalize(noise - (noise * rows).sum(1, keepdim=True) * rows, dim=1)
    return cosine * rows + (1 - cosine**2) ** 0.5 * noise


def clustered(classes: int) -> Tensor:
    """Return clusters of 50 around centres, and for every row a twin at cosine 0.99."""
    rows = F.normalize(isotropic(classes // 50).repeat(25, 1) + isotropic(classes // 2), dim=1)
    return torch.cat([rows, beside(rows, 0.99)])


COSINES = (0.0, 0.15, 0.3, 0.5, 0.7, 0.8, 0.95)


def exactness(classes: int = 10_000, size: int = 64) -> dict[str, Any]:
    """Compare loss and gradient with float64, by W, scale, stored rows and products; worst over embeddings' cosines.

    Gradients are compared with float64 on the same stored rows, and on the rows before rounding. The gradients of 10%
    sampling and of the nearest classes, which solve another problem, are compared by cosine.
    """
    rows_of: dict[str, tuple[Callable[[Tensor], Rows], torch.dtype]] = {
        "fp32": (Rows, torch.float32),
        "bf16": (lambda w: Rows(w.bfloat16()), torch.float32),
        "bf16, bf16 products": (lambda w: Rows(w.bfloat16()), torch.bfloat16),
        "int8": (quantise, torch.float32),
        "int8, int8 products": (quantise, torch.int8),
    }
    worst: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    near: list[dict[str, Any]] = []
    for make in (isotropic, clustered):
        original = make(classes)
        neighbours = nearest_classes(Rows(original.float()), NEIGHBOURS)
        stored = {name: (of(original.float()), products) for name, (of, products) in rows_of.items()}
        for scale in (64.0, 128.0):
            cells = {name: {"absolute": 0.0, "relative": 0.0, "cosine": 1.0, "cosine_original": 1.0} for name in stored}
            for cosine in COSINES:
                labels = torch.randint(classes, (size,))
                x = (20 * beside(original[labels], cosine)).float()
                exact, ideal = _reference(x, labels, original, scale)
                for name, (rows, products) in stored.items():
                    loss, gradient = _reference(x, labels, rows.read_at(torch.arange(classes)).double(), scale)
                    mine = x.clone().requires_grad_()
                    ours = frozen_margin_softmax(mine, labels, rows, ArcFace(), scale, products=products).mean()
                    (found,) = torch.autograd.grad(ours, mine)
                    cell, error = cells[name], abs(ours.item() - loss)
                    cell["absolute"] = max(cell["absolute"], error / (1 + loss))
                    if loss > 1e-12:
                        cell["relative"] = max(cell["relative"], error / loss)
                        cell["cosine"] = min(cell["cosine"], _cosine(found, gradient))
                        cell["cosine_original"] = min(cell["cosine_original"], _cosine(found, ideal))
                if scale == rivals.SCALE:
                    _, found = rivals.sampled(original.float())(x, labels)
                    case = {"W": make.__name__, "cosine": cosine}
                    drawn.append({**case, "gradient": _cosine(found, ideal)})
                    near_loss, found = rivals.nearest(Rows(original.float()), neighbours)(x, labels)
                    used = len(torch.cat([labels, neighbours[labels].flatten()]).unique()) / classes
                    _, as_many = rivals.sampled(original.float(), used)(x, labels)
                    gradients = {"gradient": _cosine(found, ideal), "gradient_drawn": _cosine(as_many, ideal)}
                    near.append({**case, **gradients, "loss": near_loss.item(), "exact_loss": exact, "classes": used})
            worst += [{"W": make.__name__, "scale": scale, "rows": name, **cell} for name, cell in cells.items()]
    return {"classes": classes, "batch": size, "worst": worst, "sampled": drawn, "nearest": near}


def _reference(x: Tensor, labels: Tensor, weight: Tensor, scale: float) -> tuple[float, Tensor]:
    """Return mean loss and gradient by the formula in float64, on unchanged rows, without the cancellation of 1 - p."""
    wide = x.double().requires_grad_()
    cos = F.normalize(wide, dim=1) @ weight.T
    target = scale * ArcFace().target(cos.gather(1, labels[:, None])[:, 0])
    others = (scale * cos).scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    loss = F.softplus(others - target).mean()
    return loss.item(), torch.autograd.grad(loss, wide)[0]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b).sum() / (a.double().norm() * b.norm()))


def large(folder: Path, classes: list[int], stretch: int) -> dict[str, Any]:
    """Measure steps against a memory-mapped W, by size and stored type: seconds, and the process's memory."""
    result: dict[str, Any] = {"steps": [], "stretch": stretch}
    for dtype in (torch.bfloat16, torch.int8):
        for count in classes:
            path = folder / f"head_{count}.safetensors"
            try:
                write_synthetic(path, count, dtype)
                command = [
                    sys.executable,
                    __file__,
                    "mapped",
                    "--file",
                    str(path),
                    "--threads",
                    str(torch.get_num_threads()),
                ]
                command += ["--repeats", str(stretch if count == max(classes) else 5)]
                row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            finally:
                path.unlink(missing_ok=True)
            result["steps"].append({"classes": count, "rows": SHORT[dtype], "path": path_of(dtype), **row})
            print(result["steps"][-1])
    return result


def write_synthetic(path: Path, classes: int, dtype: torch.dtype) -> None:
    """Write random unit rows as safetensors in pieces, so that the whole is never in memory."""
    piece = 100_000
    tensors = {"weight": (dtype, [classes, DIM])}
    if dtype == torch.int8:
        tensors["scales"] = (torch.float32, [classes])
    names = {torch.bfloat16: "BF16", torch.int8: "I8", torch.float32: "F32"}
    header, end, scales = {}, 0, []
    for name, (kind, shape) in tensors.items():
        size = kind.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": names[kind], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, classes, piece):
            weight = make_weight(min(piece, classes - start))
            if dtype == torch.int8:
                rows = quantise(weight)
                assert rows.scales is not None
                scales.append(rows.scales)
                file.write(rows.values.numpy().tobytes())
            else:
                file.write(weight.to(dtype).view(torch.int16).numpy().tobytes())
        if scales:
            file.write(torch.cat(scales).numpy().tobytes())


def mapped(file: Path, repeats: int) -> None:
    """Print seconds and memory of training steps of one layer against the file's W."""
    rows = load_rows(file)
    labels = torch.randint(len(rows), (BATCH,))
    images = 0.5 * rows.of(labels) + 0.75**0.5 * F.normalize(torch.randn(BATCH, DIM), dim=1)
    network = torch.nn.Linear(DIM, DIM, bias=False)
    torch.nn.init.eye_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    seconds, losses = [], []

    def step() -> None:
        loss = frozen_margin_softmax(network(images), labels, rows, ArcFace(), 64.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    before = _memory("RssAnon")
    private = before
    for _ in range(repeats):
        seconds.append(timed(step))
        private = max(private, _memory("RssAnon"))
    print(
        json.dumps(
            {
                "first_seconds": seconds[0],
                "seconds": statistics.median(seconds[1:] or seconds),
                "total_seconds": sum(seconds),
                "file_bytes": file.stat().st_size,
                "peak_bytes": _memory("VmHWM"),
                "own_bytes": private,
                "losses": [losses[0], losses[-1]],
            }
        )
    )


def tables() -> dict[str, str]:
    """Return each measured table of docs/head.md by its name."""
    found = {name: RESULTS / f"{name}.json" for name in RENDER}
    return {name: RENDER[name](json.loads(p.read_text("utf-8"))) for name, p in found.items() if p.exists()}


def speed_table(result: dict[str, Any]) -> str:
    counts = list(result["steps"])
    # With a bfloat16 unit, bf16 rows use bfloat16 products anyway.
    twice = "frozen, streaming, bf16 rows, bf16 products" if "bf16" in result["path"] else None
    names = [name for name in result["steps"][counts[0]] if name != twice]
    lines = ["| a step | " + " | ".join(f"C = {int(c):,}: ms | times ours" for c in counts) + " |"]
    lines.append("| --- |" + " ---: |" * 2 * len(counts))
    for name in names:
        cells = []
        for c in counts:
            ms, ours = result["steps"][c].get(name), result["steps"][c][OURS]
            cells.append(f"{ms:,.1f} | {ms / ours:.2f}" if ms else " | ")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| share of the matrix products' own time | " + " | ".join(f"C = {int(c):,}" for c in counts) + " |"]
    lines.append("| --- |" + " ---: |" * len(counts))
    for name in [n for n in names if "streaming" in n and "int8 products" not in n]:
        kind = "bf16" if "bf16" in result["path"] and "fp32" not in name else "fp32"
        cells = []
        for c in counts:
            gemm = result["products"][c]
            ideal = 2e-6 * int(c) * DIM * BATCH * sum(1 / gemm[f"{which}, {kind}"] for which in ("logits", "gradient"))
            cells.append(f"{ideal / result['steps'][c][name]:.0%}" if name in result["steps"][c] else "")
        lines.append(f"| {name} (products in {kind}) | " + " | ".join(cells) + " |")
    for kind in ("fp32", "bf16"):
        for which in ("logits", "gradient"):
            cells = [f"{result['products'][c][f'{which}, {kind}']:.0f}" for c in counts]
            lines.append(f"| GFLOP/s of the product for the {which}, {kind} | " + " | ".join(cells) + " |")
    if "search_seconds" in result:
        took = ", ".join(f"{s:,.1f} s for {int(c):,} classes" for c, s in result["search_seconds"].items())
        lines += ["", f"The search for the nearest classes, once for a W: {took}."]
    lines += ["", f"{_machine(result)}. Our rows ran on: {result['path']}, {result['block']:,} rows a block."]
    return "\n".join(lines)


def memory_table(result: dict[str, Any]) -> str:
    counts = list(result["steps"])
    lines = ["| extra MB of a step | " + " | ".join(f"C = {int(c):,}" for c in counts) + " |"]
    lines.append("| --- |" + " ---: |" * len(counts))
    for name in result["steps"][counts[0]]:
        cells = [result["steps"][c][name] for c in counts]
        lines.append(f"| {name} | " + " | ".join("out of memory" if m is None else f"{m:,.0f}" for m in cells) + " |")
    return "\n".join([*lines, "", f"{_machine(result)}."])


def exactness_table(result: dict[str, Any]) -> str:
    lines = ["| W | s | rows | loss, error / (1 + L) | loss, relative | 1 - gradient cosine | to W before rounding |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for row in result["worst"]:
        errors = (row["absolute"], row["relative"], 1 - row["cosine"], 1 - row["cosine_original"])
        cells = " | ".join(f"{max(e, 0):.0e}" for e in errors)
        lines.append(f"| {row['W']} | {row['scale']:.0f} | {row['rows']} | {cells} |")
    lines += ["", "| gradient cosine of 10% sampling | " + " | ".join(f"at {c}" for c in COSINES) + " |"]
    lines.append("| --- |" + " ---: |" * len(COSINES))
    for kind in ("isotropic", "clustered"):
        cosines = [f"{row['gradient']:.2f}" for row in result["sampled"] if row["W"] == kind]
        lines.append(f"| {kind} | " + " | ".join(cosines) + " |")
    if "nearest" in result:
        lines += ["", *_nearest_table(result["nearest"])]
    return "\n".join(lines)


def _nearest_table(rows: list[dict[str, Any]]) -> list[str]:
    """Compare gradient and loss of the nearest classes, and of as many random ones, with those of all classes."""
    lines = [f"| {NEIGHBOURS} nearest of each class | " + " | ".join(f"at {c}" for c in COSINES) + " |"]
    lines.append("| --- |" + " ---: |" * len(COSINES))
    for kind in ("isotropic", "clustered"):
        of = [row for row in rows if row["W"] == kind]
        cells = {
            "gradient cosine": [f"{row['gradient']:.4f}" for row in of],
            "gradient cosine of as many classes at random": [f"{row['gradient_drawn']:.4f}" for row in of],
            "loss, share of the exact one": [f"{row['loss'] / row['exact_loss']:.2f}" for row in of],
            "share of the classes that the batch uses": [f"{row['classes']:.0%}" for row in of],
        }
        lines += [f"| {kind}: {name} | " + " | ".join(found) + " |" for name, found in cells.items()]
    return lines


def large_table(result: dict[str, Any]) -> str:
    lines = ["| classes | rows | file, GB | seconds a step | first step | of it in memory, GB | own memory, GB |"]
    lines.append("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in result["steps"]:
        sizes = [row[k] / 1e9 for k in ("peak_bytes", "own_bytes")]
        lines.append(
            f"| {row['classes']:,} | {row['rows']} | {row['file_bytes'] / 1e9:.2f} | {row['seconds']:.3f} | "
            f"{row['first_seconds']:.3f} | {sizes[0]:.2f} | {sizes[1]:.2f} |"
        )
    most = max(result["steps"], key=lambda row: (row["classes"], row["file_bytes"]))
    lines += [
        "",
        f"{_machine(result)}. {result['stretch']} steps at {most['classes']:,} classes, {most['rows']} rows, took",
    ]
    lines.append(
        f"{most['total_seconds']:.0f} seconds; the loss went from {most['losses'][0]:.3f} to {most['losses'][1]:.3f}."
    )
    lines += ["", "![Seconds a step over the number of classes](images/head_growth.svg)"]
    return "\n".join(lines)


RENDER = {
    "speed": speed_table,
    "profile": profile_table,
    "memory": memory_table,
    "exactness": exactness_table,
    "large": large_table,
}


def plot() -> None:
    """Draw docs/images/head_growth.svg: seconds per step over classes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "head"
    from matplotlib import pyplot

    large_result = json.loads((RESULTS / "large.json").read_text("utf-8"))
    steps_of = json.loads((RESULTS / "speed.json").read_text("utf-8"))["steps"]
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for name in ("trainable, insightface's margin, fp32", "frozen, all logits, fp32"):
        axes.loglog([int(c) for c in steps_of], [1e-3 * s[name] for s in steps_of.values()], "o--", label=name)
    for kind in ("bf16", "int8"):
        rows = [row for row in large_result["steps"] if row["rows"] == kind]
        label = f"frozen, streaming, {kind} rows from disk"
        axes.loglog([r["classes"] for r in rows], [r["seconds"] for r in rows], "o-", label=label)
    axes.set(xlabel="classes", ylabel=f"seconds a step (batch {BATCH}, d = {DIM})")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(DOCS / "images" / "head_growth.svg", metadata={"Date": None})


def _machine(result: dict[str, Any]) -> str:
    return f"{result['threads']} threads, {result['machine']}, torch {result['torch']}"


def _cpu() -> str:
    """Return the processor's name and its units for short numbers."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    units = [unit for unit in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if f" {unit}" in info]
    return f"{processor()} ({', '.join(units)})"


def save(name: str, result: dict[str, Any]) -> None:
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    given = " ".join("FOLDER" if "/" in word else word for word in sys.argv[1:])
    result |= {"command": f"python benchmarks/head.py {given}", "commit": git.stdout.strip()}
    result |= {"threads": torch.get_num_threads(), "machine": _cpu(), "torch": torch.__version__, "seed": 0}
    write_result(RESULTS / f"{name}.json", result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["speed", "profile", "memory", "exactness", "large", "table", "one", "mapped"])
    parser.add_argument("--classes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--stretch", type=int, default=20, help="steps at the largest size of `large`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--name")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.verb == "speed":
        save("speed", speed(args.classes or [10_000, 100_000, 1_000_000], args.repeats))
    elif args.verb == "profile":
        save("profile", profile((args.classes or [100_000])[0]))
    elif args.verb == "memory":
        save("memory", memory(args.classes or [100_000, 1_000_000]))
    elif args.verb == "exactness":
        save("exactness", exactness())
    elif args.verb == "large":
        save("large", large(args.folder, args.classes or [10**n for n in (4, 5, 6, 7)], args.stretch))
    elif args.verb == "one":
        one(args.classes[0], args.name)
    elif args.verb == "mapped":
        mapped(args.file, args.repeats)
    else:
        for name, text in tables().items():
            put_table("head.md", name, text)
        if {"speed", "large"} <= tables().keys():
            plot()


if __name__ == "__main__":
    main()
