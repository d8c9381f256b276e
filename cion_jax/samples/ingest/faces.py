"""Blurring faces, so that nobody is stored more recognisable than the task needs (paper, A.3)."""

import numpy as np

from cion_jax.samples.ingest.optional import opencv

_CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")  # they come with OpenCV
_HEAD = 0.2  # of the crop's height, from the top: where the head of somebody upright is
_STRENGTH = 0.04  # standard deviation of the blur, in heights of the crop: nearly half of a face
_ENLARGED = 256  # rows that small crops are scaled to: the cascades know no face below 20 pixels


class FaceBlur:
    """Blurs the upper fifth of a crop, where heads are, and every face that OpenCV's cascades find below.

    Faces are too small in most crops to be found one by one; so the head is blurred whatever is found, hair included.
    A face lower down that the cascades miss stays: of somebody who sits, bends, or is held in the arms.
    """

    def __init__(self) -> None:
        self._cv2 = opencv("CascadeClassifier")
        self._cascades = [self._cv2.CascadeClassifier(self._cv2.data.haarcascades + name) for name in _CASCADES]

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """`[height, width, 3]` uint8, blurred where the faces are."""
        height, width = crop.shape[:2]
        blurred = self._cv2.GaussianBlur(crop, (0, 0), max(1.0, _STRENGTH * height))
        covered = np.zeros((height, width, 1), bool)
        covered[: round(_HEAD * height)] = True
        for left, top, right, bottom in self._faces(crop):
            covered[top:bottom, left:right] = True
        return np.where(covered, blurred, crop)

    def _faces(self, crop: np.ndarray) -> list[tuple[int, int, int, int]]:
        """Left, top, right and bottom of the faces found; profiles to either side."""
        scale = max(1.0, _ENLARGED / crop.shape[0])
        grey = self._cv2.cvtColor(crop, self._cv2.COLOR_RGB2GRAY)
        grey = self._cv2.resize(grey, None, fx=scale, fy=scale)
        found = []
        for cascade in self._cascades:
            for mirrored in (False, True):
                seen = np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey
                for left, top, width, height in cascade.detectMultiScale(seen, 1.1, 4):
                    left = grey.shape[1] - left - width if mirrored else left
                    sides = np.array([left, top, left + width, top + height]) / scale
                    found.append(tuple(np.rint(sides).astype(int).tolist()))
        return found
