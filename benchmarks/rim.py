"""RIM's hallucination network before the recognisers of the low-resolution study: is it worth its price?

    python benchmarks/low_resolution.py run --data FACES --teacher T.onnx --lfw lfw.bin --runs R [--seeds 0]
    python benchmarks/rim.py --data FACES --priors INDEX --teacher T.onnx --lfw lfw.bin --runs R [--seeds 0]
    python benchmarks/low_resolution.py table --runs R

The second command trains the network once, by pairs with the features of the first "clean" student, and measures it
before the teacher, before the student that was trained on clean faces, and before HRN, the residual pair that saw
degraded ones. Then it trains network and HRN jointly, for each seed, from the same parts. Its results are files in R,
rows beside those of the plainer ways; finished ones are skipped, and a stopped training resumes.

`--changes key=value` changes both trainings, for a trial.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from low_resolution import BEHIND, BEST, MARGIN, SIZE, SIZES, embedded, measured, timed
from short_study import cost, store
from torch import Tensor

from facedistill.backbones import Backbone, count_macs, count_parameters
from facedistill.data import Dataset, open_dataset
from facedistill.files import fingerprint
from facedistill.hallucination import FHN, network_of
from facedistill.hallucination.pairs import to_pixels
from facedistill.models import Model, load_model

HOLD_OUT = 0.05  # of the people, on whom the network itself is measured
OF_SOFTMAX = f"method.terms.margin_softmax.margin_options.size={MARGIN}"
PAIRS = ("schedule.epochs=1", "schedule.lr=0.002")
JOINT = ("schedule.epochs=1", "schedule.lr=0.05", "schedule.warmup_epochs=0.2", "schedule.batch=32", OF_SOFTMAX)


class BeforeAny(Backbone):
    """A network before any model, an ONNX file too: for measuring in this process; it cannot be saved.

    `seen` keeps the faces that the network made of each batch, so that all recognisers behind it share its work. One
    image alone, whose latency is measured, is always computed.
    """

    foreign, has_features = True, False

    def __init__(self, network: FHN, size: int, recogniser: Model, seen: dict[str, Tensor]) -> None:
        super().__init__(recogniser.embedding_dim, size)
        self.network, self.recogniser, self.seen = network, recogniser, seen

    def forward(self, x: Tensor) -> Tensor:
        return self.recogniser(to_pixels(self._faces(x)))

    def _faces(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            return self.network(x)
        key = fingerprint(x.numpy())
        if key not in self.seen:
            self.seen[key] = self.network(x)
        return self.seen[key]

    def content(self) -> bytes:
        return self.recogniser.fingerprint().encode()

    def count_parameters(self) -> int:
        return count_parameters(self.network) + self.recogniser.parameters_count()

    def count_macs(self) -> int:
        return count_macs(self.network, self.input_size) + (self.recogniser.macs() or 0)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    runs, lfw, teacher = Path(args.runs), open_dataset(args.lfw), load_model(args.teacher)
    gallery, sizes = embedded(teacher, lfw, None), [size or None for size in args.sizes]
    first = runs / f"clean-{args.seeds[0]}"
    common = (f"data.train={args.data}", f"teacher={args.teacher}", f"hallucination.size={SIZE}")
    with_priors = (f"teachers.features={first}", f"hallucination.priors={args.priors}", f"data.hold_out={HOLD_OUT}")
    trained(runs / "fhn", "pairs", "fhn", (*common, *with_priors, *PAIRS, *args.changes))
    for seed in args.seeds if "fhn_joint" in args.only else []:
        joint = runs / f"fhn_joint-{seed}"
        if not (joint / "pairs").exists():
            shutil.copytree(runs / "fhn" / "pairs", joint / "pairs")
        options = (f"student.start={runs / f'residual-{seed}'}", f"seed={seed}", "data.hold_out=0", "check.own_class=0")
        trained(joint, "joint", BEST, (*common, *options, *JOINT, *args.changes))
    network, size = network_of(runs / "fhn")
    figures = json.loads((runs / "fhn" / "pairs" / "measures.json").read_text("utf-8"))
    apart = {key: figures[key] for key in ("epochs", "seconds", "images", "data")}
    seen: dict[str, Tensor] = {}
    for row, recogniser in ((row, BEHIND[row]) for row in args.only):
        for seed in args.seeds if recogniser != "teacher" else args.seeds[:1]:
            if (done := runs / f"{row}-{seed}.json").exists():
                continue
            found: dict[str, Any] = {"method": row, "seed": seed}
            if row == "fhn_joint":
                joint = runs / f"{row}-{seed}" / "joint"
                model, found = load_model(joint), found | cost(joint)
            else:
                behind = teacher if recogniser == "teacher" else load_model(runs / f"{recogniser}-{seed}")
                model, found = Model(BeforeAny(network, size, behind, seen), space=behind.space).eval(), found | apart
                found |= {"network": figures["rows"]} if recogniser == "teacher" else {}
            found |= measured(model, lfw, gallery, sizes)
            if row == "fhn_teacher":
                found["identity"] = {
                    by: identity(one, lfw, gallery, sizes) for by, one in (("enlarged", teacher), ("FHN", model))
                }
            store(done, found)
    timed(runs, teacher, args.seeds[0])


def identity(model: Model, lfw: Dataset, gallery: np.ndarray, sizes: Sequence[int | None]) -> dict[str, float]:
    """Return the mean cosine of faces of few pixels to themselves, unchanged, in the gallery, by size."""
    sides = (size for size in sizes if size)
    return {str(size): round(float((embedded(model, lfw, size) * gallery).sum(1).mean()), 4) for size in sides}


def trained(out: Path, stage: str, recipe: str, options: tuple[str, ...]) -> None:
    """Train a stage in the run `out`; a finished one is left as it is."""
    words = ("hallucinate", "train", recipe, "--out", str(out), "--stage", stage, *options)
    subprocess.run([sys.executable, "-m", "facedistill", *words], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("data", "priors", "teacher", "lfw", "runs"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    whole = [size or 0 for size in SIZES]
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=whole, default=whole, help="of the probes; 0: unchanged"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(BEHIND), default=list(BEHIND), help="some of the rows")
    parser.add_argument("--changes", nargs="*", default=[], metavar="KEY=VALUE")
    parser.set_defaults(verb=run)
    run_verb(parser)
