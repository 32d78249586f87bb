"""One word for any data set: a path of whatever kind, or `synthetic:...`."""

from pathlib import Path

from facedistill.data.sources.source import Source
from facedistill.errors import UsageError, UserError, closest

KINDS = (
    "a folder per identity, .rec, .parquet, .tar, .bin, a .csv of pairs, a Hugging Face data set on disk, or "
    "synthetic:identities=300"
)
SYNTHETIC = ("identities", "images", "size", "seed", "first")
COMPRESSED = (".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")


def open_source(spec: str | Path) -> Source:
    """Return the Source that `spec` names; the kind is found from what lies there.

    A path: a folder per identity; a .rec beside its .idx, or a folder with one; a .parquet or a folder of them; a
    folder written by `datasets.save_to_disk`; a .tar or a folder of them; a verification .bin, or a .csv of pairs. Or
    "synthetic:identities=300,images=20,size=64,seed=1,first=0", any of these left out.
    """
    path = Path(spec)
    if str(spec).startswith("synthetic:") or (str(spec) == "synthetic" and not path.exists()):
        return _synthetic(str(spec))
    if not path.exists():
        raise UserError(f"data {path}: no such file or folder; expected {KINDS}")
    return _folder(path) if path.is_dir() else _file(path)


def _file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in (".rec", ".idx"):
        from facedistill.data.sources.recordio import RecordIOSource

        return RecordIOSource(path.with_suffix(".rec"))
    if suffix == ".parquet":
        from facedistill.data.sources.parquet import ParquetSource

        return ParquetSource(path)
    if suffix == ".tar" or suffix in COMPRESSED:
        from facedistill.data.sources.tar import TarSource

        return TarSource(path)
    if suffix in (".csv", ".tsv"):
        from facedistill.data.sources.pair_list import load_pair_list

        return load_pair_list(path)
    if suffix == ".bin":
        from facedistill.data.sources.verification import load_verification

        return load_verification(path)
    raise UserError(f"data {path}: not a data set that is known; expected {KINDS}")


def _folder(path: Path) -> Source:
    if records := sorted(path.glob("*.rec")):
        if len(records) > 1 and path / "train.rec" not in records:
            raise UserError(
                f"data {path}: several .rec files ({', '.join(r.name for r in records[:4])}); name one of them"
            )
        return _file(path / "train.rec" if len(records) > 1 else records[0])
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        from facedistill.data.sources.arrow import ArrowSource

        return ArrowSource(path)
    if any(path.glob("*.parquet")):
        from facedistill.data.sources.parquet import ParquetSource

        return ParquetSource(path)
    if any(path.glob("*.tar")):
        from facedistill.data.sources.tar import TarSource

        return TarSource(path)
    from facedistill.data.sources.folder import FolderSource

    return FolderSource(path)


def _synthetic(spec: str) -> Source:
    from facedistill.data.synthetic.faces import SyntheticFaces

    options: dict[str, int] = {}
    for item in filter(None, spec.partition(":")[2].split(",")):
        name, _, value = item.partition("=")
        if name not in SYNTHETIC:
            raise UsageError(
                f"data {spec}: unknown option {name!r}{closest(name, SYNTHETIC)}; it takes {', '.join(SYNTHETIC)}"
            )
        try:
            options[name] = int(value)
        except ValueError:
            raise UsageError(f"data {spec}: {name}={value!r} is no whole number") from None
    return SyntheticFaces(**options)
