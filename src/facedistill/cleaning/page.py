"""A page to look through findings, tick decisions, and save them as a file that the next `clean` honours."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from facedistill.cleaning.findings import KINDS, Finding
from facedistill.data import Dataset, UnreadableImage, thumbnail
from facedistill.errors import printable
from facedistill.files import atomic_write

SHOWN = 60  # findings of each kind
PICTURES = 8  # on each side of a finding
THUMB = 72  # pixels
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Findings</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2329 }}
label {{ display: flex; gap: .8rem; align-items: center; padding: .4rem 0; border-top: 1px solid #dde2e6 }}
label span {{ flex: 1; overflow-wrap: anywhere }}
img {{ width: 72px; height: 72px; object-fit: contain; background: #eceff1; border-radius: 4px; margin: 1px }}
img.of {{ outline: 3px solid #d9480f; outline-offset: -3px }}
h2 {{ margin-top: 2rem }} small {{ color: #5b6670 }}
header {{ position: sticky; top: 0; background: #fff; padding: .5rem 0 }}
</style>
<h1>Findings</h1><p>{summary}</p>
<header><button id="save">Save decisions</button> <small>A tick: this is an error, and the next <code>clean --decisions
decisions.json</code> acts on it. No tick: it is none. Pictures with a frame are in question; beside them are their own
person's, then those of the other one.</small></header>
{parts}
<script>
document.getElementById("save").onclick = () => {{
  const boxes = [...document.querySelectorAll("input[data-about]")];
  const decisions = boxes.map((box) => ({{...JSON.parse(box.dataset.about), accept: box.checked}}));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({{decisions}}, null, 1)], {{type: "application/json"}}));
  link.download = "decisions.json";
  link.click();
}};
</script>
</html>
"""


def write_page(
    findings: Sequence[Finding], dataset: Dataset, others: Sequence[Dataset], file: Path, summary: str
) -> None:
    """Write one HTML file with its pictures inside: the first SHOWN findings of each kind, those to look at among them.

    Args:
        others: the evaluation sets, in the order in which findings number them.
    """
    pictures = Thumbnails([dataset, *others])
    parts = "\n".join(
        _part(kind, of, pictures) for kind in KINDS if (of := [finding for finding in findings if finding.kind == kind])
    )
    with atomic_write(file) as temporary:
        text = PAGE.format(summary=escape(printable(summary)), parts=parts or "<p>Nothing was found.</p>")
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _part(kind: str, findings: Sequence[Finding], pictures: "Thumbnails") -> str:
    """A heading and the findings of a kind. Half of those shown may be ones to look at: there a person helps most."""
    sure = [finding for finding in findings if finding.sure]
    others = [finding for finding in findings if not finding.sure]
    room = max(SHOWN - len(others), SHOWN // 2)
    shown = [*sure[:room], *others[: SHOWN - min(len(sure), room)]]
    told, done = KINDS[kind]
    count = f"{len(sure):,}, and {len(others):,} to look at" + (
        "" if len(shown) == len(findings) else "; not all shown"
    )
    boxes = "\n".join(_box(finding, pictures) for finding in shown)
    return f"<h2>{kind}: {told} ({count})</h2><p><small>If ticked: {done}.</small></p>\n{boxes}"


def _box(finding: Finding, pictures: "Thumbnails") -> str:
    about = dict(zip(("kind", "image", "person", "other"), finding.about, strict=True))
    number = 0 if finding.set_ is None else 1 + finding.set_
    images = "".join(pictures.image(0, row, "of") for row in finding.rows[:PICTURES].tolist())
    images += "".join(pictures.image(number, row, "") for row in finding.beside[:PICTURES].tolist())
    text = " &middot; ".join(escape(printable(part)) for part in finding.about[1:] if part)
    sure = "" if finding.probability != finding.probability else f"<br><small>{finding.probability:.0%} sure</small>"
    tick = " checked" if finding.accept else ""
    return (
        f'<label><input type="checkbox" data-about="{escape(json.dumps(about))}"{tick}><span>{text}{sure}</span>'
        f"<div>{images}</div></label>"
    )


class Thumbnails:
    """Small pictures of data sets' images, as data: addresses."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = datasets

    def image(self, number: int, row: int, kind: str) -> str:
        """Return the HTML of image `row` of data set `number`; an empty picture where it cannot be read."""
        try:
            picture = thumbnail(self.datasets[number].image(row), THUMB)
        except UnreadableImage:
            return '<img alt="unreadable">'
        return f'<img alt="" class="{kind}" src="{picture}">'
