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
        "of other classes than pedestrian": 1,
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
    result = boxes(tmp_path, "1, 3, 794.27, 247.59, 71.245, 174.88, -1, -1, -1, -1\n1,6,0,0,5,5,0,0,0,0\n", "tracks")
    assert result.ids.tolist() == [3, 6]
    np.testing.assert_allclose(result.boxes[0], [794.27, 247.59, 865.515, 422.47])
    assert boxes(tmp_path, "7,1,1,2,3,4\n", "tracks").frames.tolist() == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 values in line 1, expected 6 to 10 with commas"),
        ("1 2 3 4 5 6\n", "1 values in line 1"),
        ("frame,id,x,y,w,h\n1,1,1,1,1,1\n", r"cannot be read as boxes.*Row #1: .*'frame'"),
        ("1,1,1,1,1,1\n1,2,1,1\n", r"cut off \(.*Row #2: Expected 6 columns, got 4"),
        ("1,1,1,1,1,1\n1,2,nan,1,1,1\n", "a value that is no number in 1 of 2 lines, first in line 2"),
        ("1,1,,1,1,1\n", "cannot be read as boxes"),
        ("1.5,1,1,1,1,1\n", "a frame or id that is no whole number"),
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
