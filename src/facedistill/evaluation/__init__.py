"""Verification protocols, metrics and statistics; `evaluate` runs them and returns the evaluation JSON."""

from facedistill.evaluation.run import evaluate
from facedistill.evaluation.statistics import paired_difference
from facedistill.evaluation.table import render_table

__all__ = ["evaluate", "paired_difference", "render_table"]
