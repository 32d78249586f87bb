"""The figures of a stage in words, and its page: the last contact sheet, the figures, the losses, and a warning."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from facedistill.files import atomic_write
from facedistill.hallucination.sheet import WARNING
from facedistill.run import LOG, read_log

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2329 }}
table {{ border-collapse: collapse; margin: 1rem 0 }} td, th {{ padding: .2rem .6rem; text-align: right }}
th {{ border-bottom: 1px solid #bbb }} img {{ max-width: 100%; image-rendering: pixelated }}
.warning {{ border-left: 4px solid #b00020; padding: .3rem 1rem; background: #fdf0f1 }}
</style>
<h1>{title}</h1>
<p class="warning"><strong>{warning}.</strong> Two different people may get the same face, and one person two. Never
use it to identify anyone.</p>
<img alt="low, bicubic, coarse, fine, truth, heat maps and parsing of some faces" src="{sheet}">
<h2>Figures</h2>
<p>{faces} {measured}. Columns that end in "bicubic" are those of the enlarged image without the network. identity: the
cosine of the teacher's embedding to that of the true face.</p>
{figures}
<h2>Losses</h2>
{losses}
</html>
"""
LINES = 24  # of the log that are shown
SPOKEN = 16  # pixels: the probe of the line after an epoch
UNITS = {"psnr": " dB", "landmark_error": " of the side"}


def told(rows: Sequence[Mapping[str, float]]) -> str:
    """Return the figures of one probe size as a line."""
    row = next((row for row in rows if row["pixels"] == SPOKEN), rows[0])
    parts = []
    for name, value in row.items():
        if name != "pixels" and not name.endswith("_bicubic"):
            beside = f" (bicubic {row[f'{name}_bicubic']:.3f})" if f"{name}_bicubic" in row else ""
            parts.append(f"{name} {value:.3f}{UNITS.get(name, '')}{beside}")
    return f"at {row['pixels']:.0f} pixels {', '.join(parts)}"


def table(rows: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Return the figures as a table of text, its head first; a cell without a figure is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = [name.replace("_", " ") for name in names]
    return [head, *([_number(name, row.get(name)) for name in names] for row in rows)]


def text_of(result: Mapping[str, Any]) -> str:
    """Return the figures of a stage for a terminal, with the warning."""
    rows = table(result["rows"])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n".join([f"stage {result['stage']}, {result['faces']} {result['measured']}", *lines, "", WARNING + "."])


def write_report(run: Path, result: Mapping[str, Any]) -> None:
    """Write report.html into the run."""
    sheets = sorted((run / "sheets").glob("*.png"))
    picture = base64.b64encode(sheets[-1].read_bytes()).decode() if sheets else ""
    page = PAGE.format(
        title=f"Face hallucination: {escape(run.name)}",
        warning=WARNING,
        sheet=f"data:image/png;base64,{picture}",
        faces=result["faces"],
        measured=escape(result["measured"]),
        figures=_html(table(result["rows"])),
        losses=_html(_losses(run)),
    )
    with atomic_write(run / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _losses(run: Path) -> list[list[str]]:
    log = read_log(run / LOG)
    log = log[:: max(1, -(-len(log) // LINES))]
    names = sorted({name for row in log for name in row} - {"step", "epoch", "lr", "images_per_second"})
    lines = [[str(row["step"]), *(f"{row[name]:.4g}" if name in row else "" for name in names)] for row in log]
    return [["step", *names], *lines]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name == "pixels" else f"{value:.2f}" if name.startswith("psnr") else f"{value:.4f}"


def _html(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in zip(["th"] + ["td"] * len(rows), rows)
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>"
