"""User-supplied ONNX detectors: small models with known outputs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cion_jax.samples.ingest.decoding import find_videos
from cion_jax.samples.ingest.job import ingest_videos
from cion_jax.samples.ingest.onnx_detector import OnnxDetector
from cion_jax.samples.ingest.settings import IngestSettings
from tests.videos import write_video

ROWS, COLUMNS = 64, 96


def save(path: Path, nodes: list, constants: dict[str, np.ndarray], shape: list[int], size=(ROWS, COLUMNS)) -> Path:
    """Saves a model with input "image" and output "found"."""
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def selecting(path: Path) -> Path:
    """Output `[1, 3, 6]`: a person whose score is the upper left pixel's brightness, a car, a low-score person."""
    boxes = np.array([[[8, 16, 24, 48, 0, 0], [40, 16, 60, 48, 0.9, 2], [70, 0, 90, 60, 0.05, 0]]], np.float32)
    place = np.zeros((1, 3, 6), np.float32)
    place[0, 0, 4] = 1
    nodes = [
        helper.make_node("Slice", ["image", "from", "to"], ["pixel"]),
        helper.make_node("ReduceMean", ["pixel"], ["red"], keepdims=0),
        helper.make_node("Mul", ["red", "place"], ["score"]),
        helper.make_node("Add", ["score", "boxes"], ["found"]),
    ]
    ends = {"from": np.array([0, 0, 0, 0], np.int64), "to": np.array([1, 1, 1, 1], np.int64)}
    return save(path, nodes, {"boxes": boxes, "place": place, **ends}, [1, 3, 6])


def yolo(path: Path) -> Path:
    """Output `[1, 4 + 2, 8]` (centre, size, two class scores): a person with two boxes, another person, a car."""
    candidates = np.array(
        [
            [20, 40, 16, 32, 0.7, 0.1],
            [21, 40, 16, 32, 0.8, 0.1],
            [60, 30, 20, 50, 0.6, 0.2],
            [80, 50, 20, 10, 0.0, 0.9],
            *[[0, 0, 0, 0, 0.0, 0.0]] * 4,
        ],
        np.float32,
    )
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "boxes"], ["found"]),
    ]
    return save(path, nodes, {"boxes": candidates.T[None].copy(), "nothing": np.float32(0)}, [1, 6, 8])


def answering(path: Path, shape: list[int], **more) -> Path:
    nodes = [helper.make_node("Identity", ["constant"], ["found"])]
    return save(path, nodes, {"constant": np.zeros(shape, np.float32)}, shape, **more)


def test_detections_are_scaled_back_to_the_frame(tmp_path):
    detector = OnnxDetector(selecting(tmp_path / "detector.onnx"))
    frame = np.full((2 * ROWS, 2 * COLUMNS, 3), (204, 0, 0), np.uint8)
    detections = detector.detect(frame)
    np.testing.assert_allclose(detections.boxes, [[16, 32, 48, 96]])
    np.testing.assert_allclose(detections.scores, [204 / 255], atol=1e-6)  # RGB, divided by 255


def test_frames_of_other_proportions_are_padded(tmp_path):
    detector = OnnxDetector(selecting(tmp_path / "detector.onnx"))
    frame = np.full((4 * ROWS, COLUMNS, 3), (102, 0, 0), np.uint8)  # tall: scaled to 1/4, padded on the right
    pixels, scale = detector._fitted(frame)
    assert pixels.shape == (1, 3, ROWS, COLUMNS) and scale == 0.25
    np.testing.assert_allclose(pixels[0, 0, :, : COLUMNS // 4], 0.4, atol=1e-6)
    np.testing.assert_allclose(pixels[0, :, :, COLUMNS // 4 :], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(detector.detect(frame).boxes, [[32, 64, 96, 192]])


def test_raw_boxes_are_thinned_out_by_overlap(tmp_path):
    detector = OnnxDetector(yolo(tmp_path / "yolo.onnx"))
    detections = detector.detect(np.zeros((ROWS, COLUMNS, 3), np.uint8))
    np.testing.assert_allclose(detections.boxes, [[13, 24, 29, 56], [50, 5, 70, 55]])
    np.testing.assert_allclose(detections.scores, [0.8, 0.6])
    cars = OnnxDetector(yolo(tmp_path / "yolo.onnx"), person_class=1).detect(np.zeros((ROWS, COLUMNS, 3), np.uint8))
    np.testing.assert_allclose(cars.scores, [0.9, 0.2])


def test_boxes_come_first_where_the_model_selects_them(tmp_path):
    for count in (0, 5, 300):
        detector = OnnxDetector(answering(tmp_path / f"{count}.onnx", [1, count, 6]))
        assert len(detector.detect(np.zeros((ROWS, COLUMNS, 3), np.uint8)).boxes) == 0


def test_the_settings_take_an_onnx_file_by_its_content(tmp_path):
    one, same = selecting(tmp_path / "one.onnx"), selecting(tmp_path / "same.onnx")
    other = yolo(tmp_path / "other.onnx")
    described = [IngestSettings(str(path)).described() for path in (one, same, other)]
    assert described[0] == described[1] != described[2]
    assert isinstance(IngestSettings(str(one)).make_detector(), OnnxDetector)


def test_unsupported_detectors_are_named(tmp_path):
    (tmp_path / "text.onnx").write_text("nothing")
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 9\n")
    (tmp_path / "scripted.onnx").write_bytes(b"PK\3\4 archive/data.pkl")
    cases = {
        tmp_path / "gone.onnx": "no such ONNX file",
        tmp_path / "pointer.onnx": r"not an ONNX model .*\(the file is a git-lfs pointer, .*run `git lfs pull`",
        tmp_path / "scripted.onnx": r"not an ONNX model .*\(the file is a zip archive, .* or a PyTorch file",
        tmp_path / "text.onnx": "not an ONNX model that onnxruntime can load",
        answering(tmp_path / "flat.onnx", [3, 6]): r"an output of shape \(3, 6\), expected \[1, n, 6\]",
        answering(tmp_path / "few.onnx", [1, 4, 9]): r"an output of shape \(1, 4, 9\) has no score of class 0",
    }
    for boxes_first in ([1, 100, 85], [1, 300, 84], [1, 8, 5]):  # YOLOv5 and YOLOX; RT-DETR
        path = answering(tmp_path / f"boxes_first_{boxes_first[2]}.onnx", boxes_first)
        shape = ", ".join(map(str, boxes_first))
        cases[path] = (
            rf"shape \({shape}\), expected \[1, n, 6\] or \[1, 4 \+ classes, n\] .*RT-DETR have to be exported"
        )
    for path, message in cases.items():
        with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
            IngestSettings(str(path)).make_detector()
    with pytest.raises(ValueError, match=r"detector 'yolo': expected people, motion or the path of an \.onnx file"):
        IngestSettings("yolo").make_detector()


@pytest.mark.slow
def test_a_video_at_which_onnxruntime_fails_is_named_and_the_others_are_done(tmp_path):
    """The model gathers a row whose index is the frame's brightness, which is out of range for white frames."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "ten"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["rows", "row"], ["found"]),
    ]
    constants = {"ten": np.float32(10), "rows": np.zeros((5, 1, 3, 6), np.float32)}
    model = save(tmp_path / "detector.onnx", nodes, constants, [1, 3, 6])
    for name, grey in (("black", 0), ("white", 255)):
        write_video(tmp_path / "videos" / f"{name}.mkv", [np.full((ROWS, COLUMNS, 3), grey, np.uint8)] * 3)
    videos, out = find_videos(tmp_path / "videos"), tmp_path / "out"
    broken = ingest_videos(videos, out, IngestSettings(str(model)), workers=1)
    assert list(broken) == ["white"] and "InvalidArgument: [ONNXRuntimeError]" in broken["white"]
    assert [part.name for part in (out / "videos").iterdir()] == ["black.part"]
