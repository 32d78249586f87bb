"""From a recipe to a trained model."""

from facedistill.training.assemble import Assembly, assemble
from facedistill.training.distill import distillation_recipe
from facedistill.training.engine import fast_cpu, measure, step_seed, stop_if_not_finite, to_batch, train
from facedistill.training.images import open_training_data
from facedistill.training.method import Method, missing_teachers, wire_terms
from facedistill.training.optimisation import learning_rate, make_optimizer
from facedistill.training.resolved import resolve
from facedistill.training.resume import bound_to, checkpoint, restore, written_out
from facedistill.training.subsets import read_subsets, save_subsets, similar_subsets
from facedistill.training.sweep import combinations, plan, sweep
from facedistill.training.teacher import Teacher

__all__ = [
    "Assembly",
    "Method",
    "Teacher",
    "assemble",
    "bound_to",
    "checkpoint",
    "combinations",
    "distillation_recipe",
    "fast_cpu",
    "learning_rate",
    "make_optimizer",
    "measure",
    "missing_teachers",
    "open_training_data",
    "plan",
    "read_subsets",
    "resolve",
    "restore",
    "save_subsets",
    "similar_subsets",
    "step_seed",
    "stop_if_not_finite",
    "sweep",
    "to_batch",
    "train",
    "wire_terms",
    "written_out",
]
