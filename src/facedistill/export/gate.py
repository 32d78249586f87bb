"""The gate: does an exported file embed as the model does? It runs the file in the target's own runtime."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# precision -> least mean cosine between file and model, least first percentile.
CLOSE = {"fp32": (0.9999, 0.999), "fp16": (0.9999, 0.999), "int8": (0.99, 0.97)}
SPREAD = 0.05  # the spread of embeddings may differ by this share
LOST = 0.01  # TAR that an export may cost at the false-accept rate of the check
UNIT = 1e-3  # the length of an embedding of unit length may be off by this


@dataclass
class Gate:
    """What the gate measured.

    Attributes:
        images: how many were compared. mean_cosine, first_percentile: between the file's embedding of an image and the
            model's. spread: the mean distance of unit embeddings from their mean, of the file over that of the model.
        rates: with a verification set: what was compared -> {"model": TAR, "file": TAR, "far": FAR}.
        faults: what failed, a sentence each.
    """

    precision: str
    images: int
    mean_cosine: float
    first_percentile: float
    spread: float
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}

    def text(self) -> str:
        """Return what a person reads, a line for each measure."""
        mean, low = CLOSE[self.precision]
        lines = [
            f"cosine to the model over {self.images} images: mean {self.mean_cosine:.5f} (at least {mean}), "
            f"first percentile {self.first_percentile:.5f} (at least {low})",
            f"spread of embeddings: {self.spread:.3f} of the model's (0.95 to 1.05)",
        ]
        lines += [
            f"{name}: TAR {100 * rate['file']:.2f} at FAR {rate['far']:g}, the model {100 * rate['model']:.2f}"
            for name, rate in self.rates.items()
        ]
        return "\n".join([*lines, *(f"FAILED: {fault}" for fault in self.faults)])

    def add_rate(self, name: str, model: float, file: float, far: float) -> None:
        """Add a rate of the verification set, and the fault if the file loses too much."""
        self.rates[name] = {"model": model, "file": file, "far": far}
        if model - file > LOST:
            self.faults.append(
                f"{name}: TAR at FAR {far:g} fell from {100 * model:.2f} to {100 * file:.2f}; expected at most 1 point"
            )


def compare(expected: np.ndarray, found: np.ndarray, precision: str, normalised: bool) -> Gate:
    """Compare the file's embeddings (N, d) with the model's, row by row.

    Args:
        expected: of the model, any length. normalised: whether the file's are to have unit length.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        shape = f"shape {found.shape}" if found.shape != expected.shape else "values that are not finite"
        fault = f"the file gives {shape}; expected finite embeddings of shape {expected.shape}"
        return Gate(precision, len(expected), 0.0, 0.0, 0.0, faults=[fault])
    lengths = np.linalg.norm(found, axis=1)
    cosine = (_unit(expected) * _unit(found)).sum(1)
    gate = Gate(
        precision,
        len(expected),
        float(cosine.mean()),
        float(np.percentile(cosine, 1)),
        _spread(found) / max(_spread(expected), 1e-12),
    )
    mean, low = CLOSE[precision]
    if gate.mean_cosine < mean:
        gate.faults.append(f"mean cosine to the model is {gate.mean_cosine:.5f}; expected at least {mean}")
    if gate.first_percentile < low:
        gate.faults.append(f"first percentile of the cosine is {gate.first_percentile:.5f}; expected at least {low}")
    if not 1 - SPREAD <= gate.spread <= 1 + SPREAD:
        gate.faults.append(
            f"embeddings spread {gate.spread:.2f} times as far as the model's; expected 0.95 to 1.05: the file gives "
            f"{'nearly the same embedding for every image' if gate.spread < 0.5 else 'other embeddings'}"
        )
    if normalised and np.abs(lengths - 1).max() > UNIT + (0.01 if precision == "int8" else 0):
        gate.faults.append(f"embeddings have lengths from {lengths.min():.3f} to {lengths.max():.3f}; expected 1")
    return gate


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _spread(vectors: np.ndarray) -> float:
    unit = _unit(vectors)
    return float(np.linalg.norm(unit - unit.mean(0), axis=1).mean())
