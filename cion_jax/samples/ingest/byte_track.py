"""ByteTrack: links detections into tracklets."""

from typing import Any

import numpy as np

from cion_jax.samples.ingest.optional import needed
from cion_jax.samples.ingest.tracks import NOBODY, Detections, Tracked


class ByteTrack:
    """ByteTrack (Zhang et al., ECCV 2022) for one video, as implemented in the package `trackers`, with its defaults.

    `rate` is the number of frames per second passed to `update`. A track is dropped after one second without a match.
    """

    def __init__(self, rate: float):
        self._detections: Any = needed("supervision").Detections
        self._tracker: Any = needed("trackers").ByteTrackTracker(frame_rate=rate)

    def update(self, detections: Detections) -> Tracked:
        tracked = self._tracker.update(self._detections(xyxy=detections.boxes, confidence=detections.scores))
        if not len(tracked):
            return NOBODY
        confirmed = tracked.tracker_id >= 0
        ids = tracked.tracker_id[confirmed].astype(np.int64)
        boxes, scores = tracked.xyxy[confirmed], tracked.confidence[confirmed]
        return Tracked(ids, boxes.astype(np.float32), scores.astype(np.float32))
