"""What the tests of the terms share: a batch with labels, and the plain formulas of unit rows and distances."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from facedistill.data.batch import Batch, Output
from facedistill.terms import Term


def batch_of(labels: Sequence[int]) -> Batch:
    """A batch of which a term reads the labels alone."""
    pixels = torch.zeros(len(labels), 3, 2, 2)
    of = torch.tensor(labels)
    return Batch(pixels, pixels, [(of, 1.0)], torch.zeros(len(labels), 2, dtype=torch.long), 0.5, of)


def draw(count: int, dim: int, seed: int, trained: bool = False) -> Tensor:
    """Float64 embeddings (count, dim) of any norm."""
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * x).requires_grad_(trained)


def unit(x: Tensor) -> np.ndarray:
    """Rows of length 1, in numpy."""
    a = x.detach().double().numpy()
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def rotation(dim: int) -> Tensor:
    """An orthogonal matrix that is no permutation."""
    return torch.linalg.qr(draw(dim, dim, 99)).Q


def loss_and_gradient(term: Term, student: Tensor, teacher: Tensor, labels: Sequence[int]) -> tuple[float, Tensor]:
    """The term's loss of these embeddings, and its gradient at the student's; both must be finite."""
    x = student.detach().clone().requires_grad_()
    loss = term(Output(x), Output(teacher), batch_of(labels))
    loss.backward()
    assert loss.ndim == 0 and loss.dtype == torch.float32 and torch.isfinite(loss)
    assert x.grad is not None and torch.isfinite(x.grad).all()
    return loss.item(), x.grad
