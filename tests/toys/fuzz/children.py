"""Reads mutants in forked children with limits of memory and time, and says what became of each."""

import faulthandler
import gc
import hashlib
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

from facedistill.errors import UserError
from facedistill.run import forget_peak, peak
from fuzz.corpus import Format
from fuzz.mutants import CANARY, mutant

MEMORY, SECONDS = 2 << 30, 10.0  # of one mutant
FAULTS = ("code run", "crash", "hang", "memory", "traceback", "silent")
NO_MEMORY = re.compile(r"MemoryError|bad_alloc|bad allocation|allocate|malloc", re.IGNORECASE)
STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "socket.connect"}


class Outcome(NamedTuple):
    """What became of a mutant: "accepted", "refused", or one of FAULTS, and the text that says more."""

    kind: str
    text: str


@dataclass
class Tally:
    """Counts of one format, and its faults: (number of the mutant, outcome)."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, Outcome]] = field(default_factory=list)

    def add(self, number: int, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        if outcome.kind in FAULTS:
            self.faults.append((number, outcome))


class Corpus:
    """The valid files of one format in `folder`, and its mutants by number: the same number, the same mutant."""

    def __init__(self, name: str, form: Format, folder: Path, seed: int = 0) -> None:
        self.name, self.form, self.seed = name, form, seed
        self.pristine, self.work = folder / "pristine", folder / "work"
        self.work.mkdir(parents=True)
        form.make(self.work)
        shutil.copytree(self.work, self.pristine)  # with its times, which some caches ask for
        paths = sorted({path for pattern in form.files for path in self.pristine.glob(pattern) if path.is_file()})
        assert paths, f"{name}: no file matches {form.files}"
        self.files = {path.relative_to(self.pristine).as_posix(): path.read_bytes() for path in paths}

    def mutant(self, number: int) -> tuple[str, bytes]:
        """Return which file is changed, and its new content."""
        random = Random(f"{self.seed} {self.name} {number}")
        name = random.choice(sorted(self.files))
        return name, mutant(name, self.files[name], random, self.files)

    def run(self, numbers: range, seconds: float = SECONDS) -> Iterator[tuple[int, Outcome]]:
        """Read the mutants, most of them in one child; where it dies or hangs, the next child goes on."""
        gc.collect()
        gc.freeze()  # a child need not look at what it inherits
        todo = list(numbers)
        while todo:
            number, outcome = todo[0], Outcome("crash", "no child")
            for number, outcome in self._child(list(todo), seconds):
                todo.pop(0)
                if outcome.kind != "hang":
                    yield number, outcome
            if outcome.kind == "hang":  # perhaps the machine was busy: once more, alone
                yield next(self._child([number], 3 * seconds))

    def _child(self, numbers: list[int], seconds: float) -> Iterator[tuple[int, Outcome]]:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.pristine, self.work)
        reading, writing = os.pipe()
        sys.stdout.flush(), sys.stderr.flush()
        child = os.fork()
        if not child:
            try:
                os.close(reading)
                os.setpgid(0, 0)
                _read_all(self, numbers, writing)
            finally:
                os._exit(9)
        os.close(writing)
        try:
            with open(reading, "rb", buffering=0) as pipe:
                for number in (-1, *numbers):
                    outcome = _next(pipe, child, seconds if number >= 0 else 60)
                    if number >= 0:
                        yield number, outcome
                    elif outcome.kind != "accepted":
                        raise AssertionError(f"{self.name}: the valid files are not read: {outcome}")
                    if outcome.kind in ("crash", "hang"):
                        return
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _next(pipe: Any, child: int, seconds: float) -> Outcome:
    """Return the next outcome that the child writes, a line; or what became of the child."""
    deadline, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return Outcome("hang", f"not done after {seconds:g} s")
        part = pipe.read(1)
        if not part:
            status = os.waitpid(child, 0)[1]
            ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
            return Outcome("crash", f"the process ended: {ended}")
        line += part
    kind, _, text = line.decode().rstrip("\n").partition("\t")
    return Outcome(kind, text)


def _read_all(corpus: Corpus, numbers: list[int], pipe: int) -> None:
    """The child: read the valid files, then each mutant; write a line after each; end the process."""
    os.chdir(corpus.work)
    faulthandler.disable()
    with open(os.devnull, "r+b") as nothing:
        for number in (0, 1, 2):
            os.dup2(nothing.fileno(), number)
    os.environ["FACEDISTILL_CACHE"] = str(corpus.work / "cache")
    ran = _watch(corpus.work)
    limit = _virtual() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    expected = ""
    for number in (-1, *numbers):
        name = ""
        if number >= 0:
            name, content = corpus.mutant(number)
            (corpus.work / name).write_bytes(content)
        outcome, found = _read(corpus.form, corpus.work)
        if number < 0:
            expected = found
        elif outcome.kind == "accepted" and corpus.form.checked and found != expected:
            outcome = Outcome("silent", "a damaged file gave another content")
        elif outcome.kind == "refused" and corpus.form.checked == "made anew":
            outcome = Outcome("silent", f"a damaged cache was not made anew: {outcome.text}")
        if ran or Path(CANARY).exists():
            outcome = Outcome("code run", ran.pop() if ran else "the canary")
            Path(CANARY).unlink(missing_ok=True)
        if number >= 0:
            (corpus.work / name).unlink(missing_ok=True)
            (corpus.work / name).write_bytes(corpus.files[name])
        text = " ".join(outcome.text.split())[:400].encode("ascii", "backslashreplace").decode()
        os.write(pipe, f"{outcome.kind}\t{text}\n".encode())


def _read(form: Format, folder: Path) -> tuple[Outcome, str]:
    forget_peak()
    before = peak()
    torch.manual_seed(0)
    found = ""
    try:
        found = digest(form.read(folder))
        outcome = Outcome("accepted", "")
    except UserError as e:
        outcome = Outcome("memory" if _chain_matches(e) else "refused", str(e))
    except BaseException as e:  # also SystemExit
        last = traceback.extract_tb(e.__traceback__)[-3:]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(last))
        outcome = Outcome("memory" if _chain_matches(e) else "traceback", f"{type(e).__name__}: {e} ({where})")
    if peak() - before > MEMORY:
        outcome = Outcome("memory", f"{(peak() - before) >> 20} MB")
    return outcome, found


def _chain_matches(error: BaseException | None) -> bool:
    """Return whether memory ran out in this error, or in one behind it."""
    while error is not None:
        if NO_MEMORY.search(f"{type(error).__name__} {error}"):
            return True
        error = error.__cause__ or error.__context__
    return False


def digest(value: Any) -> str:
    """Return a text that is equal for equal content: of arrays, tensors, containers and plain values."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray) and value.dtype != object:
            found.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, dict):
            add([part for pair in value.items() for part in pair])
        elif isinstance(value, list | tuple):
            found.update(f"{len(value)} ".encode())
            for part in value:
                add(part)
        else:
            found.update(repr(value).encode(errors="replace"))

    add(value)
    return found.hexdigest()


def _watch(folder: Path) -> list[str]:
    """Return a list to which Python adds every start of a foreign program and every write outside the folder."""
    found: list[str] = []
    ours = (str(folder.parent), "/dev/", "/proc/", "/tmp/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS and arguments[0] not in (sys.executable, os.fsencode(sys.executable)):
            found.append(f"{event} {str(arguments[0])[:100]}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(ours):
                found.append(f"wrote {path[:100]}")

    sys.addaudithook(hook)
    return found


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
