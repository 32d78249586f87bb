"""Train a class matrix W, and a linear adaptor before it, on frozen embeddings with the margin softmax."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.head.margins import Margin, margin_softmax
from facedistill.progress import track


def fit(
    vectors: Tensor,
    labels: Tensor,
    weight: Tensor,
    margin: Margin,
    scale: float,
    epochs: int = 20,
    batch: int = 512,
    lr: float = 2e-3,
    adaptor: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return W and the adaptor after training; both arguments stay as they are.

    Adam with a cosine schedule; each step draws an image or its mirror image. Deterministic. A margin that adapts
    (AdaFace, CurricularFace) is copied, so that the student's own margin does not adapt to these embeddings.

    Args:
        vectors: raw embeddings (N, F, D), one for each flip. labels: int64 (N,).
        weight: the first W (C, d). adaptor: the first linear map (d, D), trained along; None: D = d, no map.
    """
    margin = copy.deepcopy(margin)
    trained = [nn.Parameter(rows.clone()) for rows in (weight, adaptor) if rows is not None]
    steps = epochs * -(-len(labels) // batch)
    optimizer = torch.optim.Adam(trained, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[Tensor]:
        for _ in range(epochs):
            yield from torch.randperm(len(labels), generator=generator).split(batch)

    for rows in track(batches(), "fitting W on the teacher's embeddings", steps, unit="steps"):
        flips = torch.randint(vectors.shape[1], (len(rows),), generator=generator)
        x, own = vectors[rows, flips], trained[0].detach()[labels[rows]]
        x = x if adaptor is None else x @ trained[1].T
        with torch.no_grad():
            margin.update(F.cosine_similarity(x, own), x.norm(dim=1))
        loss = margin_softmax(x, labels[rows], trained[0], margin, scale).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return trained[0].detach(), None if adaptor is None else trained[1].detach()
