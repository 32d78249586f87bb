"""A target: a kind of file that a runtime on a device opens. One target a file of this package, one row in TARGETS."""

import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar

import numpy as np

from facedistill.export.deployable import Deployable, Form

# Embeds images uint8 (N, 3, H, W), RGB 0..255, any N: float32 (N, d).
Run = Callable[[np.ndarray], np.ndarray]


class Target(ABC):
    """How a network is written for a runtime, and how that runtime runs the file here.

    Attributes:
        suffix: of the file's name.
        precisions: those that it can write.
        packages: the modules that it needs; extra: what installs them, `pip install 'facedistill[EXTRA]'`.
        any_batch: True where one file takes any number of images.
    """

    suffix: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    any_batch: ClassVar[bool] = True

    @abstractmethod
    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> Mapping[str, Any] | None:
        """Write the file, and return how if there is anything to tell: JSON, and for a person "text".

        Args:
            calibration: uint8 (N, 3, H, W), RGB, for int8; None otherwise.
            facts: what the file says of itself: space, fingerprint, thresholds and so on.
        """

    @abstractmethod
    def open(self, path: Path, form: Form, threads: int = 1) -> Run:
        """Return a function that runs the file in the target's own runtime."""

    def facts(self, path: Path) -> dict[str, str]:
        """Return what `write` was told that the file says of itself; nothing where the file is another's."""
        return {}

    def worst_layer(self, net: Deployable, form: Form, images: np.ndarray, path: Path) -> str | None:
        """Return a sentence about the layer in which the file loses most, if the target can tell.

        Args:
            images: uint8 (N, 3, H, W), RGB. path: a file that `write` made, and that embeds too differently.
        """
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what converters print, from Python and from C++, from the user. Errors come as exceptions."""
    with ExitStack() as stack:
        kept = stack.enter_context(TemporaryFile("w+"))
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        for number in (1, 2):
            try:
                saved = os.dup(number)
            except OSError:  # closed
                continue
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, number)
            os.dup2(kept.fileno(), number)
        stack.enter_context(redirect_stdout(kept))
        stack.enter_context(redirect_stderr(kept))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def in_form(images: np.ndarray, form: Form) -> np.ndarray:
    """Return images uint8 (N, 3, H, W) in the layout and type that the form takes, contiguous."""
    images = images.transpose(0, 2, 3, 1) if form.layout == "nhwc" else images
    return np.ascontiguousarray(images, dtype=np.uint8 if form.pixels == "uint8" else np.float32)


def in_batches(run: Run, images: np.ndarray, batch: int) -> np.ndarray:
    """Run a file of a fixed batch on any number of images; the last batch is filled up and cut off."""
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)]) if len(part) < batch else part
        parts.append(run(full)[: len(part)])
    return np.concatenate(parts)
