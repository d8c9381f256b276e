"""Finding and decoding videos: agreement with another decoder, truncated files, linked folders."""

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from cion_jax.samples.ingest.decoding import BrokenVideo, find_videos, frame_rate, read_frames
from tests.videos import copy_video, scene, write_video


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


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_mirrored_frames_are_mirrored_after_rotation(tmp_path, ending, rotation):
    frames = scene(2)
    write_video(tmp_path / f"video.{ending}", frames, rotation, hflip=True)
    for frame, stored in zip(read_frames(tmp_path / f"video.{ending}"), frames, strict=True):
        np.testing.assert_array_equal(frame.image(), np.rot90(stored, rotation // 90)[:, ::-1])


def test_a_display_at_an_angle_is_refused(tmp_path):
    write_video(tmp_path / "video.mp4", scene(2), 45)
    with pytest.raises(BrokenVideo, match="at an angle that is no multiple of 90 degrees; rotate the video"):
        next(read_frames(tmp_path / "video.mp4")).image()


def write_streams(path, *sizes, default=None):
    """Several video streams of given width and height, each of 4 frames of one grey: 40 for the first, 80, 120."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in sizes]
        for number, (stream, (stream.width, stream.height)) in enumerate(zip(streams, sizes)):
            stream.pix_fmt = "yuv420p"
            if number == default:
                stream.disposition = Disposition.default
        for _ in range(4):
            for number, (stream, (width, height)) in enumerate(zip(streams, sizes), 1):
                image = np.full((height, width, 3), 40 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("sizes", "default", "read"),
    [
        ([(64, 48), (160, 120)], None, 2),  # a preview first, which the file then calls the default
        ([(160, 120), (64, 48)], None, 1),
        ([(64, 48), (160, 120), (80, 60)], 1, 2),
        ([(160, 120), (160, 120)], None, 1),
    ],
)
def test_the_largest_stream_is_read_and_named(tmp_path, capsys, ending, sizes, default, read):
    path = tmp_path / f"video.{ending}"
    write_streams(path, *sizes, default=default)
    frames = [frame.image() for frame in read_frames(path)]
    width, height = sizes[read - 1]
    assert len(frames) == 4 and frames[0].shape == (height, width, 3) and abs(frames[0].mean() - 40 * read) < 4
    assert f"the largest, stream {read - 1} of {width}x{height}, is read" in capsys.readouterr().err


def test_a_cover_picture_is_no_video(tmp_path):
    picture = np.full((200, 200, 3), 250, np.uint8)
    for name, with_video in (("film", True), ("song", False)):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            cover = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 200, 200, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            streams = [container.add_stream("libx264", rate=10)] if with_video else []
            for stream in streams:
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            container.mux(cover.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(cover.encode())
            for stream in streams:
                for _ in range(3):
                    image = np.full((48, 64, 3), 100, np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                container.mux(stream.encode())
    assert [frame.image().shape for frame in read_frames(tmp_path / "film.mp4")] == [(48, 64, 3)] * 3
    assert frame_rate(tmp_path / "film.mp4") == 10
    with pytest.raises(BrokenVideo, match="a cover picture or an unknown codec only, no video in this file"):
        list(read_frames(tmp_path / "song.mp4"))


def test_frames_keep_the_size_of_the_first_when_the_resolution_changes(tmp_path, capsys):
    """A live stream that switches to another resolution; OpenCV scales its frames too."""
    path = tmp_path / "video.ts"
    for number, size in enumerate(((160, 120), (320, 240))):
        write_streams(tmp_path / f"part{number}.ts", size)
        with path.open("ab") as file:
            file.write((tmp_path / f"part{number}.ts").read_bytes())
    capture = cv2.VideoCapture(str(path))
    frames = list(read_frames(path))
    assert len(frames) == 8
    for frame in frames:
        expected = capture.read()[1]
        assert frame.image().shape == expected.shape == (120, 160, 3)
        assert np.abs(frame.image().astype(int) - expected[..., ::-1]).max() <= 4  # the scalers round differently
    assert "from frame 5 on 320x240 pixels, scaled to the first frame's 160x120" in capsys.readouterr().err


def test_a_stream_of_an_unknown_codec_is_no_video(tmp_path):
    write_video(tmp_path / "video.mkv", scene(3))
    data = (tmp_path / "video.mkv").read_bytes()
    assert data.count(b"V_FFV1") == 1
    (tmp_path / "video.mkv").write_bytes(data.replace(b"V_FFV1", b"V_NEWS"))
    for read in (lambda path: list(read_frames(path)), frame_rate):
        with pytest.raises(BrokenVideo, match="a cover picture or an unknown codec only, no video in this file"):
            read(tmp_path / "video.mkv")


def test_a_title_in_another_encoding_is_of_no_consequence(tmp_path):
    """Old programs write the system's encoding; RIFF does not name one."""
    write_streams(tmp_path / "video.avi", (64, 48))
    data = (tmp_path / "video.avi").read_bytes()
    assert data.count(b"Lavf") == 1  # the name of the program that wrote it
    (tmp_path / "video.avi").write_bytes(data.replace(b"Lavf", b"\xfcber"))
    assert len(list(read_frames(tmp_path / "video.avi"))) == 4 and frame_rate(tmp_path / "video.avi") == 10


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<html>Sign in", "the file is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "the file is a git-lfs pointer"),
        (b"", "the file is empty"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, data, kind):
    (tmp_path / "a.mp4").write_bytes(data)
    for read in (lambda path: list(read_frames(path)), frame_rate):
        with pytest.raises(BrokenVideo, match=f"^not a video: {kind}"):
            read(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        ("avi", "mpeg4"),
        ("webm", "libvpx-vp9"),
        ("ts", "libx264"),
        ("flv", "flv"),
        ("mov", "libx265"),
        ("3gp", "libx264"),
        ("m2ts", "libx264"),
        ("vob", "mpeg2video"),
        ("asf", "wmv2"),
    ],
)
def test_common_kinds_of_video_are_read_to_their_end(tmp_path, ending, codec):
    write_video(tmp_path / f"video.{ending}", scene(12), codec=codec)
    frames = [frame.image() for frame in read_frames(find_videos(tmp_path)["video"])]
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


@pytest.mark.parametrize(("start", "shown"), [(0.9, 21), (2.5, 5)])
def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path, start, shown):
    write_video(tmp_path / "whole.mp4", scene(30))
    copy_video(tmp_path / "whole.mp4", tmp_path / "trimmed.mp4", start)
    with av.open(str(tmp_path / "trimmed.mp4")) as container:
        assert container.streams.video[0].frames == 30  # the only key frame is the first
    frames = list(read_frames(tmp_path / "trimmed.mp4"))
    assert [frame.number for frame in frames] == list(range(1, shown + 1))
    np.testing.assert_array_equal(frames[0].image(), scene(30)[30 - shown])


@pytest.mark.parametrize("start", [0, 0.9])
def test_an_mp4_cut_off_between_two_frames_is_broken(tmp_path, start):
    write_video(tmp_path / "whole.mp4", scene(30))
    copy_video(tmp_path / "whole.mp4", tmp_path / "index_first.mp4", start, movflags="faststart")
    with av.open(str(tmp_path / "index_first.mp4")) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = (tmp_path / "index_first.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: places[25]])
    with pytest.raises(BrokenVideo, match=r"only \d\d frames could be decoded, \d\d% of it"):
        list(read_frames(tmp_path / "cut.mp4"))


def test_folders_without_videos_and_videos_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no video in this folder"):
        find_videos(tmp_path)
    for name in ("a.mp4", "a.MKV"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="would both be video 'a'; rename"):
        find_videos(tmp_path)


def test_linked_folders_are_followed_and_every_folder_has_one_name(tmp_path):
    root, disk = tmp_path / "videos", tmp_path / "disk"
    for folder in (root / "market", root / ".hidden", disk / "north" / "deep"):
        folder.mkdir(parents=True)
        (folder / "a.mp4").touch()
        (folder / ".b.mp4").touch()
    links = {
        root / "camera": disk / "north",
        root / "again": root / "market",  # also reachable without the link
        root / "zoo": disk / "north",  # "camera" sorts first
        root / "market" / "up": root,  # a cycle
        disk / "north" / "deep" / "back": disk,  # another cycle: it leads to everything that "camera" leads to
        root / "gone": tmp_path / "nothing",
    }
    for link, target in links.items():
        link.symlink_to(target)
    (root / "linked.mp4").symlink_to(disk / "north" / "deep" / "a.mp4")
    videos = find_videos(root)
    assert list(videos) == ["camera/deep/a", "linked", "market/a"]
    assert videos["camera/deep/a"] == root / "camera" / "deep" / "a.mp4"
    assert list(find_videos(root / "zoo")) == ["deep/a"]  # the folder itself may be a link
