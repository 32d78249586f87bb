"""Open any data set from one text: a path of any form, `synthetic:...`, or a class of your own."""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from facedistill.data.sources.arrow import ArrowSource
from facedistill.data.sources.features import FeatureSource
from facedistill.data.sources.folder import FolderSource, NoClasses
from facedistill.data.sources.idx import IdxSource
from facedistill.data.sources.label_table import LabelTable
from facedistill.data.sources.lfw_pairs import LfwPairs
from facedistill.data.sources.medmnist import MedMnistSource
from facedistill.data.sources.metadata import MetadataSource
from facedistill.data.sources.pair_list import PairList
from facedistill.data.sources.parquet import ParquetSource
from facedistill.data.sources.reading import files_in, is_hidden
from facedistill.data.sources.recordio import RecordIOSource
from facedistill.data.sources.selection import SelectionSource
from facedistill.data.sources.source import Source, stop_if_unusable
from facedistill.data.sources.survface_pairs import SurvFacePairs
from facedistill.data.sources.tar import TarSource
from facedistill.data.sources.union import PREFIX, UnionSource, names_of_sets
from facedistill.data.sources.unlabelled import LooseImages, UnlabelledSource
from facedistill.data.sources.verification import VerificationSet
from facedistill.data.synthetic.faces import SyntheticFaces
from facedistill.errors import UsageError, UserError, printable, repeated
from facedistill.files import composed
from facedistill.recipe import find

# The first entry that opens a path is used. `folder` opens any folder, so it comes after the more specific forms.
SOURCES: dict[str, type[Source]] = {
    "recordio": RecordIOSource,
    "arrow": ArrowSource,
    "parquet": ParquetSource,
    "idx": IdxSource,
    "tar": TarSource,
    "medmnist": MedMnistSource,
    "metadata": MetadataSource,
    "selection": SelectionSource,
    "verification": VerificationSet,
    "pairs": PairList,
    "lfw_pairs": LfwPairs,
    "survface_pairs": SurvFacePairs,
    "folder": FolderSource,
    "synthetic": SyntheticFaces,
    "unlabelled": UnlabelledSource,
    "labels": LabelTable,
    "features": FeatureSource,
}
TABLES = "Parquet, Arrow and metadata.csv"
LOOKED_BELOW = 3  # folders
ATTRIBUTES = ("path", "keys", "labels", "class_names", "fingerprint")
# package.module:Class, or package.module:Class:ARGUMENT. A single letter before the first colon is a drive of Windows.
OUTSIDE = re.compile(r"(?P<name>(?!\w:)\w+(?:\.\w+)*:[^\W\d]\w*)(?::(?P<argument>.*))?", re.DOTALL)


def open_source(spec: str | Path, columns: Mapping[str, str] | None = None) -> Source:
    """Return the Source that `spec` names. An existing path has priority; its name tells its form.

    A path: a folder per class; a .rec beside its .idx, or a folder with one; a .parquet or a folder of them; a
    folder written by `datasets.save_to_disk`; a .tar or a folder of them; a folder with metadata.csv or
    metadata.jsonl; a verification .bin, a .csv of pairs, LFW's pairs.txt, or a selection of another data set, which
    `clean` wrote; MNIST's IDX files; MedMNIST's .npz.

    An entry of SOURCES that takes options: "synthetic:identities=300,images=20,size=64,seed=1,first=0", where every
    option may be left out; "medmnist:path=blood.npz,split=train"; "labels:table=train.csv,images=train", whose
    images may have several labels; "features:speech.npz", whose samples are vectors.

    "unlabelled:DATA": the images of any data set, or of a folder of images, each of them a class of its own.

    A class outside the package: "package.module:Class" or "package.module:Class:ARGUMENT". Everything after the second
    colon goes to the class's `open` as one text. The class must be a subclass of Source; this is checked before it is
    called. The module is imported, so name only modules that you trust.

    Args:
        columns: for tables: the columns of "image" and "label", and the "folder" whose files the rows may name (the
            table's own if it is left out).

    Raises:
        UserError: the path does not exist, is no known form of data, or a class name is no line of text.
        UsageError: the option or the class does not exist, or `columns` is given for another form than a table.
    """
    path, text = Path(spec), str(spec)
    if is_path(spec):
        source = _at(path, columns)
    else:
        kind, argument = _named(text)
        try:
            source = _complete(_open(kind, argument, columns))
        except UsageError as e:
            raise UsageError(f"data {text}: {e}") from e
    stop_if_unusable([*source.class_names, *source.label_names], source.path)
    _compose_names(source)
    return source


def _compose_names(source: Source) -> None:
    """Give classes and labels their names in one form. Raises UserError if two look the same then."""
    for what in ("class_names", "label_names"):
        before = list(getattr(source, what))
        names = [composed(name) for name in before]
        looks = [composed(name.strip()) for name in dict.fromkeys(before)]
        if twice := repeated(looks):
            raise UserError(
                f"{source.path}: two classes or labels are called '{printable(twice)}': they differ in spaces around "
                "the name, or in the form of Unicode alone; put them together, or rename one"
            )
        if names != before:
            setattr(source, what, names)


def open_union(
    specs: Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    classes: str = PREFIX,
    weights: Mapping[str, float] | None = None,
) -> Source:
    """Return one Source of several data sets, see UnionSource; of one, that itself. `columns`: of those with columns.

    Raises UsageError for no data set, and for names of classes or weights beside a single one.
    """
    if not specs:
        raise UsageError("data.train: no data set; expected a data set, or a list of them")
    if len(specs) == 1:
        if weights or classes != PREFIX:
            raise UsageError(f"data.{'weights' if weights else 'classes'}: needs several data sets in data.train")
        return open_source(specs[0], columns)
    tables = [bool(columns) and _has_columns(spec) for spec in specs]
    if columns and not any(tables):
        raise UsageError(f"data.columns: none of {', '.join(map(str, specs))} has columns; they belong to {TABLES}")
    parts = [open_source(spec, columns if table else None) for spec, table in zip(specs, tables, strict=True)]
    union = UnionSource(dict(zip(names_of_sets(specs), parts, strict=True)), classes, weights)
    stop_if_unusable(union.class_names, union.path)
    return union


def _has_columns(spec: str | Path) -> bool:
    path = Path(str(spec).removeprefix("unlabelled:"))
    return path.exists() and (kind := form_of(path)) is not None and kind.takes_columns


def _at(path: Path, columns: Mapping[str, str] | None) -> Source:
    """Return the data set at a path. Raises UserError; if one lies deeper, the message names it."""
    if not path.exists():
        raise UserError(f"data {path}: no such file or folder; expected {_expected()}")
    found = form_of(path)
    if found is None:
        raise UserError(f"data {path}: not a known form of data set; expected {_expected()}")
    try:
        return _open(found, str(path), columns)
    except NoClasses as e:
        below = _below(path)
        raise UserError(f"{e}. Or do you mean the data set {below}?" if below else str(e)) from e
    except UserError:
        raise
    except Exception as e:  # a damaged file makes a reader raise almost anything
        why = (str(e) or type(e).__name__).splitlines()[0]
        raise UserError(f"data {path}: cannot be read: {why}; is it whole?") from e


def _open(kind: type[Source], argument: str, columns: Mapping[str, str] | None) -> Source:
    if kind is SelectionSource:
        return SelectionSource.of(argument, lambda original: open_source(original, columns))
    if kind is UnlabelledSource:
        return UnlabelledSource.of(argument, lambda original: _unlabelled(original, columns))
    if not columns:
        return kind.open(argument)
    if not kind.takes_columns:
        raise UsageError(f"data.columns: {argument} has no columns; they belong to {TABLES}")
    return kind(argument, columns)  # type: ignore[call-arg]


def _unlabelled(spec: str, columns: Mapping[str, str] | None) -> Source:
    """Return the images of unknown people; a folder of files may lie in any order."""
    loose = os.path.isdir(spec) and form_of(Path(spec)) is FolderSource
    return LooseImages(spec) if loose else open_source(spec, columns)


def _below(path: Path) -> Path | None:
    """Return the first data set of another form than folders in the folders below `path`, at most three deep."""
    specific = [kind for kind in SOURCES.values() if kind is not FolderSource]
    for depth in range(1, LOOKED_BELOW + 1):
        for folder in sorted(path.glob("*/" * depth)):
            if not is_hidden(str(folder.relative_to(path))) and any(kind.opens(folder) for kind in specific):
                files = [file for kind in specific for pattern in kind.inside for file in files_in(folder, pattern)]
                return files[0] if len(files) == 1 else folder
    return None


def form_of(path: Path) -> type[Source] | None:
    """Return the entry of SOURCES that opens the file or folder at `path`, or None."""
    return next((kind for kind in SOURCES.values() if kind.opens(path)), None)


def is_path(spec: str | Path) -> bool:
    """Return False if `spec` names an entry with options or an outside class, and no such path exists."""
    text = str(spec)
    if os.path.exists(text):
        return True
    return not (_with_options(text.partition(":")[0]) or OUTSIDE.fullmatch(text))


def _with_options(name: str) -> bool:
    return name in SOURCES and (SOURCES[name].takes_options or SOURCES[name].takes_data)


def _named(text: str) -> tuple[type[Source], str]:
    """Return the class that `text` names, and the text after the name."""
    name, _, argument = text.partition(":")
    if _with_options(name):
        return SOURCES[name], argument
    match = OUTSIDE.fullmatch(text)
    assert match is not None, f"{text} is a path"
    kind = find(SOURCES, match["name"], f"data {text}: no such file or folder, and the class", Source)
    if inspect.isabstract(kind):
        lacking = ", ".join(sorted(kind.__abstractmethods__))
        raise UsageError(f"data {text}: {kind.__name__} does not define {lacking}; every Source needs it")
    return kind, match["argument"] or ""


def _complete(source: Source) -> Source:
    """Return the source. Raises UsageError if a user's class lacks an attribute that every Source has."""
    name = type(source).__name__
    if lacking := [attribute for attribute in ATTRIBUTES if not hasattr(source, attribute)]:
        raise UsageError(f"{name} does not set {', '.join(lacking)}; every Source sets {', '.join(ATTRIBUTES)}")
    labels = np.asarray(source.labels)
    if labels.shape != (len(source.keys),) or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            f"{name} sets labels of shape {labels.shape}, {labels.dtype}, for {len(source.keys)} keys; expected an "
            "array with one integer per key, an index into class_names"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(source.class_names):
        raise UsageError(
            f"{name} sets labels {labels.min()} to {labels.max()} for {len(source.class_names)} class names; expected "
            "indexes into class_names"
        )
    hot = source.multi_hot
    if hot is not None and (hot.dtype != bool or hot.shape != (len(source.keys), len(source.label_names))):
        raise UsageError(
            f"{name} sets multi_hot of shape {hot.shape}, {hot.dtype}; expected bool, with a row for each of "
            f"{len(source.keys)} keys and a column for each of {len(source.label_names)} label names"
        )
    return source


def _expected() -> str:
    *forms, last = [kind.expected for kind in SOURCES.values()]
    return f"{', '.join(forms)}, {last}, or package.module:Class"
