"""MedMNIST's layout: one .npz with the arrays train_images, train_labels, val_images, ... of up to three splits.

Images are uint8 (N, H, W), or (N, H, W, 3) in RGB; labels are integers (N, 1) (https://medmnist.com).
"""

from pathlib import Path

import numpy as np

from facedistill.data.npz import stop_if_larger
from facedistill.data.sources.arrays import MOST_COMPRESSED, ArraySource
from facedistill.errors import UsageError, UserError

SPLITS = ("train", "val", "test")
EXPECTED = "expected MedMNIST's arrays train_images (N, H, W) or (N, H, W, 3) of uint8 and train_labels (N, 1)"


class MedMnistSource(ArraySource):
    """One split of an .npz: `medmnist:path=blood.npz,split=train`. The path alone will do if it has one split.

    A set with columns of 0 and 1 (ChestMNIST) gives each image any number of labels.

    Raises UserError if the file has several splits and none is named, or if it has not that layout.
    """

    expected = "MedMNIST's .npz"
    suffixes = (".npz",)
    takes_options = True

    @classmethod
    def open(cls, argument: str) -> "MedMnistSource":
        if Path(argument).is_file():
            return cls(argument)
        found = super().open(argument)
        assert isinstance(found, cls)
        return found

    def __init__(self, path: str, split: str | None = None) -> None:
        if split not in (None, *SPLITS):
            raise UsageError(f"split '{split}': expected one of {', '.join(SPLITS)}")
        self.split = split
        super().__init__(path)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            stop_if_larger(self.path, MOST_COMPRESSED)
            with np.load(self.path, allow_pickle=False) as archive:
                split = self._split([name.removesuffix("_images") for name in archive.files if "_images" in name])
                images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
        except UserError:
            raise
        except KeyError as e:
            raise UserError(f"{self.path}: no array {str(e.args[0]).split()[0]}; {EXPECTED}") from e
        except Exception as e:  # a damaged archive raises almost anything
            why = (str(e) or type(e).__name__).splitlines()[0]
            raise UserError(f"{self.path}: cannot be read: {why}; {EXPECTED}") from e
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise UserError(f"{self.path}: {split}_images is {images.dtype} {images.shape}; {EXPECTED}")
        return images, self._labels(labels, split)

    def _split(self, there: list[str]) -> str:
        """Return the name of the split to read."""
        if not there:
            raise UserError(f"{self.path}: no images; {EXPECTED}")
        if self.split is None and len(there) > 1:
            raise UserError(
                f"{self.path}: holds several splits ({', '.join(there)}); name one: "
                f"medmnist:path={self.path},split={there[0]}"
            )
        if self.split is not None and self.split not in there:
            raise UserError(f"{self.path}: no split '{self.split}'; it has: {', '.join(there)}")
        return self.split or there[0]

    def _labels(self, labels: np.ndarray, split: str) -> np.ndarray:
        """Return the class of each image, (N,), or its labels, bool (N, L)."""
        if not np.issubdtype(labels.dtype, np.integer) or labels.ndim not in (1, 2):
            raise UserError(f"{self.path}: {split}_labels is {labels.dtype} {labels.shape}; {EXPECTED}")
        if labels.ndim == 1 or labels.shape[1] == 1:
            return labels.reshape(-1)
        if labels.min(initial=0) < 0 or labels.max(initial=0) > 1:
            raise UserError(
                f"{self.path}: {split}_labels has {labels.shape[1]} columns with numbers from {labels.min()} to "
                f"{labels.max()}; expected one column of classes, or a column of 0 and 1 for each label"
            )
        return labels.astype(bool)
