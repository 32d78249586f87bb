"""What can be evaluated on: a labelled set, a list of pairs, a gallery with probes, templates; each has its protocols.

A set says what each model must embed (`parts`), and by which protocols the embeddings can be measured. A protocol is a
function of the probe's side and the gallery's side; both sides are the same object where a model meets itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data import Dataset, Embeddings, Flip, degraded, fuse, open_dataset
from facedistill.data.sources import IjbSource, VerificationSet, is_ijb, is_tinyface, open_tinyface
from facedistill.errors import UsageError, UserError, some
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.protocols import all_pairs, classification, identification, pairs, retrieval, templates
from facedistill.evaluation.statistics import RESAMPLES, SEED
from facedistill.models import Model, embed_blocks, embed_dataset


@dataclass(frozen=True)
class Options:
    """What holds for all sets and protocols. `fars`: None takes each protocol's own. The last three: of templates."""

    flip: Flip = "sum"
    threshold: pairs.Thresholds = "grid"
    fars: tuple[float, ...] | None = None
    resamples: int = RESAMPLES
    seed: int = SEED
    weight_by_norm: bool = True
    weight_by_detector_score: bool = True
    media_pooling: bool = True


@dataclass(frozen=True)
class Resolution:
    """Images as a camera of `pixels` x `pixels` would give them; None leaves them as they are."""

    pixels: int | None = None
    blur: float = 0.0
    jpeg: int | None = None

    def of(self, dataset: Dataset) -> Dataset:
        return dataset if self.pixels is None else degraded(dataset, self.pixels, self.blur, self.jpeg)


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
        """The raw embeddings of all readable images of a part."""
        if part not in self._tables:
            flips = self.flip != "none"
            self._tables[part] = embed_dataset(self.model, self.parts[part], flips, cache=self.cache)
        return self._tables[part]

    def unit(self, part: str) -> np.ndarray:
        """Unit embeddings of a part, float32 (N, d): always the same array."""
        if part not in self._units:
            self._units[part] = self.table(part).fused(self.flip)
        return self._units[part]

    def blocks(self, part: str) -> Iterator[np.ndarray]:
        """Unit embeddings of a part that may be too large to hold, block by block."""
        if part in self.parts:
            for vectors in embed_blocks(self.model, self.parts[part], self.flip != "none", cache=self.cache):
                yield fuse(vectors, self.flip)


Protocol = Callable[[Side, Side, Options], tuple[Measurement, dict[str, Any]]]


class EvaluationSet(ABC):
    """Attributes:
    parts: what a model embeds, by name. held: those of them whose embeddings are held in memory.
    usual: the protocols that are run when none is asked for.
    fingerprint: of all parts.
    """

    parts: dict[str, Dataset]
    held: tuple[str, ...] = ("images",)
    usual: tuple[str, ...]
    fingerprint: str

    @abstractmethod
    def protocols(self) -> dict[str, Protocol]:
        """The protocols that apply: name -> function of (probe, gallery, options) that returns the measurement and
        the settings that are its own. A new protocol is one more entry."""


class LabelledSet(EvaluationSet):
    """Images with class names; of a verification set also its list of pairs."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.parts, self.fingerprint = dataset, {"images": dataset}, dataset.fingerprint
        source = dataset.source
        whole = isinstance(source, VerificationSet) and len(dataset) == len(source)
        self.pair_list = source if whole and isinstance(source, VerificationSet) else None
        self.named = self.pair_list is None or self.pair_list.identities is not None
        self.usual = (*(["all-pairs"] if self.named else []), *(["pairs"] if self.pair_list else []))

    def protocols(self) -> dict[str, Protocol]:
        by_label: dict[str, Protocol] = {
            "all-pairs": self._all_pairs,
            "identification": self._identification,
            "retrieval": self._retrieval,
            "classification": self._classification,
        }
        return (by_label if self.named else {}) | ({"pairs": self._pairs} if self.pair_list else {})

    def _all_pairs(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        labels, fars = gallery.table("images").labels, o.fars or all_pairs.FARS
        units = probe.unit("images"), gallery.unit("images")
        found = all_pairs.all_pairs(*units, labels, fars=fars, resamples=o.resamples, seed=o.seed)
        return found, {"resampled": "identities"}

    def _pairs(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        assert self.pair_list is not None
        table = gallery.table("images")
        if len(table) != len(self.pair_list):
            missing = sorted(set(self.dataset.keys) - set(table.keys))
            raise UserError(
                f"{self.pair_list.path}: {len(missing)} images cannot be read (number {missing[0]} of the distinct "
                "ones); pairs need all of them: get the file anew"
            )
        found = pairs.pair_protocol(
            probe.unit("images"),
            gallery.unit("images"),
            self.pair_list.pairs,
            self.pair_list.same,
            persons=table.labels if self.named else None,
            thresholds=o.threshold,
            fars=o.fars or pairs.FARS,
            resamples=o.resamples,
            seed=o.seed,
        )
        resampled = "identities" if self.named else "pairs"
        return found, {"threshold": o.threshold, "folds": pairs.FOLDS, "resampled": resampled}

    def _identification(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        labels = gallery.table("images").labels
        enrolled, probes = identification.split_gallery(labels)
        if not len(enrolled) or not len(probes):
            raise UserError(
                f"{self.dataset.source.path}: no identity has two images, so nobody can be enrolled and looked for; "
                "give more images, or a gallery of its own with --gallery"
            )
        found = identification.identify(
            probe.unit("images")[probes],
            labels[probes],
            gallery.unit("images")[enrolled],
            labels[enrolled],
            resamples=o.resamples,
            seed=o.seed,
        )
        return found, {"gallery": "the first image of each identity with several", "resampled": "probe identities"}

    def _retrieval(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        labels = gallery.table("images").labels
        units = probe.unit("images"), gallery.unit("images")
        return retrieval.retrieve(*units, labels, resamples=o.resamples, seed=o.seed), {"resampled": "classes"}

    def _classification(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        table, w = gallery.table("images"), gallery.model.classifier
        lacking = [name for name in table.class_names if w is None or name not in set(w.class_names)]
        if w is None or lacking or o.flip == "concat":
            why = f"its classifier lacks {some(lacking)}" if w and lacking else "--flip concat has no classifier"
            raise UserError(
                f"classification on {self.dataset.source.path}: needs a gallery model whose classifier knows its "
                f"classes; {why if w else 'it has none'}: ask for --protocol retrieval instead"
            )
        place = {name: row for row, name in enumerate(w.class_names)}
        rows = np.array([place[name] for name in table.class_names])
        weight = w.weight.float().cpu().numpy()
        found = classification.classify(
            probe.unit("images"), table.labels, weight, rows, resamples=o.resamples, seed=o.seed
        )
        return found, {"classifier": w.origin, "resampled": "classes"}


class GallerySet(EvaluationSet):
    """Probes to look for in a gallery, with distractors that match nobody and are never held in memory at once.

    Classes are matched by name; a probe whose class the gallery lacks is a non-mated one.
    """

    held = ("probes", "gallery")
    usual = ("identification",)

    def __init__(self, probes: Dataset, gallery: Dataset, distractors: Dataset | None = None) -> None:
        self.parts = {"probes": probes, "gallery": gallery}
        if distractors is not None:
            self.parts["distractors"] = distractors
        self.fingerprint = "-".join(part.fingerprint for part in self.parts.values())

    def protocols(self) -> dict[str, Protocol]:
        return {"identification": self._identification}

    def _identification(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        probes, enrolled = probe.table("probes"), gallery.table("gallery")
        number = {name: i for i, name in enumerate(dict.fromkeys([*enrolled.class_names, *probes.class_names]))}
        labels = [np.array([number[t.class_names[label]] for label in t.labels]) for t in (probes, enrolled)]
        found = identification.identify(
            probe.unit("probes"),
            labels[0],
            gallery.unit("gallery"),
            labels[1],
            distractors=gallery.blocks("distractors"),
            resamples=o.resamples,
            seed=o.seed,
        )
        return found, {"gallery": "given", "resampled": "probe identities"}


class TemplateSet(EvaluationSet):
    """IJB-B and IJB-C: several images make a template; 1:1 over the official pairs, 1:N where the lists are there."""

    def __init__(self, source: IjbSource) -> None:
        self.source = source
        self.parts = {"images": Dataset(source)}
        self.fingerprint, self.galleries = source.fingerprint, source.galleries()
        self.usual = tuple(self.protocols())

    def protocols(self) -> dict[str, Protocol]:
        found: dict[str, Protocol] = {"templates 1:1": self._verify}
        return found | ({"templates 1:N": self._identify} if self.galleries else {})

    @cached_property
    def pairs(self) -> templates.TemplatePairs:
        return templates.TemplatePairs.of(self.source.pairs())

    def _templates(self, probe: Side, gallery: Side, o: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vectors of the probe's and of the gallery's templates (one array where they are one side), and their ids."""
        sides = [probe] if probe is gallery else [probe, gallery]
        pooled = [templates.template_vectors(*self._images(side), **_weighting(o), flip=o.flip) for side in sides]
        return pooled[0][1], pooled[-1][1], pooled[0][0]

    def _images(self, side: Side) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        table, source = side.table("images"), self.source
        rows = slice(None)
        if len(table) < len(source):
            place = {key: i for i, key in enumerate(source.keys)}
            rows = np.array([place[key] for key in table.keys])  # type: ignore[assignment]
        return table.vectors, source.template[rows], source.media[rows], source.detector_score[rows]

    def _verify(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        of_probe, of_gallery, ids = self._templates(probe, gallery, o)
        fars = o.fars or templates.FARS
        found = templates.verify_templates(
            of_probe, of_gallery, ids, self.pairs, fars=fars, resamples=o.resamples, seed=o.seed
        )
        empty = templates.without_image(ids, self.pairs.ids)
        return found, _weighting(o) | {"templates_without_image": empty, "resampled": "subjects"}

    def _identify(self, probe: Side, gallery: Side, o: Options) -> tuple[Measurement, dict[str, Any]]:
        of_probe, of_gallery, ids = self._templates(probe, gallery, o)
        lists = self.galleries, self.source.probes()
        found = templates.identify_templates(of_probe, of_gallery, ids, *lists, resamples=o.resamples, seed=o.seed)
        empty = found.without_image
        return found, _weighting(o) | {"templates_without_image": empty, "resampled": "probe subjects"}


def _weighting(o: Options) -> dict[str, Any]:
    return {key: getattr(o, key) for key in ("weight_by_norm", "weight_by_detector_score", "media_pooling")}


Spec = str | Path | Dataset | EvaluationSet


def open_sets(
    specs: Sequence[Spec] | Mapping[str, Spec], gallery: str | None = None, distractors: str | None = None
) -> dict[str, EvaluationSet]:
    """Open sets by name: data sets, IJB and TinyFace folders; probes to be looked for where a `gallery` is given.

    A folder of several .bin files is a group of sets (RFW), named "folder/file". Raises UsageError for a name that
    stands twice.
    """
    named = list(specs.items()) if isinstance(specs, Mapping) else [(_name(spec), spec) for spec in specs]
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"evaluation: two sets are called '{twice[0]}', after their files; rename one, or link to it")
    found: dict[str, EvaluationSet] = {}
    for name, spec in named:
        members = sorted(Path(spec).glob("*.bin")) if isinstance(spec, str | Path) and Path(spec).is_dir() else []
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
    if is_tinyface(Path(spec)):
        return GallerySet(**{name: Dataset(source) for name, source in open_tinyface(spec).items()})
    if is_ijb(Path(spec)):
        return TemplateSet(IjbSource(spec))
    return LabelledSet(open_dataset(spec))


def _name(spec: Spec) -> str:
    """lfw for .../lfw.bin, the folder's name for a folder, the whole text for synthetic:..."""
    if isinstance(spec, EvaluationSet):
        spec = next(iter(spec.parts.values()))
    path = str(spec.source.path if isinstance(spec, Dataset) else spec)
    return path if path.startswith("synthetic:") else Path(path).stem
