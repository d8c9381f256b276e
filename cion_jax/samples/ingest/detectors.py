"""Detectors built into OpenCV, which need no separate weights."""

import numpy as np

from cion_jax.samples.ingest.optional import opencv
from cion_jax.samples.ingest.tracks import Detections

_SHARE_OF_WINDOW = 0.8  # fraction of a window's sides that a person fills: windows were trained with a margin
_SMALLEST = 128 + 16, 64 + 16  # height and width; OpenCV writes out of bounds if a window does not fit
_MOVED = 24  # squared distance to the background, in variances, above which a pixel counts as foreground
_MOTION_SCORE = 0.9  # constant, because shapes carry no confidence


class PeopleDetector:
    """OpenCV's people detector: histograms of oriented gradients and a linear SVM (Dalal and Triggs, CVPR 2005).

    Finds upright people at least 100 pixels high, on any background; in crowds, in the dark and on noisy video it
    misses most of them. The score is the logistic function of the SVM margin.
    """

    def __init__(self) -> None:
        self._cv2 = opencv("HOGDescriptor")
        self._hog = self._cv2.HOGDescriptor()
        self._hog.setSVMDetector(self._cv2.HOGDescriptor_getDefaultPeopleDetector())

    def detect(self, image: np.ndarray) -> Detections:
        below, right = (max(0, least - side) for least, side in zip(_SMALLEST, image.shape[:2], strict=False))
        padded = self._cv2.copyMakeBorder(image, 0, below, 0, right, self._cv2.BORDER_REPLICATE)  # adds no people
        blue_first = np.ascontiguousarray(padded[..., ::-1])
        windows, margins = self._hog.detectMultiScale(blue_first, winStride=(8, 8), padding=(16, 16), scale=1.05)
        if not len(windows):
            return Detections.of([], [])
        corner, size = np.split(np.asarray(windows, np.float32), 2, axis=1)
        middle, half = corner + size / 2, _SHARE_OF_WINDOW * size / 2
        return Detections.of(np.hstack([middle - half, middle + half]), 1 / (1 + np.exp(-np.ravel(margins))))


class MotionDetector:
    """Upright moving shapes seen by a fixed camera, from OpenCV's background subtraction (Zivkovic, ICPR 2004).

    People who walk close together are detected as one, or not at all if the shape is too wide; people who stand still
    fade into the background.
    """

    def __init__(self) -> None:
        self._cv2 = opencv()
        self._background = self._cv2.createBackgroundSubtractorMOG2(varThreshold=_MOVED, detectShadows=False)

    def detect(self, image: np.ndarray) -> Detections:
        cv2, height = self._cv2, image.shape[0]
        moved = self._background.apply(cv2.GaussianBlur(image, (5, 5), 0))
        moved = cv2.morphologyEx(moved, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))  # removes noise
        gap = max(3, height // 100)  # closes gaps between head, trunk and legs with a kernel that is taller than wide
        moved = cv2.morphologyEx(moved, cv2.MORPH_CLOSE, np.ones((2 * gap, gap), np.uint8))
        left, top, width, tall, area = cv2.connectedComponentsWithStats(moved)[2][1:].T
        upright = (tall > 1.2 * width) & (tall < 6 * width) & (tall > height / 8) & (area > 0.3 * width * tall)
        boxes = np.stack([left, top, left + width, top + tall], axis=1)[upright]
        return Detections.of(boxes, np.full(len(boxes), _MOTION_SCORE))
