"""Detectors that users bring as ONNX files."""

from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.samples.ingest.optional import needed, opencv
from cion_jax.samples.ingest.tracks import Detections

_SIDE = 640  # of the input, where the file leaves it open
_GREY = 114  # beside the frame, where its proportions are not the input's
_LOWEST_SCORE = 0.1  # the tracker uses unsure detections too
_SAME = 0.7  # overlap (IoU) from which two boxes are one person


class OnnxDetector:
    """An object detector in ONNX form, run by onnxruntime on the CPU or, with onnxruntime-gpu, on the GPU.

    It takes `[1, 3, height, width]` RGB in [0, 1], the frame scaled to fit and padded with grey, and gives one of

        [1, n, 6]             left, top, right, bottom, score, class: detectors that select by themselves
        [1, 4 + classes, n]   middle, width and height, then a score per class: YOLO as Ultralytics exports it

    in pixels of the input. In the second form n is at least 4 + classes; what is longer in the other direction is the
    `[1, n, 5 + classes]` of YOLOv5 and YOLOX or the `[1, n, 4 + classes]` of RT-DETR, and refused. A model that divides
    by 255 itself is given its input divided twice, and finds nobody.

    Raises:
      ValueError: no such file, no ONNX model, or another form of input or output.
    """

    def __init__(self, path: Path, person_class: int = 0):
        if not path.is_file():
            raise ValueError(f"{path}: no such ONNX file")
        runtime: Any = needed("onnxruntime")
        self._cv2 = opencv()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # videos are what is done in parallel
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=_providers(runtime))
        except Exception as error:  # its own classes have no common base
            raise ValueError(f"{path}: not an ONNX model that onnxruntime can load ({error})") from error
        self._path, self._person = path, person_class
        taken = self._session.get_inputs()
        if len(taken) != 1 or len(taken[0].shape) != 4 or taken[0].shape[1] != 3:
            raise ValueError(
                f"{path}: inputs {[value.shape for value in taken]}, expected one of [1, 3, height, width]"
            )
        self._input, self._dtype = taken[0].name, np.float16 if "float16" in taken[0].type else np.float32
        height, width = (side if isinstance(side, int) else _SIDE for side in taken[0].shape[2:])
        self._size = height, width
        self.detect(np.zeros((height, width, 3), np.uint8))  # says now what is wrong with the output

    def detect(self, image: np.ndarray) -> Detections:
        pixels, scale = self._fitted(image)
        outputs = self._session.run(None, {self._input: pixels})
        boxes, scores = self._people(outputs[0])
        sure = scores >= _LOWEST_SCORE
        boxes, scores = boxes[sure], scores[sure]
        sides = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        kept = np.asarray(self._cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), _LOWEST_SCORE, _SAME), int)
        return Detections.of(boxes[kept] / scale, scores[kept])

    def _fitted(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """`[1, 3, height, width]` in [0, 1], the frame in its upper left corner, and by how much it was scaled."""
        height, width = self._size
        scale = min(height / image.shape[0], width / image.shape[1])
        rows, columns = round(image.shape[0] * scale), round(image.shape[1] * scale)
        pixels = np.full((height, width, 3), _GREY, np.uint8)
        pixels[:rows, :columns] = self._cv2.resize(image, (columns, rows), interpolation=self._cv2.INTER_LINEAR)
        return (pixels.transpose(2, 0, 1)[None] / np.array(255, self._dtype)).astype(self._dtype), scale

    def _people(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes `[n, 4]` as corners, and scores `[n]` of being a person."""
        if output.ndim != 3 or output.shape[0] != 1 or (output.shape[2] != 6 and output.shape[1] > output.shape[2]):
            raise ValueError(
                f"{self._path}: an output of shape {output.shape}, expected [1, n, 6] or [1, 4 + classes, n] with n of "
                "at least 4 + classes; YOLOv5, YOLOX and RT-DETR have to be exported with the selection of boxes (NMS)"
            )
        if output.shape[2] == 6:
            people = output[0][output[0][:, 5].round() == self._person]
            return people[:, :4].astype(np.float32), people[:, 4].astype(np.float32)
        if output.shape[1] <= 4 + self._person:
            raise ValueError(f"{self._path}: an output of shape {output.shape} has no score of class {self._person}")
        middle, half = output[0, :2].T, output[0, 2:4].T / 2
        return np.hstack([middle - half, middle + half]), output[0, 4 + self._person]


def _providers(runtime: Any) -> list[str]:
    there = runtime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
