"""Detectors by name: fetched from their public address when a user names them, checked, and kept in the cache."""

import hashlib
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from facedistill.errors import UsageError, UserError, closest
from facedistill.files import atomic_write, cache_dir

TIMEOUT = 30  # seconds without a byte


class Published(NamedTuple):
    address: str
    sha256: str
    bytes: int
    licence: str


DETECTORS = {
    "yunet": Published(
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/47534e27c9851bb1128ccc0102f1145e27f23f98/"
        "models/face_detection_yunet/face_detection_yunet_2026may.onnx",
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        229_738,
        "MIT, Shiqi Yu and others, opencv_zoo",
    ),
}


def detector_file(name: str | Path) -> Path:
    """Return the file: a path as it is, a name in DETECTORS from the cache, or fetched into it.

    Raises:
        UsageError: no such file, and no such name. UserError: the network fails, or the content is not the pinned one.
    """
    if Path(name).exists():
        return Path(name)
    if str(name) not in DETECTORS:
        known = ", ".join(DETECTORS)
        raise UsageError(
            f"detector {name}{closest(str(name), list(DETECTORS))}: no such file; expected an ONNX file, or a name "
            f"that is fetched: {known}"
        )
    known_file = DETECTORS[str(name)]
    path = cache_dir() / "detectors" / f"{name}-{known_file.sha256[:12]}.onnx"
    if not (path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == known_file.sha256):
        content = _fetched(str(name), known_file)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        print(f"detector {name}: fetched {len(content):,} bytes; licence: {known_file.licence}", file=sys.stderr)
    return path


def _fetched(name: str, known: Published) -> bytes:
    why = f"detector {name}: cannot fetch {known.address}"
    instead = "fetch the file by other means and name it with --detector FILE"
    try:
        with urllib.request.urlopen(known.address, timeout=TIMEOUT) as answer:
            content = answer.read(known.bytes + 1)
    except urllib.error.HTTPError as e:
        raise UserError(f"{why} (the server says {e.code}); {instead}") from e
    except OSError as e:
        reason = getattr(e, "reason", None) or e
        raise UserError(f"{why} ({getattr(reason, 'strerror', None) or reason}); {instead}") from e
    if len(content) < known.bytes:
        raise UserError(f"{why} (cut off after {len(content):,} of {known.bytes:,} bytes); try again, or {instead}")
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise UserError(f"{why} (its content is not the one that is known: another SHA-256); {instead}")
    return content
