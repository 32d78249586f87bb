"""The evaluation JSON as one HTML file that needs nothing else: no network, no script, no second file."""

from facedistill.report.html import require, write_comparison, write_report

__all__ = ["require", "write_comparison", "write_report"]
