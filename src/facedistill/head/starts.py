"""Where the class matrix W starts when the teacher brings none: random, class centres, every image, or fitted."""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.data import Embeddings
from facedistill.data.sources import classes_with_images
from facedistill.head.classifier import Classifier
from facedistill.head.margins import Margin, margin_softmax
from facedistill.progress import track


def random_classifier(class_names: Sequence[str], dim: int, seed: int) -> Classifier:
    """Rows drawn uniformly from the unit sphere in R^dim, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return Classifier(torch.randn(len(class_names), dim, generator=generator), class_names, "random")


def centres(embeddings: Embeddings) -> Classifier:
    """Class centres: the mean over a class's images of the unit embedding (image and mirror image summed), normalised.

    Classes without an image have no row. `counts` holds the images per class, so that a sample's own share can be taken
    out again (leave-one-out).
    """
    vectors = torch.from_numpy(embeddings.fused("sum"))
    labels, class_names = classes_with_images(embeddings.labels, embeddings.class_names)
    rows = torch.from_numpy(labels)
    counts = torch.bincount(rows)
    sums = torch.zeros(len(counts), vectors.shape[1]).index_add_(0, rows, vectors)
    return Classifier(sums, class_names, "centres", counts)


def instances(embeddings: Embeddings) -> Classifier:
    """Every image is a class of its own: its row is the teacher's embedding (both flips summed). Needs no labels."""
    return Classifier(torch.from_numpy(embeddings.fused("sum")), embeddings.keys, "instances")


def fit_classifier(
    embeddings: Embeddings, margin: Margin, scale: float, epochs: int = 20, batch: int = 512, lr: float = 2e-3
) -> Classifier:
    """W trained alone on the teacher's frozen embeddings with the margin softmax, starting from the class centres.

    Adam with a cosine schedule; each step draws an image or its mirror image. Deterministic. A margin that adapts
    (AdaFace, CurricularFace) does so to the teacher's embeddings, in a copy: the student's starts anew.
    """
    margin = copy.deepcopy(margin)
    start = centres(embeddings)
    rows_of_start, _ = classes_with_images(embeddings.labels, embeddings.class_names)
    vectors, labels = torch.from_numpy(embeddings.vectors), torch.from_numpy(rows_of_start)
    weight = nn.Parameter(start.weight.clone())
    steps = epochs * -(-len(labels) // batch)
    optimizer = torch.optim.Adam([weight], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[Tensor]:
        for _ in range(epochs):
            yield from torch.randperm(len(labels), generator=generator).split(batch)

    for rows in track(batches(), "fitting W on the teacher's embeddings", steps, unit="steps"):
        flips = torch.randint(vectors.shape[1], (len(rows),), generator=generator)
        x, own = vectors[rows, flips], weight.detach()[labels[rows]]
        margin.update(F.cosine_similarity(x, own), x.norm(dim=1))
        loss = margin_softmax(x, labels[rows], weight, margin, scale).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Classifier(weight, start.class_names, "fitted", None)
