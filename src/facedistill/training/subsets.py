"""Subsets of the classes or labels of a data set: of a file, of the data itself, or by the number of images."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from facedistill.data import Dataset, read_table, read_text
from facedistill.errors import UsageError, UserError, closest, some
from facedistill.evaluation import by_shots
from facedistill.files import atomic_write, composed
from facedistill.head import Classifier
from facedistill.recipe import read_yaml

ROUNDS = 50  # of k-means
EXPECTED = "expected a name and its classes: `eyes: [glasses, frown]` in YAML, or a line `eyes,glasses` for each in CSV"


def take_subset(dataset: Dataset, text: str) -> Dataset:
    """Return the images with a class or label of a subset, with only those; with labels, the images without any, too.

    Args:
        text: "FILE:NAME", see `read_subsets`; or the name of a group of labels that the data itself has (rendered
            attributes: eyes, mouth, skin, hair); or many, medium, few, see `by_shots`.

    Raises:
        UsageError: no such subset. UserError: the data lacks one of its classes, or has no image of them.
    """
    file, colon, name = text.rpartition(":")
    if colon:
        known: Mapping[str, Sequence[str]] = read_subsets(file)
    else:
        shots = by_shots(dataset.target_counts)
        known = {shot: [n for n, of in zip(dataset.targets, there) if of] for shot, there in shots.items()}
        known |= {group: list(names) for group, names in (dataset.source.label_groups or {}).items()}
    if name not in known:
        raise UsageError(
            f"data.subset={text}: no subset '{name}'{closest(name, known)}; there are {', '.join(known)}; or name a "
            "file: subsets.yaml:NAME"
        )
    names = list(dict.fromkeys(known[name]))
    if missing := [one for one in names if one not in dataset.targets]:
        raise UserError(f"data.subset={text}: {dataset.source.path} has no class or label {some(missing)}")
    chosen = [i for i, target in enumerate(dataset.targets) if target in names]
    if not dataset.target_counts[chosen].any():
        raise UserError(f"data.subset={text}: no image has one of its {len(names)} classes or labels")
    return dataset.with_labels([dataset.targets[i] for i in chosen])


def read_subsets(path: str | Path) -> dict[str, list[str]]:
    """Return the classes of each subset in a file: YAML `name: [class, class]`, or CSV with `name,class` on each line.

    Subsets may overlap. Raises UserError for any other content.
    """
    found: dict[str, list[str]] = {}
    if Path(path).suffix.lower() in (".yaml", ".yml"):
        try:
            raw = read_yaml(read_text(path, EXPECTED))
        except ValueError as e:
            raise UserError(f"{path}: not YAML: {e}; {EXPECTED}") from e
        if not isinstance(raw, dict) or not all(isinstance(names, list) and names for names in raw.values()):
            raise UserError(f"{path}: {EXPECTED}")
        found = {str(name): [composed(str(one)) for one in names] for name, names in raw.items()}
    else:
        for line, cells in read_table(path, EXPECTED):
            if len(cells) != 2 or not all(cells):
                raise UserError(f"{path}, line {line}: {len(cells)} cells, or an empty one; {EXPECTED}")
            found.setdefault(cells[0], []).append(composed(cells[1]))
    if not found:
        raise UserError(f"{path}: no subset; {EXPECTED}")
    return found


def save_subsets(path: str | Path, subsets: Mapping[str, Sequence[str]]) -> None:
    """Write subsets as a CSV that `read_subsets` reads. Raises UsageError unless the file is called .csv."""
    if Path(path).suffix.lower() != ".csv":
        raise UsageError(f"{path}: expected a .csv")
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows((name, one) for name, names in subsets.items() for one in names)


def similar_subsets(classifier: Classifier, number: int) -> dict[str, list[str]]:
    """Divide the classes into `number` subsets of similar ones: k-means of the rows of W by cosine.

    It starts from rows that are far from each other, so it needs no random numbers. Names: "1", "2", ...

    Raises:
        UsageError: fewer classes than subsets, or no subset.
    """
    rows = classifier.weight.float()
    if not 1 <= number <= len(rows):
        raise UsageError(f"{number} subsets of {len(rows)} classes: expected 1 to {len(rows)}")
    chosen = [int((rows @ rows.mean(0)).argmin())]
    while len(chosen) < number:
        nearest = (rows @ rows[chosen].T).amax(1)
        nearest[chosen] = torch.inf
        chosen.append(int(nearest.argmin()))
    centres = rows[chosen]
    for _ in range(ROUNDS):
        cosines = rows @ centres.T
        of = cosines.argmax(1)
        for k, first in enumerate(chosen):  # no subset is left without a class
            of[first] = of[first] if (of == k).any() else k
        centres = F.normalize(torch.stack([rows[of == k].sum(0) for k in range(number)]), dim=1)
    names = classifier.class_names
    return {str(k + 1): [names[i] for i in torch.nonzero(of == k).flatten().tolist()] for k in range(number)}
