"""One contestant of `bench`, in a process of its own: it reads a command a line and answers a line of JSON."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facedistill.errors import UserError
from facedistill.export.deployable import Form
from facedistill.export.export import TARGETS
from facedistill.export.target import Run
from facedistill.models import load_model
from facedistill.run import peak

TORCH, COMPILED = "torch", "torch compiled"
WARM_UP, WARM_SECONDS = 3, 0.3  # at least so many passes, and so long
ROUND_SECONDS, ROUND_IMAGES = 0.1, 10  # of one contestant's turn


class Contestant:
    """A model or a file in its runtime. What it is comes as JSON: path, runtime, size, form."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.path, self.runtime = Path(about["path"]), about["runtime"]
        self.form = Form(**about["form"])
        self.images = np.random.default_rng(0).integers(0, 256, (64, 3, about["size"], about["size"]), dtype=np.uint8)
        self.before = peak()
        self.run: Run = lambda images: images
        self.turn = 1

    def open(self, threads: int) -> dict[str, Any]:
        """Open the file with so many threads, and run it until it is warm."""
        self.run = self._opened(threads)
        times: list[float] = []
        while len(times) < WARM_UP or sum(times) < WARM_SECONDS:
            times.append(self._seconds(1))
        self.turn = max(1, min(ROUND_IMAGES, int(ROUND_SECONDS / max(min(times), 1e-6))))
        return {}

    def latency(self) -> dict[str, Any]:
        """A turn of single images, milliseconds of each."""
        return {"ms": [1000 * self._seconds(1) for _ in range(self.turn)]}

    def throughput(self, batch: int) -> dict[str, Any]:
        """Images per second; the first pass, which may allocate, does not count."""
        self._seconds(batch)
        return {"rate": batch / min(self._seconds(batch) for _ in range(2))}

    def memory(self) -> dict[str, Any]:
        """Bytes that the process has held, and those beyond PyTorch and this program."""
        return {"process": peak(), "network": max(0, peak() - self.before)}

    def _opened(self, threads: int) -> Run:
        if self.runtime not in (TORCH, COMPILED):
            return TARGETS[self.runtime]().open(self.path, self.form, threads)
        torch.set_num_threads(threads)
        torch._dynamo.reset()
        model: Callable[[torch.Tensor], torch.Tensor] = load_model(self.path, classifier=False)
        if self.runtime == COMPILED:
            model = torch.compile(model)
        return lambda images: model(torch.from_numpy(images)).numpy()

    def _seconds(self, batch: int) -> float:
        part = self.images[:batch]
        start = time.perf_counter()
        self.run(part)
        return time.perf_counter() - start


def main() -> None:
    """Answer on the standard output as it was; what runtimes print there goes where errors go."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant = None
    with torch.inference_mode():
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            try:
                if contestant is None:
                    contestant, answer = Contestant(*arguments), {}
                else:
                    answer = getattr(contestant, command)(*arguments)
            except UserError as e:
                answer = {"error": str(e)}
            except Exception as e:  # whatever a runtime or a compiler raises
                answer = {"error": f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"}
            print(json.dumps(answer), file=answers, flush=True)
