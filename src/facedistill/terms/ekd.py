"""Evaluation-oriented distillation: pairs rank as the teacher's do among the thresholds of low false-positive rates."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.data import Batch
from facedistill.recipe import Count, Positive, Share
from facedistill.terms.term import Relation

ONE_IN = (10, 100, 1_000, 10_000, 100_000, 1_000_000)  # false-positive rates 1e-1 to 1e-6


def thresholds(negatives: Tensor) -> Tensor:
    """Return the scores that one in 10, 100, ..., 1e6 negative pairs exceeds; the highest score if pairs are too few.

    Shapes: (N,), N > 0 -> (6,).
    """
    ranked = negatives.sort(descending=True).values
    return ranked[[len(ranked) // one_in for one_in in ONE_IN]]


def soft_rank(scores: Tensor, anchors: Tensor, temperature: float) -> Tensor:
    """r(x) = sum_k sigmoid((x - tau_k) / T): how many thresholds a score passes. Shapes: (N,), (K,) -> (N,)."""
    return ((scores[:, None] - anchors) / temperature).sigmoid().sum(1)


class EKD(Relation):
    """Evaluation-oriented distillation (arXiv 2206.02325): pairs pass as many thresholds as they do in the teacher.

    L = positives x mean (r_S - r_T)^2 over the pairs of one class + negatives x the same over the `hardest` pairs of
    two classes by the student's cosine. r softly counts the thresholds tau_k that a pair's cosine passes; each network
    has its own thresholds, at the false-positive rates 1e-1 to 1e-6. A reconstruction with the formula and constants of
    the authors' code: the paper's text was not at hand. Needs several images of a class.

    The thresholds are running means over the batches of all processes, kept in the checkpoint: plain means at first,
    then with `momentum`. (The authors' start at 0 and take hundreds of steps to come close.)

    Args:
        positives, negatives: weights. hardest: number of pairs of two classes. temperature: T of the soft rank.
        momentum: share of a new batch in the thresholds.
    """

    needs_labels = True

    student_anchors: Tensor
    teacher_anchors: Tensor
    updates: Tensor

    def __init__(
        self,
        positives: float = 0.02,
        negatives: float = 0.01,
        hardest: Count = 2000,
        temperature: Positive = 0.01,
        momentum: Share = 0.01,
    ) -> None:
        super().__init__()
        self.positives, self.negatives, self.hardest = positives, negatives, hardest
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("student_anchors", torch.zeros(len(ONE_IN)))
        self.register_buffer("teacher_anchors", torch.zeros(len(ONE_IN)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        labels = parallel.gather(batch.labels)
        first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
        same = labels[first] == labels[second]
        own, other = (_cosines(x)[first, second] for x in (student, teacher))
        if self.training and not same.all():
            self._update(own.detach()[~same], other[~same])
        hardest = own[~same].topk(min(self.hardest, int((~same).sum()))).indices
        positive = self._gap(own[same], other[same])
        negative = self._gap(own[~same][hardest], other[~same][hardest])
        return self.positives * positive + self.negatives * negative

    def _gap(self, student: Tensor, teacher: Tensor) -> Tensor:
        own = soft_rank(student, self.student_anchors, self.temperature)
        other = soft_rank(teacher, self.teacher_anchors, self.temperature)
        return F.mse_loss(own, other, reduction="sum") / max(1, len(own))

    @torch.no_grad()
    def _update(self, student: Tensor, teacher: Tensor) -> None:
        self.updates += 1
        share = (1 / self.updates).clamp_min(self.momentum).to(student)
        self.student_anchors.lerp_(thresholds(student), share)
        self.teacher_anchors.lerp_(thresholds(teacher), share)


def _cosines(x: Tensor) -> Tensor:
    x = F.normalize(x, dim=1)
    return x @ x.T
