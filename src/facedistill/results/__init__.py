"""Read, tabulate and draw stored evaluations. Imports no torch."""

from facedistill.results.across_runs import differences_to, over_seeds
from facedistill.results.bench import accuracy_of, render_bench, write_bench
from facedistill.results.html import pictures, require, write_comparison, write_report
from facedistill.results.rendering import markdown, render, render_comparison, render_table
from facedistill.results.stored import load_evaluations, load_logs, without_resamples

__all__ = [
    "accuracy_of",
    "differences_to",
    "load_evaluations",
    "load_logs",
    "markdown",
    "over_seeds",
    "pictures",
    "render",
    "render_bench",
    "render_comparison",
    "render_table",
    "require",
    "without_resamples",
    "write_bench",
    "write_comparison",
    "write_report",
]
