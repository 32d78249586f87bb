"""Read, tabulate and draw stored evaluations. Imports no torch."""

from facedistill.results.across_runs import differences_to, over_seeds
from facedistill.results.html import require, write_comparison, write_report
from facedistill.results.rendering import markdown, render, render_comparison, render_table
from facedistill.results.stored import load_evaluations, load_logs, without_resamples

__all__ = [
    "differences_to",
    "load_evaluations",
    "load_logs",
    "markdown",
    "over_seeds",
    "render",
    "render_comparison",
    "render_table",
    "require",
    "without_resamples",
    "write_comparison",
    "write_report",
]
