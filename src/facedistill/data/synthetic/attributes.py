"""Attributes of rendered faces, each drawn for every photograph by itself: exact labels, several of them an image."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from facedistill.data.synthetic.paint import colour

MOST = 0.3  # of the images have the most frequent attribute
Change = Callable[[SimpleNamespace, SimpleNamespace, bool, np.random.Generator], None]


def _trait(name: str, there: tuple[float, float], absent: tuple[float, float]) -> Change:
    """Return the change that gives a person's trait a value from the range of those who have it, or of the others."""

    def change(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
        setattr(who, name, rng.uniform(*(there if has else absent)))

    return change


def _condition(name: str, there: tuple[float, float], absent: tuple[float, float]) -> Change:
    """The same of a photograph's condition."""

    def change(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
        setattr(shot, name, rng.uniform(*(there if has else absent)))

    return change


def _glasses(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    shot.glasses, shot.lens_tint = has, 0.0


def _dark_glasses(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    if has:
        shot.glasses, shot.lens_tint = True, 0.85


def _open_mouth(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    shot.mouth_open = rng.uniform(0.8, 1.4) if has else 0.0


def _beard(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    who.beard, who.moustache = (rng.uniform(0.5, 0.9), 0.0) if has else (0.0, 0.0)
    shot.shaving = 1.0


def _mask(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    shot.mask = has


def _hand(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    shot.hand = has


def _moles(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    low, high = [-0.5, -0.6, 0.035, 0.5], [0.5, 0.3, 0.055, 0.65]
    who.moles = rng.uniform(low, high, (4, 4)).tolist() if has else []


def _grey_hair(who: SimpleNamespace, shot: SimpleNamespace, has: bool, rng: np.random.Generator) -> None:
    if has:
        who.hair_colour, shot.hair_gain = rng.uniform(0.6, 0.85) * colour(1, 1, 1.02), colour(1, 1, 1)
    else:
        who.hair_colour = np.minimum(who.hair_colour, colour(0.40, 0.26, 0.15))


# The attribute, where it is on the face, and what it changes; the most frequent first.
ATTRIBUTES: dict[str, tuple[str, Change]] = {
    "smile": ("mouth", _condition("smile", (0.9, 1.4), (-0.5, 0.0))),
    "glasses": ("eyes", _glasses),
    "long hair": ("hair", _trait("hair_length", (0.5, 0.9), (0.0, 0.1))),
    "freckles": ("skin", _trait("freckles", (0.5, 0.8), (-0.3, -0.1))),
    "open mouth": ("mouth", _open_mouth),
    "frown": ("eyes", _condition("frown", (1.2, 1.8), (-0.6, 0.0))),
    "fringe": ("hair", _condition("fringe", (0.15, 0.3), (-0.02, 0.02))),
    "wrinkles": ("skin", _trait("fold", (0.45, 0.6), (-0.2, 0.0))),
    "beard": ("mouth", _beard),
    "dark glasses": ("eyes", _dark_glasses),
    "grey hair": ("hair", _grey_hair),
    "moles": ("skin", _moles),
    "narrow eyes": ("eyes", _condition("eye_open", (0.2, 0.4), (0.9, 1.2))),
    "mask": ("mouth", _mask),
    "thin hair": ("hair", _trait("hair_dense", (0.25, 0.5), (1.0, 1.0))),
    "blush": ("skin", _trait("blush", (0.6, 0.8), (0.0, 0.1))),
    "hand": ("skin", _hand),
}
HIDDEN = {"mask": ("smile", "open mouth", "beard", "wrinkles"), "dark glasses": ("glasses", "narrow eyes")}
REGIONS = {
    region: tuple(name for name, (where, _) in ATTRIBUTES.items() if where == region)
    for region in ("eyes", "mouth", "skin", "hair")
}


def shares(imbalance: float) -> np.ndarray:
    """Return how likely each attribute is, float64 (L,): 0.3 imbalance^(-c / (L - 1)), before some hide others."""
    return MOST * imbalance ** -(np.arange(len(ATTRIBUTES)) / (len(ATTRIBUTES) - 1))


def draw_attributes(seed: int, identity: int, image: int, imbalance: float) -> np.ndarray:
    """Draw which attributes a photograph has, bool (L,), each by itself. What another one hides is not there."""
    drawn = _generator(seed, identity, image).random(len(ATTRIBUTES)) < shares(imbalance)
    names = list(ATTRIBUTES)
    for cover, hidden in HIDDEN.items():
        if drawn[names.index(cover)]:
            drawn[[names.index(name) for name in hidden]] = False
    return drawn


def show_attributes(
    who: SimpleNamespace, shot: SimpleNamespace, has: np.ndarray, seed: int, identity: int, image: int
) -> None:
    """Change a person and a photograph so that they have these attributes, bool (L,), and no others."""
    rng = np.random.default_rng([seed, identity, 1 + image, 2])
    for there, (_, change) in zip(has.tolist(), ATTRIBUTES.values(), strict=True):
        change(who, shot, there, rng)


def _generator(seed: int, identity: int, image: int) -> np.random.Generator:
    return np.random.default_rng([seed, identity, 1 + image, 1])
