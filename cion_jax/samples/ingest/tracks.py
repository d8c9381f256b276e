"""Who is where in every frame: the one interface behind which detectors, trackers and track files are."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from cion_jax.samples.motchallenge import read_mot


class Detections(NamedTuple):
    """People found in a frame.

    boxes: `[n, 4]` float32: left, top, right and bottom in pixels, from 0 at the frame's upper left corner.
    scores: `[n]` float32 in [0, 1], how sure the detector is.
    """

    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, boxes: np.ndarray | list, scores: np.ndarray | list) -> "Detections":
        """From anything that NumPy takes for boxes and scores, none of them included."""
        return cls(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32).reshape(-1))


class Tracked(NamedTuple):
    """Detections that belong to tracklets, whose numbers are `tracklets`, `[n]` int64."""

    tracklets: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


NOBODY = Tracked(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.float32))


class Detector(Protocol):
    def detect(self, image: np.ndarray) -> Detections:
        """The people in `[height, width, 3]` uint8 RGB. Frames of a video come in order."""
        ...


class Tracker(Protocol):
    def update(self, detections: Detections) -> Tracked:
        """Assigns a frame's detections to tracklets; unassigned detections are left out."""
        ...


class Tracks(Protocol):
    """The tracklets of one video."""

    def at(self, number: int, image: Callable[[], np.ndarray]) -> Tracked:
        """Who is in frame `number`; asked for every frame once, in order. `image` decodes it where it is needed."""
        ...

    def end(self, frames: int) -> None:
        """Told how many frames there were; raises ValueError if the tracklets cannot be this video's."""
        ...


class DetectedTracks:
    """Tracklets that a detector and a tracker find in every `every`-th frame, from the first on."""

    def __init__(self, detector: Detector, tracker: Tracker, every: int):
        self._detector, self._tracker, self._every = detector, tracker, every

    def at(self, number: int, image: Callable[[], np.ndarray]) -> Tracked:
        if (number - 1) % self._every:
            return NOBODY
        return self._tracker.update(self._detector.detect(image()))

    def end(self, frames: int) -> None:
        del frames


class KnownTracks:
    """Tracklets from elsewhere: a text file as trackers write them for MOTChallenge. An empty one says: nobody.

    Raises:
      ValueError: the file is not there, or is not one of tracks.
    """

    def __init__(self, path: Path):
        self._path = path
        if path.is_file() and not path.stat().st_size:
            self._frames, self._tracked = np.empty(0, np.int64), NOBODY
            return
        found = read_mot(path, "tracks")
        if found.ids is None:
            raise ValueError(f"{path}: boxes without tracklets (id -1); run a tracker on them first")
        order = np.argsort(found.frames, kind="stable")
        self._frames = found.frames[order]
        scores = np.ones(len(order), np.float32)
        self._tracked = Tracked(found.ids[order], found.boxes[order].astype(np.float32), scores)

    def at(self, number: int, image: Callable[[], np.ndarray]) -> Tracked:
        del image
        rows = slice(*np.searchsorted(self._frames, (number, number + 1)))
        return Tracked(*(column[rows] for column in self._tracked))

    def end(self, frames: int) -> None:
        last = self._frames.max(initial=0)
        if last > frames:
            raise ValueError(
                f"{self._path}: tracks up to frame {last}, but the video has {frames}; are they of another video, or "
                "of one with another frame rate?"
            )
