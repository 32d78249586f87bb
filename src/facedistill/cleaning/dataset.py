"""From a data set to a clean selection of it: embed, look, examine, decide, and write what was found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedistill.cleaning.examining import Faces, examine
from facedistill.cleaning.findings import Finding, apply, decide, write_findings
from facedistill.cleaning.page import write_page
from facedistill.cleaning.pictures import altered, look
from facedistill.cleaning.unclear import Known, Spoiled
from facedistill.data import Dataset, Embeddings, open_source, save_selection
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import open_sets
from facedistill.files import cache_dir, held_folder, require_own
from facedistill.models import Model, embed_dataset, load_model
from facedistill.progress import say

SELECTION, FINDINGS, PAGE = "selection.csv", "findings.csv", "index.html"
SPOILED = 500  # images that are spoiled, to see what the teacher makes of them


@dataclass
class Cleaned:
    """What `clean` found and left.

    Attributes:
        path: the folder. images, people: in the data set. kept, kept_people: in the selection.
        acted, to_look_at: kind -> findings that the selection follows, and others that a person should look at.
    """

    path: Path
    images: int
    people: int
    kept: int
    kept_people: int
    acted: dict[str, int]
    to_look_at: dict[str, int]

    def text(self) -> str:
        """Return what a person reads."""
        acted, others = (
            ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing"
            for counts in (self.acted, self.to_look_at)
        )
        return (
            f"{self.path / SELECTION}: {self.kept:,} of {self.images:,} images, {self.kept_people:,} people (before: "
            f"{self.people:,}); acted on: {acted}; only listed, to look at: {others}"
        )


def clean(
    data: str | Path,
    teacher: str | Path | Model,
    out: str | Path,
    *,
    against: Sequence[str | Path] = (),
    precision: float = 0.95,
    decisions: str | Path | None = None,
) -> Cleaned:
    """Find wrong labels, copies and overlap in a data set, and write the selection that is clean. Deletes nothing.

    OUT holds selection.csv, which opens as a data set; findings.csv, a line for each finding; and index.html, a page to
    look through the findings and save decisions.

    Args:
        teacher: a model whose embeddings tell people apart. against: evaluation sets whose people are left out.
        precision: the share of findings acted on that are right, of each kind that is judged by probabilities.
        decisions: a file that the page saved; it decides about the findings that it names.

    Raises:
        UsageError: the precision is no share, or `out` holds something else or lies inside the data set.
        UserError: data or teacher cannot be read, `out` cannot be written, or no image is left.
    """
    out, decisions = Path(out), Path(decisions) if decisions else None
    if not 0.5 <= precision < 1:
        raise UsageError(f"clean: precision {precision:g}; expected a share from 0.5 to below 1, e.g. 0.95")
    decide([], decisions)  # refuses what is no decisions, before the work
    dataset = Dataset(open_source(data), max_unreadable=1.0)
    dataset.require_images()
    model = teacher if isinstance(teacher, Model) else load_model(teacher)
    others = _evaluation_sets(against)
    require_own(out, out / FINDINGS, Path(data), "clean")
    with held_folder(out, out / ".lock", "cleaning into it"):
        found, unreadable = _examine(dataset, model, others, precision)
        findings = [*unreadable, *found]
        if unmatched := decide(findings, decisions):
            say(f"{decisions}: {unmatched:,} decisions are about findings that are not there now; they change nothing")
        rows, names = apply(findings, dataset.labels, dataset.class_names)
        if not len(rows):
            raise UserError(f"clean: nothing of {data} is left; look at the data, or decide otherwise")
        done = _summary(out, dataset, findings, names)
        write_findings(findings, out / FINDINGS)
        write_page(findings, dataset, list(others.values()), out / PAGE, done.text())
        save_selection(out / SELECTION, data, [dataset.keys[row] for row in rows.tolist()], names)
    return done


def _evaluation_sets(against: Sequence[str | Path]) -> dict[str, Dataset]:
    """Return the data sets of all evaluation sets by name."""
    found = {}
    for name, opened in open_sets(list(against)).items():
        for part, dataset in opened.parts.items():
            found[name if len(opened.parts) == 1 else f"{name} {part}"] = dataset
    return found


def _examine(
    dataset: Dataset, model: Model, others: dict[str, Dataset], precision: float
) -> tuple[list[Finding], list[Finding]]:
    """Return the findings, and the images that cannot be read."""
    cache = cache_dir() / "embeddings"
    table = embed_dataset(model, dataset, cache=cache)
    against = {name: embed_dataset(model, other, cache=cache) for name, other in others.items()}
    faces = faces_of(dataset, table, model)
    readable = np.zeros(len(dataset), bool)
    readable[faces.rows] = True
    unreadable = [
        Finding("unreadable", key, dataset.class_names[label], "", np.nan, 1.0, True, np.array([row]))
        for row, (key, label) in enumerate(zip(dataset.keys, dataset.labels.tolist(), strict=True))
        if not readable[row]
    ]
    return examine(faces, precision, against), unreadable


def faces_of(dataset: Dataset, table: Embeddings, model: Model) -> Faces:
    """Look at the images of a data set that have an embedding in `table`."""
    place = {key: row for row, key in enumerate(dataset.keys)}
    rows = np.array([place[key] for key in table.keys], dtype=np.int64)
    if not len(rows):
        raise UserError(f"{dataset.source.path}: no image can be read; expected JPEG, PNG or another known format")
    pictures = look(dataset.source, dataset.indices[rows])
    rng, labels = np.random.default_rng(0), dataset.labels[rows]
    copies = altered(dataset.source, dataset.indices[rows], rng)
    spoiled = rng.permutation(len(rows))[:SPOILED]
    source = Spoiled(dataset.source, dataset.indices[rows[spoiled]])
    made = embed_dataset(model, Dataset(source, max_unreadable=1.0), cache=cache_dir() / "embeddings")
    label_of = dict(zip(source.keys, labels[spoiled].tolist(), strict=True))
    unclear = Known(made.fused("sum"), _lengths(made), np.array([label_of[key] for key in made.keys], np.int64))
    return Faces(
        *(rows, table.keys, labels, dataset.class_names, table.fused("sum"), _lengths(table)),
        *(pictures, copies, unclear),
    )


def _lengths(table: Embeddings) -> np.ndarray:
    return np.linalg.norm(table.vectors[:, 0].astype(np.float64), axis=1)


def _summary(out: Path, dataset: Dataset, findings: Sequence[Finding], names: Sequence[str]) -> Cleaned:
    acted = Counter(finding.kind for finding in findings if finding.accept)
    others = Counter(finding.kind for finding in findings if not finding.accept)
    return Cleaned(out, len(dataset), len(dataset.class_names), len(names), len(set(names)), dict(acted), dict(others))
