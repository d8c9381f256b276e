"""User-supplied detectors in ONNX format."""

from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.runtime.file_kinds import other_kind
from cion_jax.samples.ingest.optional import needed, opencv
from cion_jax.samples.ingest.tracks import Detections

_SIDE = 640  # input height and width in pixels if the model leaves them dynamic
_GREY = 114  # padding colour where the frame's aspect ratio differs from the input's
_LOWEST_SCORE = 0.1  # low, because ByteTrack also uses low-confidence detections
_SAME = 0.7  # IoU above which two boxes count as one person


class OnnxDetector:
    """An ONNX object detector, run by onnxruntime on the CPU or, with onnxruntime-gpu, on the GPU.

    The input is `[1, 3, height, width]` RGB in [0, 1]: the frame scaled to fit and padded with grey. The output is

        [1, n, 6]             left, top, right, bottom, score, class: detectors with built-in NMS
        [1, 4 + classes, n]   centre x and y, width, height, then a score per class: YOLO as exported by Ultralytics

    with boxes in input pixels. In the second format n is at least 4 + classes; an output with more rows than columns
    is the `[1, n, 5 + classes]` of YOLOv5 and YOLOX or the `[1, n, 4 + classes]` of RT-DETR, and is rejected. A model
    that divides by 255 itself gets its input divided twice and detects nobody.

    Raises:
        ValueError: No such file, not an ONNX model, or an unsupported input or output format.
    """

    def __init__(self, path: Path, person_class: int = 0):
        if not path.is_file():
            raise ValueError(f"{path}: no such ONNX file")
        runtime: Any = needed("onnxruntime")
        self._cv2 = opencv()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # parallelism is across videos
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=_providers(runtime))
        except Exception as error:  # onnxruntime's exceptions have no common base class
            reason = other_kind(path) or error
            raise ValueError(f"{path}: not an ONNX model that onnxruntime can load ({reason})") from error
        self._path, self._person = path, person_class
        taken = self._session.get_inputs()
        if len(taken) != 1 or len(taken[0].shape) != 4 or taken[0].shape[1] != 3:
            raise ValueError(
                f"{path}: inputs {[value.shape for value in taken]}, expected one of [1, 3, height, width]"
            )
        self._input, self._dtype = taken[0].name, np.float16 if "float16" in taken[0].type else np.float32
        height, width = (side if isinstance(side, int) else _SIDE for side in taken[0].shape[2:])
        self._size = height, width
        self.detect(np.zeros((height, width, 3), np.uint8))  # raises now if the output format is unsupported

    def detect(self, image: np.ndarray) -> Detections:
        pixels, scale = self._fitted(image)
        outputs = self._session.run(None, {self._input: pixels})
        boxes, scores = self._people(outputs[0])
        confident = scores >= _LOWEST_SCORE
        boxes, scores = boxes[confident], scores[confident]
        sides = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        kept = np.asarray(self._cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), _LOWEST_SCORE, _SAME), int)
        return Detections.of(boxes[kept] / scale, scores[kept])

    def _fitted(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns `[1, 3, height, width]` in [0, 1], with the frame in the upper left corner, and the scale factor."""
        height, width = self._size
        scale = min(height / image.shape[0], width / image.shape[1])
        rows, columns = round(image.shape[0] * scale), round(image.shape[1] * scale)
        pixels = np.full((height, width, 3), _GREY, np.uint8)
        pixels[:rows, :columns] = self._cv2.resize(image, (columns, rows), interpolation=self._cv2.INTER_LINEAR)
        return (pixels.transpose(2, 0, 1)[None] / np.array(255, self._dtype)).astype(self._dtype), scale

    def _people(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns boxes `[n, 4]` (left, top, right, bottom) and person scores `[n]`."""
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
    available = runtime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
