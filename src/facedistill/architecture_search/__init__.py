"""Differentiable architecture search: a supernet's operations get weights, and the strongest make a network's cells."""

from facedistill.architecture_search.loop import GENOTYPE, WEIGHTS, search
from facedistill.architecture_search.space import Weights, log_likelihood, random_genotype, read_weights
from facedistill.architecture_search.student import search_and_train

__all__ = [
    "GENOTYPE",
    "WEIGHTS",
    "Weights",
    "log_likelihood",
    "random_genotype",
    "read_weights",
    "search",
    "search_and_train",
]
