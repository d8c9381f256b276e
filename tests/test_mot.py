"""MOTChallenge text files, valid as published and malformed."""

import numpy as np
import pytest

from cion_jax.samples.motchallenge import read_mot

GT = """1,1,912,484,97,109,0,7,1
1,2,1338,418,167,379,1,1,1
2,2,1342.5,417,168,380,1,1,0.86014
2,3,586,447,85,263,1,12,1
3,2,-10,400,30.5,60,1,1,0.2
3,4,5,5,0,10,1,1,1
"""


def boxes(tmp_path, text, kind):
    (tmp_path / "boxes.txt").write_text(text)
    return read_mot(tmp_path / "boxes.txt", kind)


def test_ground_truth_of_pedestrians_that_count(tmp_path):
    result = boxes(tmp_path, GT, "gt")
    assert result.frames.tolist() == [1, 2, 3] and result.ids.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(
        result.boxes, [[1338, 418, 1505, 797], [1342.5, 417, 1510.5, 797], [-10, 400, 20.5, 460]]
    )
    assert result.left_out == {
        "flagged as not to be counted": 1,
        "of other classes than people": 1,
        "without area": 1,
    }


def test_ground_truth_of_2015_has_world_coordinates_and_no_class(tmp_path):
    result = boxes(tmp_path, "1,1,10,20,30,40,1,-14.07,-7.98,0\n1,2,10,20,30,40,0,-1,-1,-1\n", "gt")
    assert result.ids.tolist() == [1] and result.left_out == {"flagged as not to be counted": 1}


def test_detections_belong_to_no_track(tmp_path):
    result = boxes(tmp_path, "1,-1,10,20,30,40,-2.1,-1,-1,-1\n1,-1,11,20,30,40,0,-1,-1,-1\n", "det")
    assert result.ids is None and len(result.frames) == 2 and result.left_out == {}
    numbered = boxes(tmp_path, "1,1,10,20,30,40,0.9\n1,1,11,20,30,40,0.8\n2,-1,9,9,30,40,0.8\n", "det")
    assert numbered.ids is None and numbered.frames.tolist() == [1, 1, 2]


def test_every_line_of_a_tracker_is_used(tmp_path):
    result = boxes(tmp_path, "1, 3, 794.27, 247.59, 71.245, 174.88, -1, -1, -1, -1\n1,6,0,0,5,5,0,-1,-1,-1\n", "tracks")
    assert result.ids.tolist() == [3, 6]
    np.testing.assert_allclose(result.boxes[0], [794.27, 247.59, 865.515, 422.47])
    assert boxes(tmp_path, "7,1,1,2,3,4\n", "tracks").frames.tolist() == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("1:2:3:4:5:6\n", "1 values in the first line, expected 6 to 10 with commas"),
        ("\n\n", "1 values in the first line"),
        ("frame,id,x1,y1,x2,y2\n1,1,1,1,1,1\n", "line 1 is 'frame,id,x1,y1,x2,y2', expected frame, id, left"),
        (
            "frame,id,x,y,w,h\n1,1,1,1,1,1\n2,1,1,1,nan,1\n",
            "a value that is no number in 1 of 2 lines, first in line 3",
        ),
        ("1,1,1,1,1,1,\n2,1,1,1,1,1,9\n", "6 values in the first line, more in others"),
        ("1,1,1,1,1e999,1\n", "a value that is no number"),
        ("99999999999999999999,1,1,1,1,1\n", "a frame that is a number beyond 64 bits in 1 of 1 lines"),
        ("9223372036854775807,1,1,1,1,1\n", "a frame above"),
        ("1,1700000000123456789.0,1,1,1,1\n", r"an? id that is a floating-point number above 2\^53"),
        ("<html>", "is a web page"),
        ("1,1,1,1,1,1\n1,2,1,1\n", r"cut off \(.*Row #2: Expected 6 columns, got 4"),
        ("1,1,1,1,1,1\n1,2,nan,1,1,1\n", "a value that is no number in 1 of 2 lines, first in line 2"),
        ("1,1,,1,1,1\n", "cannot be read as boxes"),
        pytest.param("1,1," + "[" * 9000 + ",1,1,1\n", r"read as boxes, or cut off \(.{300}\)$", id="long value"),
        ("1,1,1,1,1,1,1,1e300\n", r"is a class \(1e\+300\)"),
        ("1.5,1,1,1,1,1\n", "a frame that is no whole number in 1 of 1 lines, first in line 1: '1.5'"),
        ("0,1,1,1,1,1\n", "a frame below 1"),
        ("1,1,1,1,1,1\n2,1,1,1,1,1\n2,2,1,1,1,1\n2,1,9,9,9,9\n", "id 1 is twice in frame 2, in lines 2 and 4"),
        ("1,1,1,1,1,1\n1,-1,1,1,1,1\n", "line 2 has a negative id"),
        ("1,1,1,1,-3,1\n", r"none of 1 boxes is left \(1 without area\)"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"boxes\.txt: .*{message}"):
        boxes(tmp_path, text, "tracks")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.txt: no such file of boxes"):
        read_mot(tmp_path / "gone.txt", "det")


LINES = ["1,7,10,20,30,40,0.9,-1,-1,-1", "2,7,11,20,30,40,0.8,-1,-1,-1"]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "\ufeff" + "\r\n".join(LINES) + "\r\n\r\n",
        "\n".join(line + "," for line in LINES),
        "\n".join(line.replace(",", "\t") for line in LINES),
        "\n".join(line.replace(",", ";") for line in LINES),
        "\n".join(line.replace(",", " ") + " " for line in LINES),
        "frame, id, bb_left, bb_top, bb_width, bb_height, conf, x, y, z\n" + "\n".join(LINES),
        "Frame,TrackID,X,Y,W,H,Score,a,b,c\n" + "\n".join(LINES),
        "\n".join(LINES).replace("1,7,", "1.0,7.000000000000000000e+00,", 1),
    ],
)
def test_spellings_of_one_file(tmp_path, text):
    result = boxes(tmp_path, text, "tracks")
    assert result.frames.tolist() == [1, 2] and result.ids.tolist() == [7, 7]
    assert result.boxes.tolist() == [[10, 20, 40, 60], [11, 20, 41, 60]]


def test_ids_are_exact(tmp_path):
    stamps = [1700000000123456789, 1700000000123456790, 2**63 - 1]
    text = "".join(f"1,{stamp},1,1,5,5\n" for stamp in stamps)
    assert boxes(tmp_path, text, "tracks").ids.tolist() == stamps


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("tracks", "1,{id},1,1,5,5,0.9,{cls}"),  # Ultralytics
        ("tracks", "1,{id},1,1,5,5,0.9,{cls},-1"),  # boxmot
        ("gt", "1,{id},1,1,5,5,1,{cls}"),
        ("gt", "1,{id},1,1,5,5,1,{cls},0,1"),  # VisDrone
    ],
)
def test_classes_are_chosen_or_refused(tmp_path, kind, line):
    text = "\n".join(line.format(id=number, cls=cls) for number, cls in enumerate([1, 4, 2, 1]))
    with pytest.raises(ValueError, match=r"the eighth value is not -1, so it is a class \(1, 2, 4\).*--classes="):
        boxes(tmp_path, text, kind)
    result = read_mot(tmp_path / "boxes.txt", kind, classes=[1, 2])
    assert result.ids.tolist() == [0, 2, 3] and result.left_out == {"of other classes than people": 1}
    with pytest.raises(ValueError, match=r"none of 4 boxes is left \(4 of other classes than people\)"):
        read_mot(tmp_path / "boxes.txt", kind, classes=[0])
    (tmp_path / "boxes.txt").write_text(line.format(id=1, cls="0.5") if line.count(",") < 9 else "1,1,1,1,5,5,1")
    with pytest.raises(ValueError, match=r"no whole number|the file has no classes"):
        read_mot(tmp_path / "boxes.txt", kind, classes=[1])


def test_world_coordinates_are_no_classes(tmp_path):
    result = boxes(tmp_path, "1,1,1,1,5,5,0.9,3.25,4,0\n1,2,1,1,5,5,0.9,2,4,0\n", "tracks")
    assert result.ids.tolist() == [1, 2] and result.left_out == {}


def test_frames_may_count_from_0(tmp_path):
    with pytest.raises(ValueError, match=r"a frame below 1 \(frames count from 1\)"):
        boxes(tmp_path, "0,1,1,1,5,5\n1,1,1,1,5,5\n", "tracks")
    assert read_mot(tmp_path / "boxes.txt", "tracks", first_frame=0).frames.tolist() == [1, 2]
