"""The size of a street, and the difficulty of recognising people on it."""

import dataclasses
import difflib

# A Market-1501 file name gives the camera one digit and the person four, of which 0000 is taken.
MARKET_CAMERAS = 9
MARKET_PEOPLE = 9999


@dataclasses.dataclass(frozen=True)
class StreetConfig:
    """Everything that determines a street, its seed included. Same config, same bytes.

    Three populations that share neither people nor cameras:

    labelled   people with known identities, each seen by some of the cameras for a few frames
    crawl      videos (one camera each) of people who recur across videos, cut out by a flawed tracker
    benchmark  query and gallery in Market-1501 layout

    Rates are probabilities, strengths are multiples (0 turns an effect off).
    """

    seed: int = 0

    # Crops, as they are stored.
    height: int = 128
    width: int = 64
    jpeg_quality: int = 92

    # Labelled population.
    labelled_people: int = 150
    labelled_cameras: int = 12
    labelled_cameras_per_person: int = 4
    labelled_frames: int = 5  # of each person in each camera

    # Crawl.
    crawl_people: int = 300
    crawl_videos: int = 40
    people_per_video: int = 20
    fragments: tuple[int, int] = (1, 3)  # fewest and most tracklets of one person in one video
    fragment_frames: tuple[int, int] = (5, 15)  # fewest and most crops in one tracklet
    co_visible: float = 6.0  # people in view at the same time, on average; sets how long a video is
    frame_stride: int = 5  # video frames between two crops of a tracklet

    # The tracker's flaws.
    switch_rate: float = 0.18  # tracklets that continue on another person
    slip_rate: float = 0.02  # crops of a tracklet that show no person
    ghost_rate: float = 0.01  # tracklets that show no person at all
    box_jitter: float = 0.04  # standard deviation of a box's centre and size, in box heights

    # Benchmark.
    benchmark_people: int = 100
    benchmark_cameras: int = 6
    benchmark_cameras_per_person: tuple[int, int] = (3, 6)
    benchmark_frames: tuple[int, int] = (2, 5)  # gallery crops of each person in each camera
    benchmark_distractors: int = 100  # gallery crops of people no query asks for (0000)
    benchmark_junk: int = 50  # gallery crops that no score counts (-1)

    # What makes it hard.
    camera_strength: float = 0.6  # colour cast, exposure, contrast, blur and noise
    background: float = 0.35  # saturation and contrast of what is behind the people
    fill: float = 1.35  # how much wider than life a person stands in the box (tight boxes do this)
    occlusion: float = 1.0  # how many things stand between people and cameras
    turn: float = 0.2  # how far a person's heading wanders along a walk, in radians
    drift: float = 5.0  # how far the background moves from crop to crop, in pixels of a 128-pixel crop
    flicker: float = 0.0  # how far the exposure wanders along a walk

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
    """The default street, about 17,000 crops, with `overrides`; an unknown name is a `ValueError`."""
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
