"""A Teacher: a frozen Model, or its cached embeddings, under a name. Never wrapped, trained, saved or broadcast."""

from collections.abc import Sequence, Set
from pathlib import Path

import torch

from facedistill.data import Batch, Embeddings, Output
from facedistill.errors import UserError
from facedistill.head import Classifier
from facedistill.models import Model, load_weights


class Teacher:
    """A frozen teacher that returns the outputs that the terms need, from its cache or by running the network.

    Args:
        name: its name in the recipe.
        model: frozen here; may be an embeddings-only model if `cache` is given.
        classifier: the teacher's class matrix in the order of the training classes, if it has one.
        cache: embeddings of the training set (N, 2, d), image and mirror image, or (N, 1, d) if batches have no mirror
            images; rows in the order of the data set. The network then never runs during training.
        epochs: files with its weights after each of its own epochs, one for every epoch of the student. In each epoch
            the teacher is then as far as the student (PocketNet's multi-step distillation, arXiv 2108.10710).
    """

    CACHED = frozenset({"embedding", "logits"})  # outputs that a cache can give; logits are embeddings times W

    def __init__(
        self,
        name: str,
        model: Model,
        classifier: Classifier | None = None,
        cache: Embeddings | None = None,
        epochs: Sequence[Path] = (),
    ) -> None:
        self.epochs = epochs
        self.name, self.model, self.classifier = name, model.eval().requires_grad_(False), classifier
        self.space, self.dim = model.space, model.embedding_dim
        self.cache = None if cache is None else torch.from_numpy(cache.vectors)

    @property
    def cached(self) -> bool:
        """True if the network never runs during training."""
        return self.cache is not None

    def __call__(self, batch: Batch, needs: Set[str]) -> Output | None:
        """Return the teacher's output for the batch; None, and nothing runs, if nothing is needed."""
        if not needs:
            return None
        if self.cache is not None and needs <= self.CACHED:
            rows = batch.index.to(self.cache.device)
            if self.cache.shape[1] == 1 and rows[:, 1].any():
                raise UserError(
                    f"teacher '{self.name}': its cache has no mirror images; embed them, or set data.mirror=false"
                )
            vectors = self.cache[rows[:, 0], rows[:, 1]]
            return Output(vectors.to(batch.images.device, non_blocking=True))
        with torch.inference_mode(), torch.autocast(batch.images.device.type, enabled=False):
            output = self.model.outputs(batch.teacher_images, features="features" in needs)
        # A copy outside inference mode: autograd may save it for the student's backward.
        return Output(output.embedding.clone(), tuple(f.clone() for f in output.features))

    def start_epoch(self, epoch: int) -> None:
        """Load the weights of the epoch (from 0) that begins, if there are weights of each epoch."""
        if self.epochs:
            load_weights(self.model, self.epochs[epoch])
