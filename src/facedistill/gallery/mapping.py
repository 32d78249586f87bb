"""A learned map from the embeddings of an old model to those of a new one: stored vectors move to the new space.

It is fitted on images that both models embed; who is on them does not matter. Three maps are tried, from few numbers to
many, and images that none of them saw decide. What a map cannot give back is what the old model never saw: mapped
vectors stay below those that the new model makes of the photos themselves.
"""

from collections.abc import Iterator, Mapping as Dict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.models import save_tensors
from facedistill.progress import track

LEAST_IMAGES = 200  # with fewer, the held-out fifth decides by chance
HELD_OUT = 5  # every fifth image, in random order
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # of ridge regression, as a share of the mean square of a dimension
WIDTH, EPOCHS, BATCH, RATE = 512, 40, 256, 1e-3  # of the network
TENSORS = {"rotation": {"linear"}, "ridge": {"linear", "bias"}, "network": {"linear", "bias", "first", "shift", "last"}}


@dataclass(frozen=True)
class Mapping:
    """A map of unit rows (N, d) to unit rows (N, d').

    Attributes:
        kind: "rotation", "ridge" or "network".
        tensors: float32: linear (d, d'); bias (d',); first (d, h), shift (h,) and last (h, d') of the network.
        old, new: the spaces that it leads from and to.
        images: the number it was fitted on. cosine, separation: of the held-out images, see `fit_mapping`.
    """

    kind: str
    tensors: Dict[str, Tensor]
    old: str
    new: str
    images: int = 0
    cosine: float = 0.0
    separation: float = 0.0

    @property
    def dims(self) -> tuple[int, int]:
        """The dimensions of both spaces."""
        first, last = self.tensors["linear"].shape
        return first, last

    @torch.no_grad()
    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return the mapped rows, float32, of unit length."""
        x = F.normalize(torch.tensor(vectors, dtype=torch.float32), dim=1)
        return F.normalize(_forward(self.tensors, x), dim=1).numpy()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file. Raises UserError when that is not possible."""
        about = {name: str(getattr(self, name)) for name in ("kind", "old", "new", "images", "cosine", "separation")}
        with atomic_write(path) as temporary:
            save_tensors(self.tensors, temporary, about)

    @classmethod
    def load(cls, path: str | Path) -> "Mapping":
        """Read what `save` wrote. Raises UserError if the file is missing, damaged or no map."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; expected a map that `facedistill upgrade` saved")
        try:
            with safe_open(path, "pt") as f:
                about = f.metadata() or {}
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict
            figures = int(about["images"]), float(about["cosine"]), float(about["separation"])
            found = cls(about["kind"], tensors, about["old"], about["new"], *figures)
        except (SafetensorError, OSError, KeyError, ValueError) as e:
            raise UserError(f"{path}: not a map of `facedistill upgrade`, or damaged ({e}); fit it again") from e
        found._require_whole(path)
        return found

    def _require_whole(self, path: str | Path) -> None:
        """Raise UserError unless the tensors are those of this kind of map, fit together, and are finite."""
        if self.tensors.keys() != TENSORS.get(self.kind):
            raise UserError(f"{path}: holds {', '.join(self.tensors)} for a map '{self.kind}'; fit it again")
        try:
            finite = bool(torch.isfinite(_forward(self.tensors, torch.zeros(1, self.tensors["linear"].shape[0]))).all())
        except (RuntimeError, ValueError) as e:
            raise UserError(f"{path}: its tensors do not fit together ({e}); fit it again") from e
        if not finite or not all(bool(torch.isfinite(t).all()) for t in self.tensors.values()):
            raise UserError(f"{path}: holds numbers that are not finite; fit it again")


def fit_mapping(old: np.ndarray, new: np.ndarray, old_space: str = "", new_space: str = "") -> tuple[Mapping, str]:
    """Fit the maps to images that both models embedded; return the best, and a line that compares them.

    Every fifth image, in seeded order, is held out. The map with the highest separation there is taken: how many
    standard deviations an image's own mapped vector lies above those of other images, seen from the new model's
    embedding. (The mean cosine would favour a map to the mean of a narrow cone, which tells nobody apart.)

    Args:
        old, new: unit rows, float32 (N, d) and (N, d'), row for row of the same images; labels play no part.

    Raises:
        UserError: fewer than 200 images.
    """
    if len(old) != len(new) or len(old) < LEAST_IMAGES:
        raise UserError(
            f"a map between two models needs at least {LEAST_IMAGES} images, better some thousands; {len(old):,} were "
            "given"
        )
    order = np.random.default_rng(0).permutation(len(old))
    held, fitted = order[::HELD_OUT], np.delete(order, np.s_[::HELD_OUT])
    x, y, x_held, y_held = (
        torch.from_numpy(np.ascontiguousarray(a)) for a in (old[fitted], new[fitted], old[held], new[held])
    )
    maps = [("rotation", rotation(x, y))]
    ridges = [("ridge", ridge(x, y, penalty)) for penalty in PENALTIES]
    maps.append(max(ridges, key=lambda found: separation(_forward(found[1], x_held), y_held)))
    maps.append(("network", network(x, y, maps[1][1])))
    tried = []
    for kind, tensors in maps:
        mapped = F.normalize(_forward(tensors, x_held), dim=1)
        cosine = float((mapped * y_held).sum(1).mean())
        tried.append(Mapping(kind, tensors, old_space, new_space, len(x), cosine, separation(mapped, y_held)))
    best = max(tried, key=lambda found: found.separation)
    each = "; ".join(f"{m.kind} {m.separation:.2f}, mean cosine {m.cosine:.3f}" for m in tried)
    return best, f"deviations above other people's images, on {len(held):,} held-out images: {each}; taken: {best.kind}"


def rotation(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Orthogonal Procrustes: the R with orthonormal rows or columns that minimises ||x R - y|| (Schoenemann 1966).

    R = U V^T of the singular value decomposition x^T y = U S V^T; semi-orthogonal if the dimensions differ.
    Shapes: (N, d), (N, d').
    """
    u, _, vt = torch.linalg.svd(x.double().T @ y.double(), full_matrices=False)
    return {"linear": (u @ vt).float()}


def ridge(x: Tensor, y: Tensor, penalty: float) -> dict[str, Tensor]:
    """Ridge regression with a free bias: min ||x A + b - y||^2 + N penalty m ||A||^2, m = the mean variance in x.

    Shapes: (N, d), (N, d').
    """
    x, y = x.double(), y.double()
    middle, target = x.mean(0), y.mean(0)
    x, y = x - middle, y - target
    gram = x.T @ x
    gram.diagonal().add_(penalty * float(gram.diagonal().mean()))
    linear = torch.linalg.solve(gram, x.T @ y)
    return {"linear": linear.float(), "bias": (target - middle @ linear).float()}


def network(x: Tensor, y: Tensor, start: Dict[str, Tensor]) -> dict[str, Tensor]:
    """A residual network on top of the ridge map: x A + b + relu(x B + c) D, trained on 1 - cos(mapped, y).

    It begins at the ridge map, because D begins at 0. Adam with a cosine schedule, deterministic.
    Shapes: (N, d), (N, d').
    """
    generator = torch.Generator().manual_seed(0)
    found = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    found["first"] = nn.Parameter(torch.randn(x.shape[1], WIDTH, generator=generator))
    found["shift"] = nn.Parameter(torch.zeros(WIDTH))
    found["last"] = nn.Parameter(torch.zeros(WIDTH, y.shape[1]))
    optimizer = torch.optim.Adam(found.values(), lr=RATE)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def batches() -> Iterator[Tensor]:
        for _ in range(EPOCHS):
            yield from torch.randperm(len(x), generator=generator).split(BATCH)

    for rows in track(batches(), "fitting a map between the models", steps, unit="steps"):
        loss = (1 - F.cosine_similarity(_forward(found, x[rows]), y[rows])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {name: tensor.detach() for name, tensor in found.items()}


def separation(mapped: Tensor, new: Tensor) -> float:
    """Return the mean over images of (cos(new_i, mapped_i) - mean_j cos(new_i, mapped_j)) / std_j, j the other images.

    Shapes: (N, d), (N, d).
    """
    scores = F.normalize(new, dim=1) @ F.normalize(mapped, dim=1).T
    own, count = scores.diagonal().clone(), len(scores) - 1
    mean = (scores.sum(1) - own) / count
    spread = ((scores - mean[:, None]).square().sum(1) - (own - mean).square()) / count
    return float(((own - mean) / spread.clamp_min(1e-12).sqrt()).mean())


def _forward(tensors: Dict[str, Tensor], x: Tensor) -> Tensor:
    """The map itself, before its result is brought to unit length."""
    y = x @ tensors["linear"]
    if "bias" in tensors:
        y = y + tensors["bias"]
    return y + torch.relu(x @ tensors["first"] + tensors["shift"]) @ tensors["last"] if "last" in tensors else y
