"""Tracklets per frame: the common interface of detectors, trackers and track files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from cion_jax.samples.motchallenge import read_mot


class Detections(NamedTuple):
    """People detected in a frame.

    Attributes:
        boxes: `[n, 4]` float32: left, top, right and bottom in pixels, with 0 at the frame's upper left corner.
        scores: `[n]` float32 in [0, 1], the detector's confidence.
    """

    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, boxes: np.ndarray | list, scores: np.ndarray | list) -> "Detections":
        """Converts array-like boxes and scores, which may be empty."""
        return cls(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32).reshape(-1))


class Tracked(NamedTuple):
    """Detections assigned to tracklets; `tracklets`, `[n]` int64, are the tracklet ids."""

    tracklets: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


NOBODY = Tracked(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.float32))


class Detector(Protocol):
    def detect(self, image: np.ndarray) -> Detections:
        """Detects people in `[height, width, 3]` uint8 RGB; called with the frames of a video in order."""
        ...


class Tracker(Protocol):
    def update(self, detections: Detections) -> Tracked:
        """Assigns a frame's detections to tracklets; unassigned detections are dropped."""
        ...


class Tracks(Protocol):
    """The tracklets of one video."""

    def at(self, number: int, image: Callable[[], np.ndarray]) -> Tracked:
        """Returns the people in frame `number`; called once per frame, in order. `image` converts it on demand."""
        ...

    def end(self, frames: int) -> None:
        """Called with the number of frames; raises `ValueError` if the tracklets cannot be of this video."""
        ...


class DetectedTracks:
    """Tracklets from a detector and a tracker, run on every `every`-th frame, starting with the first."""

    def __init__(self, detector: Detector, tracker: Tracker, every: int):
        self._detector, self._tracker, self._every = detector, tracker, every

    def at(self, number: int, image: Callable[[], np.ndarray]) -> Tracked:
        if (number - 1) % self._every:
            return NOBODY
        return self._tracker.update(self._detector.detect(image()))

    def end(self, frames: int) -> None:
        del frames


class KnownTracks:
    """Tracklets read from a MOTChallenge result file; an empty file means that nobody is in the video.

    Args:
        path, classes, first_frame: As for `read_mot`.

    Raises:
        ValueError: The file is missing, or is not a track file.
    """

    def __init__(self, path: Path, *, classes: Sequence[int] | None = None, first_frame: int = 1):
        self._path = path
        if path.is_file() and not path.stat().st_size:
            self._frames, self._tracked = np.empty(0, np.int64), NOBODY
            return
        known = read_mot(path, "tracks", classes=classes, first_frame=first_frame)
        if known.ids is None:
            raise ValueError(f"{path}: boxes without tracklets (id -1); run a tracker on them first")
        order = np.argsort(known.frames, kind="stable")
        self._frames = known.frames[order]
        scores = np.ones(len(order), np.float32)
        self._tracked = Tracked(known.ids[order], known.boxes[order].astype(np.float32), scores)

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
