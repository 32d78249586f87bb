"""What was found, what a person decided about it, and the list of images that follows."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.cleaning.copies import first_of_groups
from facedistill.errors import UserError, closest, no_formula, printable, some
from facedistill.files import atomic_write

# Each kind with what it is, and what is done about it.
KINDS = {
    "unreadable": ("cannot be opened", "image left out"),
    "duplicate": ("a copy of another image", "image left out"),
    "split": ("one person under two names", "names joined"),
    "swapped": ("shows another person", "image left out"),
    "unclear": ("no face, or too blurred or hidden to say whose", "image left out"),
    "merged": ("two people under one name", "images get a second name"),
    "overlap": ("also in an evaluation set", "person left out"),
}
NOTHING = "nothing"
COLUMNS = ("kind", "image", "person", "other", "score", "probability", "done")
EXPECTED = 'expected the file that the page saves: {"decisions": [{"kind", "image", "person", "other", "accept"}, ...]}'
NO_ROWS = np.zeros(0, np.int64)


@dataclass
class Finding:
    """
    Attributes:
        kind: of KINDS. image: its key, "" if the finding is about a person. person: under that name.
        other: the image, person or set that it is compared with.
        rows: the images that it is about, places in the data set. beside: images to look at beside them, places in the
            data set, or in evaluation set number `set_`.
        sure: one of those that have the stated precision; others are there to look at. accept: it is acted on.
    """

    kind: str
    image: str
    person: str
    other: str
    score: float
    probability: float
    sure: bool
    rows: np.ndarray
    beside: np.ndarray = field(default_factory=lambda: NO_ROWS)
    set_: int | None = None
    accept: bool = False

    @property
    def about(self) -> tuple[str, str, str, str]:
        return self.kind, self.image, self.person, self.other


def decide(findings: Sequence[Finding], decisions: Path | None) -> int:
    """Accept the findings that are sure, and those that a person accepted; return how many decisions have none."""
    decided = _read(decisions) if decisions else {}
    for finding in findings:
        finding.accept = decided.pop(finding.about, finding.sure)
    return len(decided)


def _read(file: Path) -> dict[tuple[str, str, str, str], bool]:
    try:
        rows = json.loads(file.read_bytes())["decisions"]
        decided = {tuple(row[name] for name in COLUMNS[:4]): row["accept"] for row in rows}
    except OSError as e:
        raise UserError(f"{file}: {e.strerror or e}; {EXPECTED}") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"{file}: no decisions ({type(e).__name__}: {printable(str(e)[:100])}); {EXPECTED}") from e
    for about, accept in decided.items():
        if not all(isinstance(text, str) for text in about) or not isinstance(accept, bool):
            raise UserError(
                f"{file}: a decision about {some(list(map(str, about)))}; expected texts, and true or false"
            )
        if about[0] not in KINDS:
            raise UserError(f"{file}: no kind '{about[0]}'{closest(about[0], KINDS)}; it is one of {', '.join(KINDS)}")
    return decided


def apply(findings: Sequence[Finding], labels: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the images that remain, places int64 (M,), and the name of the person on each."""
    accepted = [finding for finding in findings if finding.accept]
    names, labels, kept = list(class_names), labels.copy(), np.ones(len(labels), bool)
    number = {name: i for i, name in enumerate(names)}
    joined = [(number[f.person], number[f.other]) for f in accepted if f.kind == "split"]
    if joined:
        labels = _largest(np.array(joined), labels, len(names))[labels]
    for finding in accepted:
        if finding.kind == "merged":
            labels[finding.rows] = len(names)
            names.append(finding.other)
        elif finding.kind != "split":
            kept[finding.rows] = False
    rows = np.flatnonzero(kept)
    return rows, [names[label] for label in labels[rows].tolist()]


def _largest(pairs: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return for each label the one with most images among those that `pairs` join it to, int64 (C,)."""
    root, sizes = first_of_groups(pairs, count), np.bincount(labels, minlength=count)
    best = np.arange(count)
    for label in np.argsort(sizes, kind="stable"):
        best[root[label]] = label
    return best[root]


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write a CSV with a line for each finding, the surest of each kind first."""
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for f in findings:
            done = KINDS[f.kind][1] if f.accept else NOTHING
            texts = [no_formula(text) for text in f.about]
            writer.writerow([*texts, _number(f.score), _number(f.probability), done])


def _number(value: float) -> Any:
    return f"{value:.4f}" if np.isfinite(value) else ""
