"""Detections linked to tracklets."""

from typing import Any

import numpy as np

from cion_jax.samples.ingest.optional import needed
from cion_jax.samples.ingest.tracks import NOBODY, Detections, Tracked


class ByteTrack:
    """ByteTrack (Zhang et al., ECCV 2022) as the package `trackers` has it, with its defaults, for one video.

    `rate` is the number of frames per second that it is given. It forgets who was not seen for a second.
    """

    def __init__(self, rate: float):
        self._detections: Any = needed("supervision").Detections
        self._tracker: Any = needed("trackers").ByteTrackTracker(frame_rate=rate)

    def update(self, detections: Detections) -> Tracked:
        found = self._detections(xyxy=detections.boxes, confidence=detections.scores)
        tracked = self._tracker.update(found)
        if not len(tracked):
            return NOBODY
        sure = tracked.tracker_id >= 0
        numbers = tracked.tracker_id[sure].astype(np.int64)
        return Tracked(numbers, tracked.xyxy[sure].astype(np.float32), tracked.confidence[sure].astype(np.float32))
