"""Probabilistic knowledge transfer: the same neighbours with the same probabilities."""

import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.data import Batch
from facedistill.terms.term import Relation


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_i KL(p_T(.|i) || p_S(.|i)), p(j|i) = K_ij / sum_{k != i} K_ik with K = (cos + 1) / 2 (arXiv 1803.10837).

    The paper sums over i; public code averages over all B^2 entries, the image itself among them: its weight of 30000
    at batch 64 is 30000 / 64 = 469 here.

    Shapes: (B, d_S), (B, d_T) -> scalar. 0 for one image.
    """
    log_s, log_t = (_neighbours(x).log() for x in (student, teacher))
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def _neighbours(x: Tensor) -> Tensor:
    """p(j|i), j != i: (B, B - 1)."""
    x = F.normalize(x, dim=1)
    kernel = ((x @ x.T + 1) / 2).clamp_min(1e-6)  # 0 for opposite embeddings, whose logarithm would be infinite
    others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    return F.normalize(kernel[others].view(len(x), len(x) - 1), p=1, dim=1)


class PKT(Relation):
    """Probabilistic knowledge transfer with the cosine kernel."""

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return pkt(student, teacher)
