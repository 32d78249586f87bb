"""A page to look at: faces that are kept, those that a person should look at, and photos that were refused."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from facedistill.data import decode_image, thumbnail
from facedistill.files import atomic_write
from facedistill.preparation.journal import Row

SHOWN = 120  # of each kind
THUMB = 72  # pixels
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2329 }}
main {{ display: flex; flex-wrap: wrap; gap: .6rem }}
figure {{ margin: 0; width: 8.5rem; overflow-wrap: anywhere; font-size: 12px; line-height: 1.3 }}
img {{ width: 72px; height: 72px; object-fit: contain; background: #eceff1; display: block; border-radius: 4px }}
h2 {{ margin-top: 2rem }} small {{ color: #5b6670 }}
</style>
<h1>{title}</h1><p>{summary}</p>
{parts}
</html>
"""


def write_sheet(rows: Sequence[Row], photos: Path, out: Path, file: Path, summary: str) -> None:
    """Write one HTML file with its pictures inside; each part shows up to SHOWN, spread over all of its kind."""
    kept = [row for row in rows if row.crop]
    parts = {
        "Look at these": ([row for row in kept if row.borderline], "kept, but something speaks against them"),
        "Refused": ([row for row in rows if not row.crop], "nothing was written for these"),
        "Kept": ([row for row in kept if not row.borderline], "in the data set"),
    }
    html = "\n".join(_part(name, of, told, photos, out) for name, (of, told) in parts.items())
    with atomic_write(file) as temporary:
        page = PAGE.format(title=f"Faces of {escape(photos.name)}", summary=escape(summary), parts=html)
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _part(name: str, rows: Sequence[Row], told: str, photos: Path, out: Path) -> str:
    shown = rows[:: max(1, -(-len(rows) // SHOWN))]
    figures = "".join(_figure(row, photos, out) for row in shown)
    count = f"{len(rows):,}" + (f", {len(shown)} of them shown" if len(shown) < len(rows) else "")
    return f"<h2>{name} ({count})</h2><p><small>{told}</small></p><main>{figures}</main>"


def _figure(row: Row, photos: Path, out: Path) -> str:
    file = out / row.crop if row.crop else photos / row.source
    text = f"{escape(row.source)}<br><small>{escape(row.why or row.borderline)}</small>"
    return f'<figure><img alt="" src="{_thumb(file)}"><figcaption>{text}</figcaption></figure>'


def _thumb(file: Path) -> str:
    """Return a small JPEG of the image as a data: address; an empty one where it cannot be read."""
    try:
        return thumbnail(decode_image(file.read_bytes(), upright=True, at_least=4 * THUMB), THUMB)
    except (OSError, ValueError):
        return "data:,"
