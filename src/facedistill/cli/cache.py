"""The cache folder: what lies there, and removing it."""

from pathlib import Path

from facedistill.files import cache_dir

# Folders of files that are computed again when they are needed.
KINDS = ("embeddings", "face_mesh", "latency", "nearest", "tar")


def summary() -> str:
    """Return the number and size of the files of each kind."""
    folder = cache_dir()
    lines = [f"{folder} (FACEDISTILL_CACHE names another folder)"]
    for kind in KINDS:
        sizes = [size for file, size, _ in _files() if file.parent.name == kind]
        lines.append(f"{kind}: {len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB")
    return "\n".join(lines)


def trim(limit: int) -> str:
    """Remove the oldest files until the rest has at most `limit` bytes; say how many were removed."""
    found = sorted(_files(), key=lambda entry: entry[2])
    total, removed, freed = sum(size for _, size, _ in found), 0, 0
    for file, size, _ in found:
        if total - freed <= limit and limit > 0:
            break
        file.unlink(missing_ok=True)
        removed, freed = removed + 1, freed + size
    return f"{removed:,} files removed, {freed / 1e6:,.1f} MB"


def _files() -> list[tuple[Path, int, float]]:
    """Return (file, size, time of its last change) of all kinds."""
    found = [file for kind in KINDS for file in (cache_dir() / kind).glob("*") if file.is_file()]
    return [(file, (stat := file.stat()).st_size, stat.st_mtime) for file in found]
