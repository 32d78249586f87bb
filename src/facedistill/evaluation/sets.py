"""Evaluation sets: a labelled set, a list of pairs, a gallery with probes, templates.

A set declares its kinds and the images that each model must embed (`parts`). Protocols decide how it is measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from facedistill.data import Dataset, Embeddings, Flip, fuse, open_dataset
from facedistill.data.sources import (
    BETWEEN_OPTIONS,
    SOURCES,
    IjbSource,
    VerificationSet,
    is_ijb,
    is_path,
    is_survface,
    is_tinyface,
    open_survface,
    open_tinyface,
)
from facedistill.errors import UsageError
from facedistill.evaluation.options import Resolution
from facedistill.models import Model, embed_blocks, embed_dataset


class Side:
    """A set as one model sees it at one resolution: its embeddings, made once."""

    def __init__(
        self, model: Model, parts: dict[str, Dataset], flip: Flip, resolution: Resolution, cache: Path | None
    ) -> None:
        self.model, self.flip, self.resolution, self.cache = model, flip, resolution, cache
        self.parts = {name: resolution.of(part) for name, part in parts.items()}
        self._tables: dict[str, Embeddings] = {}
        self._units: dict[str, np.ndarray] = {}

    def table(self, part: str) -> Embeddings:
        """Return the raw embeddings of all readable images of a part."""
        if part not in self._tables:
            flips = self.flip != "none"
            self._tables[part] = embed_dataset(self.model, self.parts[part], flips, cache=self.cache)
        return self._tables[part]

    def unit(self, part: str) -> np.ndarray:
        """Return the unit embeddings of a part, float32 (N, d): always the same array."""
        if part not in self._units:
            self._units[part] = self.table(part).fused(self.flip)
        return self._units[part]

    def blocks(self, part: str) -> Iterator[np.ndarray]:
        """Yield the unit embeddings of a part that may be too large to hold, block by block."""
        if part in self.parts:
            for vectors in embed_blocks(self.model, self.parts[part], self.flip != "none", cache=self.cache):
                yield fuse(vectors, self.flip)


class EvaluationSet:
    """A set to evaluate models on.

    Attributes:
        kinds: the kinds of set that it is, see `Protocol.kinds`.
        parts: the data that a model embeds, by name. held: the names of parts whose embeddings are held in memory.
        fingerprint: of all parts.
        path: its origin, for messages.
    """

    kinds: tuple[str, ...]
    parts: dict[str, Dataset]
    held: tuple[str, ...] = ("images",)
    fingerprint: str

    @property
    def path(self) -> str:
        return str(next(iter(self.parts.values())).source.path)


class LabelledSet(EvaluationSet):
    """Images with class names, and the list of pairs if they are a verification set."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.parts, self.fingerprint = dataset, {"images": dataset}, dataset.fingerprint
        source = dataset.source
        whole = isinstance(source, VerificationSet) and len(dataset) == len(source)
        self.pair_list = source if whole and isinstance(source, VerificationSet) else None
        self.named = self.pair_list is None or self.pair_list.identities is not None
        labelled = "labels" if dataset.multi_hot is None else "multi-hot"
        self.kinds = (*([labelled] if self.named else []), *(["pairs"] if self.pair_list else []))


class GallerySet(EvaluationSet):
    """Probes to search for in a gallery. Distractors match nobody and are never all held in memory.

    Classes are matched by name; a probe whose class the gallery lacks is non-mated.
    """

    kinds = ("gallery",)
    held = ("probes", "gallery")

    def __init__(self, probes: Dataset, gallery: Dataset, distractors: Dataset | None = None) -> None:
        self.parts = {"probes": probes, "gallery": gallery}
        if distractors is not None:
            self.parts["distractors"] = distractors
        self.fingerprint = "-".join(part.fingerprint for part in self.parts.values())


class TemplateSet(EvaluationSet):
    """IJB-B and IJB-C: templates of several images, with pairs of them, and with galleries if the lists exist."""

    def __init__(self, source: IjbSource) -> None:
        self.source = source
        self.parts = {"images": Dataset(source)}
        self.fingerprint, self.galleries = source.fingerprint, source.galleries()
        self.kinds = ("templates", *(["galleries"] if self.galleries else []))


Spec = str | Path | Dataset | EvaluationSet


def open_sets(
    specs: Sequence[Spec] | Mapping[str, Spec], gallery: str | None = None, distractors: str | None = None
) -> dict[str, EvaluationSet]:
    """Open sets by name: data sets, folders of IJB, TinyFace or QMUL-SurvFace; with a `gallery`, its probes.

    A folder of several .bin files is a group of sets (RFW), named "folder/file". Raises UsageError for a repeated name.
    """
    named = list(specs.items()) if isinstance(specs, Mapping) else [(set_name(spec), spec) for spec in specs]
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"evaluation: two sets are called '{twice[0]}', after their files; rename one, or link to it")
    found: dict[str, EvaluationSet] = {}
    for name, spec in named:
        members = sorted(Path(spec).glob("[!.]*.bin")) if isinstance(spec, str | Path) and Path(spec).is_dir() else []
        if len(members) > 1:
            found |= {f"{name}/{file.stem}": _open(file, gallery, distractors) for file in members}
        else:
            found[name] = _open(spec, gallery, distractors)
    return found


def _open(spec: Spec, gallery: str | None, distractors: str | None) -> EvaluationSet:
    if isinstance(spec, EvaluationSet):
        return spec
    if gallery is not None:
        probes = spec if isinstance(spec, Dataset) else open_dataset(spec)
        return GallerySet(probes, open_dataset(gallery), open_dataset(distractors) if distractors else None)
    if isinstance(spec, Dataset):
        return LabelledSet(spec)
    for holds, opened in ((is_tinyface, open_tinyface), (is_survface, open_survface)):
        if holds(Path(spec)):
            return GallerySet(**{name: Dataset(source) for name, source in opened(spec).items()})
    if is_ijb(Path(spec)):
        return TemplateSet(IjbSource(spec))
    return LabelledSet(open_dataset(spec))


def set_name(spec: Spec) -> str:
    """Return lfw for .../lfw.bin and labels:table=lfw.csv, a folder's name, the whole text for synthetic:..."""
    if isinstance(spec, EvaluationSet):
        spec = next(iter(spec.parts.values()))
    path = str(spec.source.path if isinstance(spec, Dataset) else spec)
    if path.startswith("synthetic:"):
        return path
    kind, _, argument = path.partition(":")
    if kind in SOURCES and not is_path(path):
        options = BETWEEN_OPTIONS.split(argument)
        path = next((option for option in options if option.startswith("table=")), options[0]).removeprefix("table=")
    return Path(path).stem
