"""People: their appearance, which is the same in all cameras and at all times."""

import colorsys
import dataclasses

import numpy as np

PATTERNS = ("plain", "hoops", "stripes", "checks", "dots", "blocks", "camouflage", "print")
SLEEVES = ("none", "short", "long")
HAIR = ("bald", "short", "bob", "long", "bun", "cap", "hood")
BAGS = ("none", "backpack", "shoulder", "handbag")
LOWERS = ("trousers", "shorts", "skirt", "long skirt")
Colour = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Garment:
    """Two colours and their pattern. `scale` is the number of pattern repeats over the garment."""

    colour: Colour
    second: Colour
    pattern: str
    scale: float


@dataclasses.dataclass(frozen=True)
class Person:
    """Appearance and gait. Lengths are fractions of the person's height; colours are RGB in [0, 1]."""

    build: float  # width relative to the average
    legs: float  # length of the legs relative to the average
    skin: Colour
    hair: str  # one of HAIR
    hair_colour: Colour  # or the colour of the cap or hood
    upper: Garment
    sleeves: str  # one of SLEEVES
    hem: float  # length of the upper garment below the hip
    inner: Colour | None  # garment visible under an open jacket
    lower: Garment
    lower_kind: str  # one of LOWERS
    bag: str  # one of BAGS
    bag_colour: Colour
    bag_side: int  # +1 left, -1 right
    shoes: Colour
    swing: float  # amplitude of the legs, in radians
    cadence: float  # gait phase per crop, in radians


def make_person(rng: np.random.Generator) -> Person:
    """Samples a random person. Attributes are independent, so two people may share any one of them."""
    skin = _pick(rng, _SKIN)
    hair = str(rng.choice(HAIR, p=(0.07, 0.28, 0.14, 0.2, 0.11, 0.12, 0.08)))
    upper = _garment(rng, plain=0.4)
    jacket = rng.random() < 0.3
    return Person(
        build=float(rng.uniform(0.82, 1.22)),
        legs=float(rng.uniform(0.94, 1.06)),
        skin=skin,
        hair=hair,
        hair_colour=upper.colour if hair == "hood" else _cloth(rng) if hair == "cap" else _pick(rng, _HAIR),
        upper=upper,
        sleeves="long" if jacket else str(rng.choice(SLEEVES, p=(0.1, 0.4, 0.5))),
        hem=float(rng.choice((0.0, 0.04, 0.18), p=(0.5, 0.3, 0.2))),
        inner=_cloth(rng) if jacket else None,
        lower=_garment(rng, plain=0.75),
        lower_kind=str(rng.choice(LOWERS, p=(0.62, 0.16, 0.13, 0.09))),
        bag=str(rng.choice(BAGS, p=(0.4, 0.28, 0.18, 0.14))),
        bag_colour=_cloth(rng),
        bag_side=int(rng.choice((-1, 1))),
        shoes=_cloth(rng),
        swing=float(rng.uniform(0.28, 0.5)),
        cadence=float(rng.uniform(0.7, 1.5)),
    )


_SKIN = ((0.96, 0.80, 0.69), (0.90, 0.70, 0.56), (0.78, 0.57, 0.42), (0.58, 0.39, 0.27), (0.36, 0.24, 0.17))
_HAIR = (
    (0.07, 0.06, 0.06),
    (0.22, 0.14, 0.09),
    (0.42, 0.27, 0.15),
    (0.80, 0.64, 0.34),
    (0.62, 0.25, 0.11),
    (0.68, 0.67, 0.65),
)


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    """Samples a colour from the palette, made slightly lighter or darker."""
    red, green, blue = np.clip(np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.88, 1.1), 0, 1)
    return float(red), float(green), float(blue)


def _cloth(rng: np.random.Generator) -> Colour:
    """Samples a clothing colour: black, grey, white, denim and earth tones are nearly as common as bright colours."""
    kind = rng.random()
    if kind < 0.3:  # black, grey, white
        return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.08), float(rng.choice((0.1, 0.35, 0.6, 0.93))))
    if kind < 0.45:  # denim, khaki, brown
        hue = float(rng.choice((0.61, 0.12, 0.07)))
        return colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.7))
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.55, 0.95), rng.uniform(0.35, 0.95))


def _garment(rng: np.random.Generator, plain: float) -> Garment:
    colour, second = _cloth(rng), _cloth(rng)
    while np.abs(np.subtract(colour, second)).sum() < 0.6:  # similar colours would hide the pattern
        second = _cloth(rng)
    pattern = "plain" if rng.random() < plain else str(rng.choice(PATTERNS[1:]))
    return Garment(colour, second, pattern, float(rng.choice((3.0, 4.5, 6.0))))
