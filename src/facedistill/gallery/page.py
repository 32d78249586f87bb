"""A gallery as one HTML file: what it holds, how scores lie, who looks alike. It runs no script, fetches nothing."""

import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from facedistill.data import decode_image, open_source, thumbnail
from facedistill.errors import printable
from facedistill.files import atomic_write
from facedistill.gallery.holdings import BINS, Likeness, Summary, likeness, summary
from facedistill.gallery.store import Gallery

THUMB = 72  # pixels
FACES = 3  # of each person
WIDTH, HEIGHT, FOOT = 720, 200, 24  # of the drawing, pixels
COLOURS = {"impostor": "#9aa5b1", "genuine": "#1c7ed6"}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Gallery {title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1d2329 }}
h2 {{ margin-top: 2rem }} small, figcaption {{ color: #5b6670 }} figure {{ margin: 0 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-top: 1px solid #dde2e6; overflow-wrap: anywhere }}
th {{ border-top: 0; font-weight: 600 }} td.number, th.number {{ text-align: right; white-space: nowrap }}
img {{ width: 72px; height: 72px; object-fit: contain; background: #eceff1; border-radius: 4px; margin: 1px }}
svg {{ max-width: 100%; height: auto }} text {{ font: 12px system-ui, sans-serif; fill: #5b6670 }}
b.key {{ display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 .8em }}
</style>
<h1>Gallery {title}</h1>
{parts}
</html>
"""
Cells = Sequence[str]


def write_page(gallery: Gallery, file: Path, photos: str | Path | None = None) -> None:
    """Write the page.

    Args:
        photos: the data set that was enrolled: images whose content is that of an enrolled one are shown. None: no face
            is shown, for the gallery holds none.
    """
    about, found = summary(gallery), likeness(gallery)
    faces = {} if photos is None else _faces(gallery, photos, {name for _, *two in found.doubles for name in two})
    parts = [_facts(about), _thresholds(about), _scores(about, found), _alike(about, found, faces)]
    title = escape(printable(gallery.path.name))
    with atomic_write(file, private=True) as temporary:
        text = PAGE.format(title=title, parts="\n".join(parts))
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _table(head: Cells, rows: Sequence[Cells], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML; the columns `numbers` are set to the right."""

    def line(cells: Cells, tag: str) -> str:
        kinds = [' class="number"' if i in numbers else "" for i in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for cell, kind in zip(cells, kinds, strict=True))}</tr>"

    return f"<table>{line(head, 'th') if head else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def _text(value: object) -> str:
    return escape(printable(value))


def _facts(about: Summary) -> str:
    rows = [
        ("people", f"{about.people:,}"),
        ("vectors", f"{about.vectors:,}, at most {about.most:,} of one person"),
        ("embedding space", f"{_text(about.space)}, {about.dim} dimensions"),
        ("stored as", f"{_text(about.precision)}, {about.size / 1e6:,.1f} MB; the file is whole"),
        ("mirror images", _text({"sum": "added", "none": "not used"}.get(about.flip, about.flip))),
        ("enrolled by", "<br>".join(f"model {_text(m)}: {count:,} vectors" for m, count in about.models.items())),
    ]
    return _table((), rows)


def _thresholds(about: Summary) -> str:
    rows = [
        (
            _text(one.probe),
            _text(one.gallery),
            f"{one.far:g}",
            f"{one.value:.3f}" + ("" if one.interval is None else f" [{one.interval[0]:.3f}, {one.interval[1]:.3f}]"),
            "" if one.impostors is None else f"{one.impostors:,}",
            _text(one.measured),
        )
        for one in about.thresholds
    ]
    head = ("probes by model", "enrolled by model", "false-accept rate", "threshold", "decided by", "measured on")
    told = _table(head, rows, (2, 3, 4)) if rows else "<p>None yet: <code>identify --calibrate</code> measures one.</p>"
    return f"<h2>Thresholds</h2>{told}"


def _scores(about: Summary, found: Likeness) -> str:
    """The two histograms, each as tall as its own highest bar, and the thresholds as lines."""

    def x(score: float) -> float:
        return float((score - BINS[0]) / (BINS[-1] - BINS[0]) * WIDTH)

    bars = []
    for kind, counts in (("impostor", found.impostor), ("genuine", found.genuine)):
        tall = counts / max(1, counts.max()) * (HEIGHT - 10)
        bars += [
            f'<rect x="{x(low):.1f}" y="{HEIGHT - height:.1f}" width="{x(BINS[1]):.1f}" height="{height:.1f}" '
            f'fill="{COLOURS[kind]}" fill-opacity=".65"/>'
            for low, height in zip(BINS[:-1], tall, strict=True)
            if height > 0
        ]
    lines = [
        f'<line x1="{x(one.value):.1f}" x2="{x(one.value):.1f}" y1="0" y2="{HEIGHT}" stroke="#d9480f"/>'
        f'<text x="{x(one.value) + 4:.1f}" y="{12 + 14 * (i % 4)}">{one.far:g}</text>'
        for i, one in enumerate(about.thresholds)
    ]
    ticks = [
        f'<text x="{x(score):.1f}" y="{HEIGHT + 16}" text-anchor="middle">{score:.1f}</text>'
        for score in np.arange(-0.4, 1.0, 0.2).round(1) + 0.0
    ]
    keys = "".join(
        f'<b class="key" style="background:{COLOURS[kind]}"></b>{told} ({int(counts.sum()):,} pairs)'
        for kind, told, counts in (
            ("impostor", "different people", found.impostor),
            ("genuine", "one person", found.genuine),
        )
    )
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img">{"".join([*bars, *lines, *ticks])}</svg>'
    note = "Cosines of enrolled vectors with each other, each kind to its own scale. Lines: thresholds, by their rate."
    return f"<h2>Scores</h2><figure>{drawn}<figcaption>{note}{keys}</figcaption></figure>"


def _alike(about: Summary, found: Likeness, faces: dict[str, list[str]]) -> str:
    least = min((one.value for one in about.thresholds), default=None)
    above = None if least is None else sum(score >= least for score, *_ in found.doubles)
    told = "The people whose nearest vectors are nearest: the same person under two names, or relatives."
    if above is not None and least is not None:
        shown = f"{above}" + (" or more" if above == len(found.doubles) else "")
        told += f" {shown} pairs reach the lowest threshold, {least:.3f}."
    if found.looked_at < about.vectors:
        told += f" A sample of {found.looked_at:,} vectors was compared with all."
    rows = [
        (f"{score:.3f}", *(_text(name) + _images(faces.get(name, [])) for name in (one, other)))
        for score, one, other in found.doubles
    ]
    table = _table(("score", "person", "other person"), rows) if rows else "<p>Nobody.</p>"
    return f"<h2>Who looks alike</h2><p><small>{told}</small></p>{table}"


def _images(pictures: Sequence[str]) -> str:
    return ("<br>" if pictures else "") + "".join(f'<img alt="" src="{picture}">' for picture in pictures)


def _faces(gallery: Gallery, photos: str | Path, wanted: set[str]) -> dict[str, list[str]]:
    """Return pictures of the wanted people: images of `photos` whose content was enrolled."""
    sources = {source: name for model in gallery.models() for source, name in gallery.sources_by(model).items()}
    found: dict[str, list[str]] = {}
    source = open_source(photos)
    for row in range(len(source)):
        try:
            data = source.read(row)
            content = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
            name = sources.get(hashlib.sha256(content).digest()[:16])
            if name in wanted and len(found.setdefault(name, [])) < FACES:
                pixels = data if isinstance(data, np.ndarray) else decode_image(data, upright=True, at_least=4 * THUMB)
                found[name].append(thumbnail(pixels, THUMB))
        except (OSError, ValueError):
            continue
    return found
