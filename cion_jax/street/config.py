"""Configuration of a street: its content and its difficulty for re-identification."""

import dataclasses
import difflib

# A Market-1501 file name has one digit for the camera and four for the person, of which 0000 is reserved.
MARKET_CAMERAS = 9
MARKET_PEOPLE = 9999


@dataclasses.dataclass(frozen=True)
class StreetConfig:
    """All settings that determine a street, including the seed. The same config gives the same bytes.

    There are three populations, which share neither people nor cameras:

    labelled   people with known identities, each seen by some of the cameras for a few frames
    crawl      videos (one camera each) of people who recur across videos, cropped by an imperfect tracker
    benchmark  query and gallery in Market-1501 layout

    Rates are probabilities; strengths are multipliers (0 turns an effect off).
    """

    seed: int = 0

    # Stored crops.
    height: int = 128
    width: int = 64
    jpeg_quality: int = 92

    # Labelled population.
    labelled_people: int = 150
    labelled_cameras: int = 12
    labelled_cameras_per_person: int = 4
    labelled_frames: int = 5  # per person and camera

    # Crawl.
    crawl_people: int = 300
    crawl_videos: int = 40
    people_per_video: int = 20
    fragments: tuple[int, int] = (1, 3)  # fewest and most tracklets per person and video
    fragment_frames: tuple[int, int] = (5, 15)  # fewest and most crops per tracklet
    co_visible: float = 6.0  # people in view at the same time, on average; determines the length of a video
    frame_stride: int = 5  # video frames between two crops of a tracklet

    # Tracker errors.
    switch_rate: float = 0.18  # tracklets that switch to another person
    slip_rate: float = 0.02  # crops of a tracklet that show no person
    ghost_rate: float = 0.01  # tracklets that show no person at all
    box_jitter: float = 0.04  # standard deviation of a box's centre and size, in box heights

    # Benchmark.
    benchmark_people: int = 100
    benchmark_cameras: int = 6
    benchmark_cameras_per_person: tuple[int, int] = (3, 6)
    benchmark_frames: tuple[int, int] = (2, 5)  # gallery crops per person and camera
    benchmark_distractors: int = 100  # gallery crops of people without a query (0000)
    benchmark_junk: int = 50  # gallery crops that are ignored in scoring (-1)

    # Difficulty.
    camera_strength: float = 0.6  # colour cast, exposure, contrast, blur and noise
    background: float = 0.35  # saturation and contrast of the background
    fill: float = 1.35  # horizontal stretch of a person in the box (an effect of tight boxes)
    occlusion: float = 1.0  # number of occluders, as a multiplier
    turn: float = 0.2  # variation of a person's heading along a walk, in radians
    drift: float = 5.0  # background motion from crop to crop, in pixels of a 128-pixel crop
    flicker: float = 0.0  # variation of the log exposure along a walk

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_field(field, getattr(self, field.name))
        _check_at_most(self, "labelled_cameras_per_person", self.labelled_cameras, "labelled_cameras")
        _check_at_most(self, "benchmark_cameras_per_person", self.benchmark_cameras, "benchmark_cameras")
        _check_at_most(self, "people_per_video", self.crawl_people, "crawl_people")
        _check_at_most(self, "jpeg_quality", 100, "the best there is")
        _check_at_most(self, "benchmark_cameras", MARKET_CAMERAS, "what a Market-1501 name has room for")
        _check_at_most(self, "benchmark_people", MARKET_PEOPLE, "what a Market-1501 name has room for")


def street_config(**overrides) -> StreetConfig:
    """Returns the default street, about 17,000 crops, with `overrides`; raises `ValueError` for an unknown name."""
    known = [field.name for field in dataclasses.fields(StreetConfig)]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"street: no setting {name!r}; {hint}")
    return StreetConfig(**overrides)


_MAY_BE_ZERO = ("seed", "benchmark_distractors", "benchmark_junk")
_MUST_BE_POSITIVE = ("co_visible", "fill")


def _check_field(field: dataclasses.Field, value: int | float | tuple[int, int]) -> None:
    complaint = f"street: {field.name}={value}: expected "
    if isinstance(field.default, tuple):
        if not isinstance(value, tuple) or len(value) != 2 or value[0] > value[1]:
            raise ValueError(complaint + "a tuple of two numbers, (fewest, most)")
        value = value[0]
    if not isinstance(value, int if isinstance(field.default, (int, tuple)) else (int, float)):
        raise ValueError(complaint + ("a whole number" if isinstance(field.default, int) else "a number"))
    count = isinstance(field.default, (int, tuple)) and field.name not in _MAY_BE_ZERO
    if count and value < 1:
        raise ValueError(complaint + "at least 1")
    if value < 0 or (value == 0 and field.name in _MUST_BE_POSITIVE):
        raise ValueError(complaint + "a number that is not negative, nor 0 where nothing could be drawn with it")
    if field.name.endswith("_rate") and value > 1:
        raise ValueError(complaint + "a probability, at most 1")


def _check_at_most(config: StreetConfig, name: str, limit: int, what: str) -> None:
    value = getattr(config, name)
    if (value[1] if isinstance(value, tuple) else value) > limit:
        raise ValueError(f"street: {name}={value} is more than {limit}, {what}; ask for less")
