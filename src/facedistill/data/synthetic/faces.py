"""Synthetic faces: any number of people, any number of photographs of each, from one seed and no file.

A person is a draw of about seventy traits, nearly all of them geometry; a photograph is a draw of pose, light,
expression, covering, background and camera. Colour is drawn mostly per photograph, so it does not reveal the person.
"""

import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Literal

import numpy as np
from PIL import Image

from facedistill.data.sources.source import Source
from facedistill.data.synthetic.attributes import ATTRIBUTES, REGIONS, draw_attributes, show_attributes
from facedistill.data.synthetic.paint import colour, draw_face
from facedistill.data.synthetic.priors import face_priors
from facedistill.errors import UserError
from facedistill.files import fingerprint

# The traits of a person: mean and standard deviation (clipped at 2.2 deviations), in head units (half a head's height).
TRAITS = {
    # head
    "head_width": (0.74, 0.06),
    "head_depth": (0.80, 0.06),
    "crown": (1.16, 0.06),
    "chin": (0.92, 0.072),
    "jaw_square": (2.8, 0.33),
    "jaw_taper": (0.22, 0.12),
    "temple": (0.10, 0.072),
    "cheek_width": (0.02, 0.024),
    "cheek_bone": (0.035, 0.024),
    "cheek_x": (0.40, 0.036),
    "chin_boss": (0.05, 0.03),
    "neck": (0.42, 0.05),
    "asymmetry": (0.0, 0.02),
    # eyes
    "eye_x": (0.305, 0.031),
    "eye_y": (0.10, 0.036),
    "eye_width": (0.145, 0.019),
    "eye_tilt": (0.010, 0.017),
    "lid_top": (0.070, 0.017),
    "lid_low": (0.045, 0.011),
    "lid_skew": (0.0, 0.24),
    "crease_gap": (0.035, 0.014),
    "crease": (0.30, 0.18),
    "iris": (0.060, 0.0072),
    "lashes": (0.012, 0.0048),
    "eye_bag": (0.14, 0.08),
    "eye_shadow": (0.15, 0.084),
    "socket": (0.050, 0.024),
    # brows
    "brow_x": (0.13, 0.03),
    "brow_y": (0.29, 0.036),
    "brow_length": (0.36, 0.042),
    "brow_arch": (0.030, 0.024),
    "brow_tilt": (0.0, 0.03),
    "brow_thick": (0.036, 0.014),
    "brow_thin": (0.6, 0.24),
    "brow_dense": (0.75, 0.18),
    "brow_uneven": (0.0, 0.0096),
    "brow_ridge": (0.03, 0.018),
    # nose
    "nose_y": (-0.23, 0.048),
    "nose_width": (0.125, 0.024),
    "nose_height": (0.15, 0.042),
    "nose_hump": (0.0, 0.024),
    "nose_tip": (0.05, 0.024),
    "bridge_width": (0.070, 0.014),
    # mouth
    "mouth_y": (-0.50, 0.042),
    "mouth_width": (0.26, 0.038),
    "mouth_curve": (0.015, 0.022),
    "upper_lip": (0.055, 0.017),
    "lower_lip": (0.080, 0.022),
    "bow": (0.25, 0.18),
    "lip_colour": (0.45, 0.12),
    # skin
    "melanin": (0.33, 0.16),
    "hue": (0.0, 0.02),
    "blush": (0.15, 0.08),
    "fold": (0.15, 0.11),
    "freckles": (-0.1, 0.2),
    # hair and ears
    "hairline": (0.66, 0.072),
    "widow_peak": (0.02, 0.048),
    "temple_x": (0.44, 0.06),
    "recede": (0.03, 0.072),
    "parting": (0.0, 0.048),
    "sideburn": (1.6, 0.72),
    "wisps": (0.5, 0.36),
    "curl": (0.4, 0.42),
    "hair_volume": (0.10, 0.06),
    "ear_size": (0.135, 0.022),
    "ear_out": (0.0, 0.03),
    "ear_y": (-0.02, 0.048),
}

# The conditions of a photograph: mean and standard deviation (clipped likewise). Angles are in radians.
CONDITIONS = {
    "yaw": (0.0, 0.22),
    "pitch": (0.0, 0.10),
    "roll": (0.0, 0.07),
    "zoom": (1.0, 0.035),
    "shift_x": (0.0, 0.025),
    "shift_y": (0.0, 0.025),
    "smile": (0.35, 0.45),
    "frown": (0.1, 0.35),
    "brow_raise": (0.1, 0.35),
    "eye_open": (0.95, 0.18),
    "gaze_x": (0.0, 0.025),
    "gaze_y": (0.0, 0.010),
    "tan": (0.0, 0.08),
    "lipstick": (0.0, 0.10),
    "blur": (0.4, 0.4),
    "brightness": (0.0, 0.05),
    "contrast": (1.0, 0.12),
    "saturation": (0.95, 0.20),
    "fill": (0.18, 0.08),
    "key": (0.75, 0.18),
    "gloss": (0.10, 0.07),
    "collar": (-0.98, 0.06),
    "neckline": (0.4, 0.3),
    "bokeh": (0.5, 0.2),
}

CLIP = 2.2
HAIR_COLOURS = [
    colour(*c)
    for c in [(0.10, 0.08, 0.07), (0.20, 0.13, 0.09), (0.33, 0.21, 0.12), (0.52, 0.37, 0.20), (0.45, 0.43, 0.41)]
]
IRIS_COLOURS = [colour(*c) for c in [(0.25, 0.15, 0.08), (0.38, 0.26, 0.14), (0.36, 0.42, 0.30), (0.35, 0.46, 0.58)]]
MAX_MOLES = 4
MOST = 10_000_000  # images: the names of more do not fit into memory


class SyntheticFaces(Source):
    """`identities` people with `images` photographs each, `size` x `size` RGB uint8.

    Photograph j of person k depends on (seed, first + k, j) alone. If you ask for more people or photographs, the
    existing ones do not change. Ranges of `first` that do not overlap are different people. Another `size` shows the
    same photograph with more or less detail. `priors`: it also tells the landmarks and classes of every image.

    `task=attributes`: an image has any of the labels in ATTRIBUTES (glasses, beard, ...), and a class is still the
    person. The labels' frequencies fall exponentially, to 1 / `imbalance` of the first for the last one.
    """

    expected = "synthetic:identities=300"
    takes_options = True

    def __init__(
        self,
        identities: int = 300,
        images: int = 20,
        size: int = 112,
        seed: int = 0,
        first: int = 0,
        priors: bool = False,
        task: Literal["identities", "attributes"] = "identities",
        imbalance: float = 1.0,
    ) -> None:
        for name, value, least in [
            ("identities", identities, 1),
            ("images", images, 1),
            ("seed", seed, 0),
            ("first", first, 0),
        ]:
            if value < least:
                raise UserError(f"synthetic faces: {name} is {value}, expected at least {least}")
        if identities * images > MOST:
            raise UserError(f"synthetic faces: {identities:,} x {images:,} images, expected at most {MOST:,} in all")
        if not 16 <= size <= 112:
            raise UserError(f"synthetic faces: size is {size}, expected 16 to 112 pixels")
        if not imbalance >= 1 or (imbalance > 1 and task == "identities"):
            raise UserError(f"synthetic faces: imbalance is {imbalance}, expected 1 and more, with task=attributes")
        self.identities, self.images, self.size, self.seed, self.first = identities, images, size, seed, first
        self.path = f"synthetic:identities={identities},images={images},size={size},seed={seed},first={first}"
        self.class_names = [f"id{k:06d}" for k in range(first, first + identities)]
        self.keys = [f"{name}/{j:04d}" for name in self.class_names for j in range(images)]
        self.labels = np.repeat(np.arange(identities, dtype=np.int64), images)
        self.fingerprint = fingerprint("synthetic faces 1", self.path)
        self.has_priors = priors  # the images are the same, and so is the fingerprint
        if task == "attributes":
            self._label(imbalance)

    def _label(self, imbalance: float) -> None:
        """Draw the labels of every image."""
        self.path += f",task=attributes,imbalance={imbalance:g}"
        self.label_names, self.label_groups = list(ATTRIBUTES), REGIONS
        pairs = (divmod(i, self.images) for i in range(len(self)))
        drawn = [draw_attributes(self.seed, self.first + person, image, imbalance) for person, image in pairs]
        self.multi_hot = np.array(drawn)
        self.fingerprint = fingerprint("synthetic attributes 1", self.path, self.multi_hot)

    def read(self, i: int) -> np.ndarray:
        """Render image `i` as RGB uint8 (size, size, 3)."""
        return draw_face(*self._drawn(i), self.size)

    def priors(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the landmarks of image `i`, float32 (68, 2), and the class of every pixel, uint8 (size, size)."""
        return face_priors(*self._drawn(i), self.size)

    def _drawn(self, i: int) -> tuple[SimpleNamespace, SimpleNamespace]:
        """Return the person and the conditions of image `i`."""
        person, image = divmod(range(len(self))[i], self.images)
        who, shot = draw_person(self.seed, self.first + person), draw_shot(self.seed, self.first + person, image)
        if self.multi_hot is not None:
            show_attributes(who, shot, self.multi_hot[i], self.seed, self.first + person, image)
        return who, shot

    def render(self, indices: Iterable[int]) -> np.ndarray:
        """Render several images as RGB uint8 (n, size, size, 3): the pixels that `read` gives."""
        return np.stack([self.read(i) for i in indices])


def draw_person(seed: int, identity: int) -> SimpleNamespace:
    """Draw the traits of person `identity`."""
    rng = np.random.default_rng([seed, identity, 0])
    who = _draw(TRAITS, rng)
    who.hair_colour = _blend(HAIR_COLOURS, rng)
    who.iris_colour = _blend(IRIS_COLOURS, rng)
    long_hair, thin_hair, bearded = (rng.random(3) < (0.5, 0.15, 0.4)).tolist()
    who.hair_length = rng.uniform(0.2, 0.9) if long_hair else rng.uniform(0, 0.2)
    who.hair_dense = rng.uniform(0.3, 1) if thin_hair else 1.0
    who.beard = rng.uniform(0.2, 0.8) if bearded and not long_hair else 0.0
    who.moustache = rng.uniform(0, 1)
    who.phase = rng.uniform(0, 2 * np.pi, 3).tolist()
    x_y_radius_depth = rng.uniform([-0.5, -0.7, 0.010, 0.3], [0.5, 0.5, 0.024, 0.65], (MAX_MOLES, 4)).tolist()
    who.moles = x_y_radius_depth[: rng.integers(0, MAX_MOLES + 1)]
    return who


def draw_shot(seed: int, identity: int, image: int) -> SimpleNamespace:
    """Draw the conditions of photograph `image` of person `identity`."""
    # A trailing zero does not change a SeedSequence, so photographs start at 1; [seed, identity, 0] is the person's.
    rng = np.random.default_rng([seed, identity, 1 + image])
    shot = _draw(CONDITIONS, rng)
    shot.mouth_open = max(0.0, rng.normal(-0.1, 0.5))
    shot.teeth = rng.uniform(0.3, 1)
    shot.shaving = rng.uniform(0.1, 1)
    _draw_light(shot, rng)
    _draw_surroundings(shot, rng)
    _draw_cover(shot, rng)
    shot.noise = abs(rng.normal(0, 0.018))
    shot.noise_seed = int(rng.integers(2**31))
    return shot


def _draw(table: dict[str, tuple[float, float]], rng: np.random.Generator) -> SimpleNamespace:
    """Draw every row of `table` from its clipped normal distribution."""
    z = np.clip(rng.standard_normal(len(table)), -CLIP, CLIP).tolist()
    return SimpleNamespace(**{name: mean + spread * u for (name, (mean, spread)), u in zip(table.items(), z)})


def _blend(colours: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Mix two neighbours in a list of colours."""
    low, share = divmod(rng.uniform(0, len(colours) - 1), 1)
    return colours[int(low)] * (1 - share) + colours[int(low) + 1] * share


def _draw_light(shot: SimpleNamespace, rng: np.random.Generator) -> None:
    direction = np.array([rng.normal(0, 0.6), rng.normal(0.35, 0.35), 1.0])
    shot.light = (direction / np.linalg.norm(direction)).tolist()
    warmth, green = rng.normal(0, 0.10), rng.normal(0, 0.035)
    shot.gain = math.exp(rng.normal(0.05, 0.16)) * colour(1 + warmth, 1 + green, 1 - warmth)
    shot.key_colour = colour(1, 0.97, 0.93) + colour(*rng.normal(0, 0.05, 3))
    shot.ambient = rng.uniform(0.25, 0.5) + colour(*rng.normal(0, 0.03, 3))
    shot.flat_light = shot.ambient + 0.5 * shot.key
    shot.hair_gain = math.exp(rng.normal(0, 0.3)) * colour(*rng.normal(1, 0.05, 3))


def _draw_surroundings(shot: SimpleNamespace, rng: np.random.Generator) -> None:
    shot.back = (_muted(rng), _muted(rng))
    shot.slope = rng.normal(0, 0.7, 2).tolist()
    shot.blobs = [
        (*rng.uniform([-1, -1, 0.1], [1, 1, 0.6]).tolist(), rng.random() < 0.5, _muted(rng)) for _ in range(3)
    ]
    shot.clothes = _muted(rng)


def _muted(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour of any brightness and little saturation."""
    return colour(*np.clip(rng.uniform(0.05, 0.9) + rng.normal(0, 0.12, 3), 0, 1))


def _draw_cover(shot: SimpleNamespace, rng: np.random.Generator) -> None:
    """Draw glasses, a mask, a hand or a fringe, each with a small probability."""
    shot.glasses, shot.mask, shot.hand, fringe, tinted, dark = (
        rng.random(6) < (0.12, 0.04, 0.05, 0.12, 0.3, 0.2)
    ).tolist()
    shot.fringe = rng.uniform(0.05, 0.3) if fringe else rng.normal(0, 0.015)
    shot.lens_x, shot.lens_y, shot.rim = rng.uniform([0.18, 0.11, 0.008], [0.23, 0.18, 0.022]).tolist()
    shot.lens_power = rng.uniform(2, 5)
    shot.lens_tint = 0.85 if dark else 0.08 if tinted else 0.0
    shot.rim_colour = rng.uniform(0.02, 0.4) * colour(*rng.uniform(0.6, 1, 3))
    shot.mask_colour = _muted(rng)
    shot.mask_height = rng.normal(0, 0.04)
    shot.hand_angle, shot.hand_x, shot.hand_y = rng.uniform([1.8, -0.4, -0.9], [4.5, 0.4, -0.2]).tolist()
    shot.hand_width, shot.hand_is_skin = rng.uniform(0.1, 0.22), rng.random() < 0.7


def contact_sheet(source: Source, identities: int = 8, images: int = 8) -> Image.Image:
    """Lay out the first `images` RGB arrays of the first `identities` classes of a source, one class per row."""
    rows = [np.flatnonzero(source.labels == k)[:images] for k in range(min(identities, len(source.class_names)))]
    cells = [np.concatenate([np.asarray(source.read(int(i))) for i in row], axis=1) for row in rows]
    return Image.fromarray(np.concatenate(cells, axis=0))
