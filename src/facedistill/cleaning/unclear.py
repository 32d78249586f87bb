"""Images of which the teacher cannot say who they show: there is no face, or it is blurred or hidden.

A network that was trained on faces gives them short embeddings, near nobody; how short and how near is seen on images
of this data that are spoiled on purpose. Length as a sign of quality: Ranjan et al., arXiv 1703.09507; Meng et al.,
"MagFace", arXiv 2103.06627.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from facedistill.cleaning.evidence import Verdict, judge, parting
from facedistill.cleaning.people import LEAST, People
from facedistill.data import Source, decode_image
from facedistill.files import fingerprint

CORNER = (0.25, 0.4)  # of an image's side
BLUR = (0.035, 0.07)  # sigma, in sides of an image


class Spoiled(Source):
    """The images of a source at `rows`, int64 (M,), with nobody to be seen: every other one a corner, or blurred."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source, self.rows, self.path, self.stamp = source, rows, source.path, source.stamp
        self.keys, self.labels = [source.keys[row] for row in rows], source.labels[rows]
        self.class_names = source.class_names
        self.fingerprint = fingerprint(source.fingerprint, "spoiled", rows)

    def read(self, i: int) -> np.ndarray:
        data = self.source.read(int(self.rows[i]))
        image = Image.fromarray(data if isinstance(data, np.ndarray) else decode_image(data))
        rng = np.random.default_rng(i)
        if i % 2:
            return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR) * max(image.size))))
        width, height = (max(1, round(side * rng.uniform(*CORNER))) for side in image.size)
        left, top = (int(rng.integers(2)) * whole for whole in (image.width - width, image.height - height))
        part = image.crop((left, top, left + width, top + height))
        return np.asarray(part.resize(image.size, Image.Resampling.BICUBIC))


@dataclass
class Known:
    """Embeddings of spoiled images: units float32 (M, d), lengths float64 (M,), and labels int64 (M,)."""

    units: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


def find_unclear(people: People, lengths: np.ndarray, known: Known, precision: float) -> Verdict:
    """Judge which images are unclear, by their embeddings' lengths (N,) and their cosine to the core of their person.

    Spoiled images of a person are known ones. Persons with few images are not judged.
    """
    judged = people.counts[people.labels] >= LEAST
    usable = people.counts[known.labels] >= LEAST
    near = np.einsum("md,md->m", known.units, people.means[known.labels])
    errors = np.column_stack([np.log1p(known.lengths), near])[usable]
    signs = np.column_stack([np.log1p(lengths), people.own()])[judged]
    weights = parting(errors, signs)
    return judge(signs @ weights, errors @ weights, precision, low=True).spread(judged)
