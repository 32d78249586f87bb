"""The first run of an ONNX graph, in a process of its own with a time limit: a graph may loop without end or crash.

The process runs this file as a script, which imports numpy and onnxruntime alone and starts in a third of a second.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 60.0  # seconds
LIMIT_VARIABLE = "FACEDISTILL_ONNX_SECONDS"
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # tried in turn where the graph leaves the batch open
NEAR = 5e-3  # of the largest value: what batches may differ by, also in float16


@dataclass(frozen=True)
class Trial:
    """What the graph did.

    Attributes:
        error: why it did not load or run, in onnxruntime's words; "" if it ran. loaded: whether it loaded.
        batch: images it takes at a time; None for any number, each embedded as if it were alone.
        shape, kind: of the output for that many images (for one, if any number).
    """

    error: str = ""
    loaded: bool = True
    batch: int | None = None
    shape: tuple[int, ...] = ()
    kind: str = ""

    @property
    def dim(self) -> int:
        """The size of an embedding, or 0 if the output is no embeddings: one vector an image, such as N x d x 1 x 1."""
        count, *rest = self.shape if len(self.shape) > 1 else (1, *self.shape)
        one_vector = count == (self.batch or 1) and sum(side > 1 for side in rest) <= 1
        return int(np.prod(rest)) if self.kind.startswith("float") and one_vector and self.shape else 0


def tried(path: Path, name: str, output: str, shape: list[int | None], kind: str) -> Trial:
    """Run the graph on noise: its input `name` of `shape` (None: an open batch) and numpy type `kind`.

    A file that has not changed is tried once in a process.
    """
    stat = path.stat()
    return _tried(str(path), stat.st_mtime_ns, stat.st_size, name, output, tuple(shape), kind)


@lru_cache(maxsize=64)
def _tried(path: str, time: int, size: int, name: str, output: str, shape: tuple[int | None, ...], kind: str) -> Trial:
    limit = float(os.environ.get(LIMIT_VARIABLE) or LIMIT)
    job = json.dumps({"path": path, "name": name, "output": output, "shape": shape, "kind": kind})
    command = [sys.executable, "-P", __file__]  # -P: the script's folder, which holds an onnx.py, is not on the path
    try:
        ran = subprocess.run(command, input=job, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Trial(f"not done after {limit:g} seconds; set {LIMIT_VARIABLE} to allow more")
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [""])[-1]
        return Trial(f"its process ended with code {ran.returncode} {last}".strip())
    found = json.loads(ran.stdout.splitlines()[-1])
    return Trial(**found | {"shape": tuple(found.get("shape", ()))})


def one_line(error: BaseException) -> str:
    """Return the message without line breaks and control characters."""
    text = "".join(c if c.isprintable() else " " for c in str(error) or type(error).__name__)
    return " ".join(text.split())[:600]


def _try(path: str, name: str, output: str, shape: list[int | None], kind: str) -> dict[str, Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # the error itself says it
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises its own classes, which share no base but Exception
        return {"error": one_line(e), "loaded": False}

    def run(count: int) -> np.ndarray:
        sides = [int(side or 1) for side in shape[1:]]
        images = np.random.default_rng(0).integers(0, 256, [count, *sides], dtype=np.uint8)
        images[0] = 96 + images[0] // 4  # of less contrast than the others, which would show in a scale of the batch
        return session.run([output], {name: images.astype(kind)})[0]

    error, fixed = "", shape[0]
    for count in (fixed,) if fixed else BATCHES:
        try:
            found = run(count)
        except Exception as e:
            error = error or one_line(e)
            continue
        batch = count if fixed or not _open(run, found) else None
        return {"batch": batch, "shape": found.shape, "kind": str(found.dtype)}
    return {"error": error}


def _open(run: Any, one: np.ndarray) -> bool:
    """Whether the graph takes two images, and gives the first the embedding that it has alone."""
    try:
        two = run(2)
    except Exception:
        return False
    if len(one) != 1 or two.shape != (2, *one.shape[1:]):
        return False
    alone, together = one[0].astype(np.float64), two[0].astype(np.float64)
    return bool(np.allclose(alone, together, rtol=0, atol=NEAR * np.abs(alone).max(initial=0), equal_nan=True))


if __name__ == "__main__":
    print(json.dumps(_try(**json.load(sys.stdin))))
