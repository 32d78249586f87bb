"""An approximate index beside a gallery (usearch, HNSW): a cache that is made anew when it is stale or damaged.

It names candidates; their scores are then computed as in the exact search. So it may miss somebody, and `recall` says
how often, but no score is wrong. The file holds biometric data, so only this user may read it: usearch's own format,
and 4096 bytes that say whose it is, with a sum of all words before them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.gallery import numbers
from facedistill.gallery.mapped import Damaged, word_sum
from facedistill.gallery.rows import Rows
from facedistill.progress import say, track

SUFFIX = "-index"  # after the gallery's name
TAIL = 4096
MORE = 16  # candidates beyond those asked for
STEP = 4096  # rows added at a time
LOOKED_AT = 256  # vectors that a search keeps in view: four times usearch's default, which misses more
PROBES = 256  # that measure the recall
COSINE = 0.6  # of such a probe and the vector that it was made from


class Index:
    """The index of `rows` at `path`, read if it is theirs and whole, else made.

    Attributes:
        rows: how many are indexed; later ones are not. recall: the share of probes, enrolled vectors that were moved at
            random to a cosine of 0.6, whose nearest vector it finds.

    Raises:
        UserError: usearch is missing.
    """

    def __init__(self, path: Path, rows: Rows, about: list[object]) -> None:
        try:
            import usearch.index as usearch
        except ImportError as e:
            raise UserError("the index needs usearch; pip install 'facedistill[search]'") from e
        self._usearch = usearch
        self._index: Any = None
        found = self._read(path, about)
        if found is None or found["rows"] < len(rows) // 2:
            found = self._make(path, rows, about)
        self.rows, self.recall = int(found["rows"]), float(found["recall"])

    def candidates(self, probes: np.ndarray, top: int) -> np.ndarray:
        """Return the places of rows that are near each probe, int64 (P, top + MORE), nearest first; -1 for none."""
        count = min(top + MORE, self.rows)
        found = self._index.search(probes, count)
        if len(probes) == 1:  # the answer is then of another type
            return np.pad(found.keys.astype(np.int64), (0, count - len(found.keys)), constant_values=-1)[None]
        return np.where(np.arange(count) < found.counts[:, None], found.keys.astype(np.int64), -1)

    def _read(self, path: Path, about: list[object]) -> dict[str, Any] | None:
        try:
            number = path.stat().st_ino
            content = np.memmap(path, np.uint8, mode="r")
            found = json.loads(content[-TAIL:].tobytes())
            if found["about"] != about:
                return None
            if word_sum(content[:-TAIL]) != found["sum"]:
                raise Damaged(path)
            self._index = self._usearch.Index.restore(str(path), view=True)
            if self._index is None or len(self._index) != found["rows"]:
                raise Damaged(path)
            self._index.expansion_search = LOOKED_AT  # the file does not keep it
            if path.stat().st_ino != number:
                return None  # another process has put its own there while this one was reading
        except FileNotFoundError:
            return None
        except Exception:  # a damaged file raises almost anything
            say(f"{path}: this index of the gallery is damaged; it is made anew")
            return None
        return found

    def _make(self, path: Path, rows: Rows, about: list[object]) -> dict[str, Any]:
        rows.check()
        dim = rows.parts[0].shape[1]
        self._index = self._usearch.Index(ndim=dim, metric="cos", dtype="i8", expansion_search=LOOKED_AT)
        for start in track(range(0, len(rows), STEP), "indexing", len(rows), unit="vectors", size=lambda _: STEP):
            places = np.arange(start, min(start + STEP, len(rows)))
            self._index.add(places, numbers.unpacked(rows.take(places)))
        found = {"about": about, "rows": len(rows), "recall": self._recall(rows)}
        try:
            with atomic_write(path, private=True) as temporary:
                self._index.save(str(temporary))
                content = np.memmap(temporary, np.uint8, mode="r")
                with open(temporary, "ab") as file:
                    file.write(json.dumps(found | {"sum": word_sum(content)}).encode().ljust(TAIL))
        except UserError as e:
            say(f"the index is not kept: {str(e).partition(';')[0]}")
        return found

    def _recall(self, rows: Rows) -> float:
        rng = np.random.default_rng(0)
        chosen = numbers.unpacked(rows.take(rng.permutation(len(rows))[:PROBES]))
        aside = rng.normal(size=chosen.shape)
        aside -= (aside * chosen).sum(1, keepdims=True) * chosen
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        probes = (COSINE * chosen + np.sqrt(1 - COSINE**2) * aside).astype(np.float32)
        self.rows = len(rows)
        best = np.full(len(probes), -np.inf)
        nearest = np.zeros(len(probes), np.int64)
        for place, block in rows.blocks(STEP):
            scores = numbers.unpacked(block) @ probes.T
            at = scores.argmax(axis=0)
            score = scores[at, np.arange(len(probes))]
            nearest = np.where(score > best, place + at, nearest)
            best = np.maximum(best, score)
        return float((self.candidates(probes, 1) == nearest[:, None]).any(axis=1).mean())
