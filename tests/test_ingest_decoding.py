"""Videos as they come: found, decoded to their end as another decoder does, or named as broken."""

import cv2
import numpy as np
import pytest

from cion_jax.samples.ingest.decoding import BrokenVideo, find_videos, frame_rate, read_frames
from tests.videos import scene, write_video


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_what_another_decoder_shows(tmp_path, rotation):
    frames = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8) for seed in range(4)]
    write_video(tmp_path / "video.mp4", frames, rotation)
    capture = cv2.VideoCapture(str(tmp_path / "video.mp4"))
    decoded = list(read_frames(tmp_path / "video.mp4"))
    assert [frame.number for frame in decoded] == [1, 2, 3, 4]
    for frame in decoded:
        ok, expected = capture.read()
        assert ok
        np.testing.assert_array_equal(frame.image(), expected[..., ::-1])
    assert frame_rate(tmp_path / "video.mp4") == 10


@pytest.mark.parametrize(
    ("ending", "codec"),
    [("avi", "mpeg4"), ("webm", "libvpx-vp9"), ("ts", "libx264"), ("flv", "flv"), ("mov", "libx265")],
)
def test_common_kinds_of_video_are_read_to_their_end(tmp_path, ending, codec):
    write_video(tmp_path / f"video.{ending}", scene(12), codec=codec)
    frames = [frame.image() for frame in read_frames(tmp_path / f"video.{ending}")]
    assert len(frames) == 12
    for frame, expected in zip(frames, scene(12), strict=True):
        assert np.abs(frame.astype(int) - expected).mean() < 6


def test_a_video_cut_off_behind_its_index_is_broken(tmp_path):
    write_video(tmp_path / "whole.mkv", scene(30))
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert len(list(read_frames(tmp_path / "whole.mkv"))) == 30
    with pytest.raises(BrokenVideo, match=r"only 1\d frames could be decoded, \d\d% of it"):
        list(read_frames(tmp_path / "cut.mkv"))


def test_folders_without_videos_and_videos_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no video in this folder"):
        find_videos(tmp_path)
    for name in ("a.mp4", "a.MKV"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="would both be video 'a'; rename"):
        find_videos(tmp_path)
