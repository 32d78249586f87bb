"""The changes of the view `augment` at strength 1, written plainly with Pillow and with OpenCV, one after the other."""

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from facedistill.data.augment import CHANCE, LARGEST


def by_pillow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As torchvision does it on images of Pillow: its own operation for each change."""
    picture, side = Image.fromarray(_covered(image, rng)), image.shape[0]
    if _happens("move", rng) | _happens("turn", rng):
        picture = picture.rotate(_up_to("turn", rng), Image.Resampling.BILINEAR)
        scale = np.exp(_up_to("scale", rng))
        x, y = side / 2 * (1 - scale) + LARGEST["shift"] * side * rng.uniform(-1, 1, 2)
        to_source = (scale, 0, x, 0, scale, y)
        picture = picture.transform(picture.size, Image.Transform.AFFINE, to_source, Image.Resampling.BILINEAR)
    if _happens("colour", rng):
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhance(picture).enhance(1 + _up_to("colour", rng))
        gains = 1 + LARGEST["light"] * rng.uniform(-1, 1, 3)
        picture = Image.fromarray((np.asarray(picture) * gains).clip(0, 255).astype(np.uint8))
    if _happens("grey", rng):
        picture = picture.convert("L").convert("RGB")
    if _happens("blur", rng):
        picture = picture.filter(ImageFilter.GaussianBlur(abs(_up_to("blur", rng)) * side))
    if _happens("shrink", rng):
        few = round(side / np.exp(abs(_up_to("shrink", rng))))
        picture = picture.resize((few, few), Image.Resampling.BICUBIC).resize(picture.size, Image.Resampling.BICUBIC)
    if _happens("noise", rng):
        picture = Image.fromarray(_noisy(np.asarray(picture), rng))
    if _happens("jpeg", rng):
        stored = io.BytesIO()
        picture.save(stored, "JPEG", quality=round(100 - abs(_up_to("jpeg", rng))))
        picture = Image.open(stored).convert("RGB")
    return np.asarray(picture)


def by_opencv(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As albumentations does it: OpenCV on arrays, tables of 256 values for brightness and contrast."""
    image, side = _covered(image, rng), image.shape[0]
    if _happens("move", rng) | _happens("turn", rng):
        scale = np.exp(_up_to("scale", rng))
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), _up_to("turn", rng), scale)
        matrix[:, 2] += LARGEST["shift"] * side * rng.uniform(-1, 1, 2)
        image = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    if _happens("colour", rng):
        brightness, contrast, saturation = (1 + _up_to("colour", rng) for _ in range(3))
        values = (np.arange(256) - 127.5) * contrast + 127.5
        image = cv2.LUT(image, (values * brightness).clip(0, 255).astype(np.uint8))
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
        image = (image * (1 + LARGEST["light"] * rng.uniform(-1, 1, 3))).clip(0, 255).astype(np.uint8)
    if _happens("grey", rng):
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if _happens("blur", rng):
        image = cv2.GaussianBlur(image, (0, 0), abs(_up_to("blur", rng)) * side + 1e-3)
    if _happens("shrink", rng):
        few = round(side / np.exp(abs(_up_to("shrink", rng))))
        small = cv2.resize(image, (few, few), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    if _happens("noise", rng):
        image = _noisy(image, rng)
    if _happens("jpeg", rng):
        quality = [cv2.IMWRITE_JPEG_QUALITY, round(100 - abs(_up_to("jpeg", rng)))]
        found: Any = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
        image = found
    return image


def _happens(name: str, rng: np.random.Generator) -> bool:
    return bool(rng.random() < CHANCE[name])


def _up_to(name: str, rng: np.random.Generator) -> float:
    return LARGEST[name] * float(rng.uniform(-1, 1))


def _covered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not _happens("cover", rng):
        return image
    side, image = image.shape[0], image.copy()
    half = int(side * np.sqrt(abs(_up_to("cover", rng))) / 2)
    x, y = rng.integers(side, size=2)
    image[max(0, y - half) : y + half, max(0, x - half) : x + half] = rng.integers(0, 256, 3)
    return image


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0, abs(_up_to("noise", rng)), image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)
