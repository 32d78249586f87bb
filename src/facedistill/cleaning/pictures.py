"""What the pixels of every image say: is it a copy of another?"""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from facedistill.data import GREY, Source, decode_image, resize
from facedistill.progress import track

SIDE = 16  # pixels of the small image by which copies are told
THREADS, CHUNK = 2, 256
SAMPLE = 500  # images that are altered to see how far a copy is from its original


@dataclass
class Pictures:
    """
    Attributes:
        content: bytes (N, 16), a hash of each image as stored; equal ones are the same.
        small: float32 (N, SIDE * SIDE), each image in grey, of mean 0 and length 1.
    """

    content: np.ndarray
    small: np.ndarray


def look(source: Source, rows: np.ndarray) -> Pictures:
    """Read the images of a source at `rows`, each once."""
    seen = Pictures(np.zeros(len(rows), "S16"), np.zeros((len(rows), SIDE**2), np.float32))
    chunks = [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]

    def fill(chunk: slice) -> int:
        for place, row in zip(range(len(rows))[chunk], rows[chunk].tolist(), strict=True):
            try:
                data = source.read(row)
                pixels = data if isinstance(data, np.ndarray) else decode_image(data)
            except (OSError, ValueError):
                continue
            digest = hashlib.sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes())
            seen.content[place] = digest.hexdigest()[:16].encode()
            seen.small[place] = small(pixels)
        return len(rows[chunk])

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in track(pool.map(fill, chunks), "looking", len(rows), size=int):
            pass
    return seen


def small(pixels: np.ndarray) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), as float32 (SIDE * SIDE,): small, grey, of mean 0 and length 1."""
    grey = (resize(pixels, (SIDE, SIDE)) @ GREY).ravel()
    grey -= grey.mean()
    return (grey / max(float(np.linalg.norm(grey)), 1e-9)).astype(np.float32)


def apart(small_a: np.ndarray, small_b: np.ndarray) -> np.ndarray:
    """Return how far small images (N, SIDE * SIDE) are apart: the logarithm of their distance, mirrored if nearer."""
    mirrored = small_b.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(small_b.shape)
    nearer = np.minimum(*(np.linalg.norm(small_a - other, axis=1) for other in (small_b, mirrored)))
    return np.log(nearer + 1e-3)


def altered(source: Source, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how far copies are from their originals (M,): a sample of images, made smaller, moved and re-encoded."""
    distances = []
    for row in rng.permutation(rows)[:SAMPLE].tolist():
        try:
            data = source.read(row)
            image = data if isinstance(data, np.ndarray) else decode_image(data)
        except (OSError, ValueError):
            continue
        distances.append(apart(small(image)[None], small(_copy(image, rng))[None])[0])
    return np.array(distances)


def _copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image as another program might have stored it."""
    height, width = image.shape[:2]
    cut = rng.uniform(0, 0.02, 4) * [width, height, width, height]
    part = Image.fromarray(image).transform(
        (max(8, int(width * rng.uniform(0.6, 1))), max(8, int(height * rng.uniform(0.6, 1)))),
        Image.Transform.EXTENT,
        (cut[0], cut[1], width - cut[2], height - cut[3]),
        Image.Resampling.BILINEAR,
    )
    content = io.BytesIO()
    part.save(content, "JPEG", quality=int(rng.integers(40, 95)))
    return decode_image(content.getvalue())
