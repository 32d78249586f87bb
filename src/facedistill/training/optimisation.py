"""The optimiser, its parameter groups and the learning rate of every step."""

import math

import torch
from torch import nn

from facedistill.recipe import Schedule


def make_optimizer(method: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Return SGD or AdamW on the trained parameters; `decay_norms: false` does not decay those of one dimension."""
    trained = [p for p in method.parameters() if p.requires_grad]
    decayed = [p for p in trained if schedule.decay_norms or p.ndim > 1]
    spared = [p for p in trained if not schedule.decay_norms and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum)
    return torch.optim.AdamW(groups, lr=schedule.lr)


def learning_rate(schedule: Schedule, step: int, steps_per_epoch: int) -> float:
    """Return the rate of `step` (from 0): linear warm-up, then step, polynomial or cosine decay to the end."""
    total, warmup = schedule.epochs * steps_per_epoch, schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return schedule.lr * min(1.0, (step + 1) / warmup)
    progress = (step - warmup) / max(1.0, total - warmup)
    if schedule.decay == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * progress))
    elif schedule.decay == "polynomial":
        factor = (1 - progress) ** schedule.power
    elif schedule.decay == "step":
        factor = 0.1 ** sum(step >= m * steps_per_epoch for m in schedule.milestones)
    else:
        factor = 1.0
    return schedule.lr * factor
