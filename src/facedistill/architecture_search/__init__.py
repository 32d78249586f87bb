"""Differentiable architecture search: a supernet's operations get weights, and the strongest make a network's cells."""

from facedistill.architecture_search.loop import GENOTYPE, search

__all__ = ["GENOTYPE", "search"]
