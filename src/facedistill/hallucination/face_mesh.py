"""Priors of photographs by a face mesh: a network that places 468 points on a face, as MediaPipe's does.

The points become the 68 landmarks of the iBUG order, and the outlines of parts are filled as parsing classes. A mesh
knows no hair and no ears, so those classes never occur: hair is background, or skin where it hangs into the face.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from facedistill.backbones import one_line, open_session
from facedistill.data import Dataset, load_array, save_array
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir, fingerprint
from facedistill.progress import say, track

SUFFIXES = (".onnx", ".tflite")
POINTS = (468, 478)  # without and with irises, whose points come last
MARGIN = 1 / 8  # of the side, added on each side: the mesh expects more than an aligned crop shows
UNSURE = 0.0  # a logit: below it, the mesh rather sees no face
READ = 64  # images at a time
KIND = "<f4"  # of the points in the cache
# The point of each landmark.
LANDMARKS = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
        *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
        *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inside
    ]
)
OUTER_UPPER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
OUTER_LOWER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
INNER_UPPER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
INNER_LOWER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
FACE = [
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
    *(148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
]
NOSE = [
    *(168, 193, 245, 188, 174, 217, 198, 209, 49, 48, 64, 98, 97, 2),
    *(326, 327, 294, 278, 279, 429, 420, 437, 399, 412, 465, 417),
]
# The outline of each class, in the order in which they are painted.
OUTLINES: list[tuple[int, list[int]]] = [
    (2, FACE),
    (9, NOSE),
    (11, [70, 63, 105, 66, 107, 55, 65, 52, 53, 46]),
    (12, [300, 293, 334, 296, 336, 285, 295, 282, 283, 276]),
    (6, [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]),
    (5, [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249]),
    (3, OUTER_UPPER + INNER_UPPER[::-1]),
    (4, OUTER_LOWER + INNER_LOWER[::-1]),
    (10, INNER_UPPER + INNER_LOWER[::-1]),
]

Mesh = Callable[[np.ndarray], tuple[np.ndarray, float | None]]


def mesh_points(file: Path, dataset: Dataset) -> np.ndarray:
    """Return the points of every image of `dataset`, float32 (N, 468, 2), as shares of the side of the image.

    They are kept in the cache, by the file and the data. A line says in how many images the mesh sees no face; what it
    guesses there stays. Rows of unreadable images are 0.

    Raises:
        UserError: the file is no face mesh, or its package is missing.
    """
    size, run = open_mesh(file)
    made_of = fingerprint(file.read_bytes(), dataset.fingerprint, dataset.source.stamp)
    place = cache_dir() / "face_mesh" / f"{made_of}.npy"
    if (kept := _kept(place, len(dataset))) is not None:
        return kept
    points, unsure = np.zeros((len(dataset), POINTS[0], 2), np.float32), 0
    starts = range(0, len(dataset), READ)
    for start in track(starts, "placing the face mesh", len(starts)):
        rows = np.arange(start, min(start + READ, len(dataset)))
        found = dataset.read(rows, np.zeros(len(rows), bool))
        images = found.images.permute(0, 2, 3, 1).numpy()
        for row, image in zip(found.index[:, 0].tolist(), images, strict=True):
            placed, score = run(_framed(image, size))
            points[row] = placed[: POINTS[0], :2] / size * (1 + 2 * MARGIN) - MARGIN
            unsure += score is not None and score < UNSURE
    if unsure:
        say(f"{file}: sees no face in {unsure:,} of {len(dataset):,} images; their priors are what it guesses")
    try:
        with atomic_write(place, private=True) as temporary:
            save_array(temporary, points, KIND, place.name)
    except UserError as e:
        say(f"the points of the face mesh are not kept ({e})")
    return points


def _kept(place: Path, count: int) -> np.ndarray | None:
    try:
        return load_array(place, (count, POINTS[0], 2), KIND) if os.path.isfile(place) else None
    except (OSError, ValueError) as e:
        say(f"{place} is damaged ({e}), so it is made anew")
        return None


def _framed(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image (H, W, 3) with its border continued outwards, float32 (size, size, 3) of 0..1."""
    edge = round(MARGIN * len(image))
    wider = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    return np.asarray(Image.fromarray(wider).resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255


def landmarks_of(points: np.ndarray) -> np.ndarray:
    """Return the 68 landmarks (N, 68, 2), in the iBUG order, of mesh points (N, 468, 2)."""
    return points[:, LANDMARKS]


def classes_of(points: np.ndarray, size: int) -> np.ndarray:
    """Return the parsing classes, uint8 (size, size), of one image's points (468, 2), shares of its side."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for kind, outline in OUTLINES:
        draw.polygon([(x, y) for x, y in (points[outline] * size - 0.5).tolist()], fill=kind)
    return np.asarray(image)


def open_mesh(file: Path) -> tuple[int, Mesh]:
    """Return the side of the images that the mesh takes, and a function of one image (H, W, 3) of 0..1.

    It returns the points (468 or 478, 3) in pixels of that image, and the logit of a face's presence, if there is one.

    Raises:
        UserError: the file cannot be opened, its package is missing, or it is no face mesh.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; expected a face mesh, .onnx or .tflite")
    shape, call = (_open_tflite if file.suffix.lower() == ".tflite" else _open_onnx)(file)
    channels_last = len(shape) == 4 and shape[3] == 3
    sides = shape[1:3] if channels_last else shape[2:4]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or sides[0] != sides[1] or not isinstance(sides[0], int):
        raise UserError(f"{file}: takes {shape}; expected a face mesh, which takes one square image of three channels")

    def run(image: np.ndarray) -> tuple[np.ndarray, float | None]:
        found = call((image if channels_last else image.transpose(2, 0, 1))[None])
        return _points(file, found), next((float(x.ravel()[0]) for x in found if x.size == 1), None)

    run(np.zeros((sides[0], sides[0], 3), np.float32))  # a file that is something else is told before any work
    return sides[0], run


def _points(file: Path, found: list[np.ndarray]) -> np.ndarray:
    for one in found:
        if one.size in [3 * count for count in POINTS]:
            if not np.isfinite(one).all():
                raise UserError(f"{file}: gives points that are no numbers")
            return one.reshape(-1, 3)
    shapes = ", ".join(str(one.shape) for one in found)
    raise UserError(f"{file}: gives {shapes}; expected a face mesh: {POINTS[0]} or {POINTS[1]} points (x, y, z)")


def _open_onnx(file: Path) -> tuple[tuple[Any, ...], Callable[[np.ndarray], list[np.ndarray]]]:
    session = open_session(file, threads=1)
    taken = session.get_inputs()[0]
    return tuple(taken.shape), lambda image: session.run(None, {taken.name: image})


def _open_tflite(file: Path) -> tuple[tuple[Any, ...], Callable[[np.ndarray], list[np.ndarray]]]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as e:
        raise UserError(f"{file}: TFLite models need a package: pip install 'facedistill[litert]'") from e
    try:
        interpreter = Interpreter(str(file), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as e:
        raise UserError(f"{file}: not a usable TFLite model ({one_line(e)})") from e
    taken = interpreter.get_input_details()[0]
    made = [output["index"] for output in interpreter.get_output_details()]

    def call(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(taken["index"], image)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in made]

    return tuple(int(side) for side in taken["shape"]), call
