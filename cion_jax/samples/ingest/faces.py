"""Face blurring, so that people are stored no more recognisable than the task requires (paper, A.3)."""

import numpy as np

from cion_jax.samples.ingest.optional import opencv

_CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")  # included in OpenCV
_HEAD = 0.2  # fraction of the crop's height, from the top, that contains the head of an upright person
_STRENGTH = 0.04  # standard deviation of the blur, as a fraction of the crop's height: nearly half a face
_ENLARGED = 256  # height in pixels to which small crops are enlarged: the cascades miss faces below 20 pixels


class FaceBlur:
    """Blurs the upper fifth of a crop, where heads are, and every face that OpenCV's cascades detect below.

    In most crops faces are too small to be detected, so the head region, hair included, is always blurred. A face
    further down that the cascades miss stays visible: somebody sitting, bending over, or being carried.
    """

    def __init__(self) -> None:
        self._cv2 = opencv("CascadeClassifier")
        self._cascades = [self._cv2.CascadeClassifier(self._cv2.data.haarcascades + name) for name in _CASCADES]

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """Returns the crop, `[height, width, 3]` uint8, with faces blurred."""
        height, width = crop.shape[:2]
        blurred = self._cv2.GaussianBlur(crop, (0, 0), max(1.0, _STRENGTH * height))
        covered = np.zeros((height, width, 1), bool)
        covered[: round(_HEAD * height)] = True
        for left, top, right, bottom in self._faces(crop):
            covered[top:bottom, left:right] = True
        return np.where(covered, blurred, crop)

    def _faces(self, crop: np.ndarray) -> list[tuple[int, int, int, int]]:
        """Returns (left, top, right, bottom) of each detected face, including profiles facing either way."""
        scale = max(1.0, _ENLARGED / crop.shape[0])
        grey = self._cv2.cvtColor(crop, self._cv2.COLOR_RGB2GRAY)
        grey = self._cv2.resize(grey, None, fx=scale, fy=scale)
        boxes = []
        for cascade in self._cascades:
            for mirrored in (False, True):
                view = np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey
                for left, top, width, height in cascade.detectMultiScale(view, 1.1, 4):
                    left = grey.shape[1] - left - width if mirrored else left
                    sides = np.array([left, top, left + width, top + height]) / scale
                    boxes.append(tuple(np.rint(sides).astype(int).tolist()))
        return boxes
