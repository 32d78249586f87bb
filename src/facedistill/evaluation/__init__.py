"""Protocols, metrics and statistics; `evaluate` runs them and returns the evaluation JSON."""

from facedistill.evaluation.markdown import render_comparison, render_table
from facedistill.evaluation.run import evaluate
from facedistill.evaluation.sets import open_sets
from facedistill.evaluation.statistics import paired_difference

__all__ = ["evaluate", "open_sets", "paired_difference", "render_comparison", "render_table"]
