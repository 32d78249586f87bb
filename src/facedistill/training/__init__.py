"""From a recipe to a trained model."""

from facedistill.training.assemble import Assembly, assemble
from facedistill.training.distill import distillation_recipe
from facedistill.training.engine import measure, train
from facedistill.training.images import open_training_data
from facedistill.training.method import Method, missing_teachers
from facedistill.training.optimisation import make_optimizer
from facedistill.training.sweep import combinations, plan, sweep
from facedistill.training.teacher import Teacher

__all__ = [
    "Assembly",
    "Method",
    "Teacher",
    "assemble",
    "combinations",
    "distillation_recipe",
    "make_optimizer",
    "measure",
    "missing_teachers",
    "open_training_data",
    "plan",
    "sweep",
    "train",
]
