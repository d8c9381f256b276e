"""Ingestion of videos and tracks into a packed store and a sample table: crops, resuming, shards, broken videos."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cion_jax.runtime.files import read_json
from cion_jax.runtime.shards import Shard
from cion_jax.samples import check_images, open_images, read_samples
from cion_jax.samples.ingest import job, video
from cion_jax.samples.ingest.crops import cut
from cion_jax.samples.ingest.decoding import find_videos
from cion_jax.samples.ingest.detectors import PeopleDetector
from cion_jax.samples.ingest.job import gather, ingest_videos
from cion_jax.samples.ingest.settings import IngestSettings
from cion_jax.samples.ingest.tracks import KnownTracks
from cion_jax.samples.ingest.video import CropSettings
from cion_jax.street.truth import overlap
from tests.commands import run_command
from tests.videos import HEIGHT, WIDTH, colour, scene, tracks, write_video

FRAMES = 18
VIDEOS = ("alley", "market/north", "market/south")


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    """Folder with videos/ and tracks/ of three videos of 18, 17 and 16 frames."""
    root = tmp_path_factory.mktemp("footage")
    for shorter, name in enumerate(VIDEOS):
        write_video(root / "videos" / f"{name}.mkv", scene(FRAMES - shorter))
        file = root / "tracks" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(tracks(FRAMES - shorter))
    return root


def settings(footage: Path, **crops: int) -> IngestSettings:
    return IngestSettings(tracks=footage / "tracks", crops=CropSettings(**crops))


def ingest(footage: Path, out: Path, **crops: int) -> dict:
    """Ingests all videos as the command does."""
    videos, chosen = find_videos(footage / "videos"), settings(footage, **crops)
    broken = ingest_videos(videos, out, chosen, workers=2)
    return gather(list(videos), out, chosen, broken)


def contents(out: Path) -> dict[str, bytes]:
    """Returns the contents of the output files that users read."""
    files = [out / "samples.parquet", *sorted((out / "crops").iterdir())]
    return {file.name: file.read_bytes() for file in files}


def ages(out):
    """Returns the modification time of each video's part; tolerates folders that vanish during the walk."""
    parts = [Path(folder, name) for folder, names, _ in os.walk(out / "videos") for name in names]
    parts = [part for part in parts if part.suffix == ".part"]
    return {str(part.relative_to(out)): part.stat().st_mtime_ns for part in parts}


# From pixels to the table


@pytest.fixture(scope="module")
def ingested(footage, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ingested") / "out"
    ingest(footage, out)
    return out


def test_every_crop_shows_its_tracklet_in_its_frame(ingested):
    table, images = read_samples(ingested / "samples.parquet"), open_images(ingested / "crops")
    check_images(table, ingested / "crops")
    for path, tracklet, frame in zip(table["file_path"], table["tracklet"], table["frame"]):
        crop = images.load(path)
        assert crop.shape == ((70, 30, 3) if tracklet == 1 else (80, 24, 3))
        # Grey differs by 4 from frame to frame; JPEG's rounding of a flat colour by 2 at most.
        assert np.abs(crop[2:-2, 2:-2].astype(int) - colour(frame, tracklet)).max() <= 2, path


def test_the_table_has_the_same_frames_for_all_tracklets_of_a_video(ingested):
    table = read_samples(ingested / "samples.parquet")
    assert table.columns == ("file_path", "video", "tracklet", "frame", "left", "top", "width", "height")
    rows = set(zip(table["video"], table["tracklet"].tolist(), table["frame"].tolist()))
    assert rows == {(video, tracklet, frame) for video in VIDEOS for tracklet in (1, 2) for frame in (1, 6, 11, 16)}
    first = table.select([0]).arrow.to_pylist()[0]
    assert first["file_path"] == "alley/000001/0000001.jpg"
    assert [first[side] for side in ("left", "top", "width", "height")] == [10, 20, 30, 70]


def test_the_report_counts(ingested):
    report = read_json(ingested / "report.json")
    assert (report["videos"], report["frames"], report["tracklets"], report["crops"]) == (3, 51, 6, 24)
    assert report["broken"] == {}


def test_tracks_of_other_programs_give_the_same_crops(footage, ingested, tmp_path):
    """Files with classes, of which 0 is people, and with frames from 0."""
    for file in (footage / "tracks").rglob("*.txt"):
        lines = [line.split(",") for line in file.read_text().splitlines()]
        people = [[str(int(line[0]) - 1), *line[1:7], "0"] for line in lines]
        cars = [[line[0], str(int(line[1]) + 50), *line[2:7], "2"] for line in people]
        changed = tmp_path / "tracks" / file.relative_to(footage / "tracks")
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_text("".join(",".join(line) + "\n" for line in people + cars))
    done = run_command(
        "cion_jax.samples.ingest",
        *(f"--videos={footage / 'videos'}", f"--out={tmp_path / 'out'}", f"--tracks={tmp_path / 'tracks'}"),
        *("--classes=0", "--first_frame=0", "--workers=2"),
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(ingested)


@pytest.mark.slow
def test_small_people_and_short_tracklets_are_left_out(footage, tmp_path):
    videos = {"alley": footage / "videos" / "alley.mkv"}
    for chosen, left in (({"min_height": 71}, {2}), ({"min_crops": 5}, set()), ({"every": 3, "min_crops": 6}, {1, 2})):
        out, values = tmp_path / str(chosen), settings(footage, **chosen)
        ingest_videos(videos, out, values, workers=1)
        if left:
            gather(list(videos), out, values, {})
            assert set(read_samples(out / "samples.parquet")["tracklet"].tolist()) == left
        else:
            with pytest.raises(ValueError, match="nobody was found in 1 videos"):
                gather(list(videos), out, values, {})


def test_a_long_video_reports_its_progress(footage, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_PROGRESS_FRAMES", 5)
    reports, tracks_of_it = [], KnownTracks(footage / "tracks" / "alley.txt")
    made = video.ingest_video(
        footage / "videos" / "alley.mkv",
        "alley",
        tracks_of_it,
        CropSettings(),
        tmp_path / "part",
        about={"made": "here"},
        change=lambda crop: 255 - crop,
        on_progress=reports.append,
    )
    assert reports == [5, 5, 5, 3] and (made["made"], made["frames"], made["crops"]) == ("here", FRAMES, 8)
    assert video.about_part(tmp_path / "part") == made and video.about_part(tmp_path / "gone") is None


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((10.2, 5.9, 30.0, 80.1), (5, 81), (10, 30)),  # outwards
        ((-7.5, -3.0, 25.0, 70.0), (0, 70), (0, 25)),
        ((140.0, 50.0, 200.0, 300.0), (50, HEIGHT), (140, WIDTH)),
        ((150.0, 10.0, 190.0, 90.0), None, None),  # a sliver
        ((10.0, 100.0, 60.0, 200.0), None, None),  # too little in view
        ((200.0, 10.0, 240.0, 90.0), None, None),  # outside
    ],
)
def test_boxes_are_rounded_outwards_and_clipped(box, rows, columns):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    crop = cut(image, np.array(box), min_height=64)
    if rows is None:
        assert crop is None
    else:
        np.testing.assert_array_equal(crop, image[slice(*rows), slice(*columns)])


def test_tracks_that_are_written_make_the_same_crops(footage, ingested, tmp_path):
    videos, chosen = find_videos(footage / "videos"), IngestSettings(tracks=ingested / "tracks")
    gather(list(videos), tmp_path, chosen, ingest_videos(videos, tmp_path, chosen, workers=2))
    assert contents(tmp_path) == contents(ingested)


# Resumed, sharded and changed inputs


def test_a_resumed_run_keeps_finished_work_and_gives_the_same_result(footage, ingested, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(ingested, out)
    before, whole = ages(out), contents(out)
    shutil.rmtree(out / "videos" / "market" / "north.part")
    shutil.rmtree(out / "crops")
    ingest(footage, out)
    changed = {name for name, age in ages(out).items() if age != before[name]}
    assert changed == {"videos/market/north.part"}
    assert contents(out) == whole


def test_shards_together_are_what_one_call_makes(footage, ingested, tmp_path):
    videos, chosen = find_videos(footage / "videos"), settings(footage)
    parts = [[list(videos)[row] for row in Shard(index, 2).part(3)] for index in (0, 1)]
    assert parts == [["alley"], ["market/north", "market/south"]]
    for part in parts:
        ingest_videos({name: videos[name] for name in part}, tmp_path / "out", chosen, workers=1)
    before = ages(tmp_path / "out")
    ingest(footage, tmp_path / "out")
    assert ages(tmp_path / "out") == before and contents(tmp_path / "out") == contents(ingested)


@pytest.mark.slow
def test_a_changed_video_and_changed_tracks_are_ingested_again(footage, tmp_path):
    copy, out = tmp_path / "footage", tmp_path / "out"
    shutil.copytree(footage, copy)
    ingest(copy, out)
    write_video(copy / "videos" / "alley.mkv", scene(FRAMES)[::-1] + scene(3))
    (copy / "tracks" / "market" / "north.txt").write_text(tracks(FRAMES - 8))
    before = ages(out)
    assert ingest(copy, out)["crops"] == 20
    changed = {name for name, age in ages(out).items() if age != before[name]}
    assert changed == {"videos/alley.part", "videos/market/north.part"}
    crop = open_images(out / "crops").load("alley/000001/0000001.jpg")
    assert abs(int(crop[60, 2, 1]) - 90) <= 2  # the reversed video shows the street there


def test_other_settings_are_refused(footage, ingested):
    with pytest.raises(ValueError, match=r"alley\.part was made with the settings .*give the same ones or another"):
        ingest(footage, ingested, every=4)


# Broken videos


def test_broken_videos_are_named_counted_and_left_out(footage, ingested, tmp_path):
    copy, out = tmp_path / "footage", tmp_path / "out"
    shutil.copytree(footage, copy)
    write_video(copy / "videos" / "cut.mp4", scene(20))
    whole = (copy / "videos" / "cut.mp4").read_bytes()
    (copy / "videos" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (copy / "videos" / "text.avi").write_text("nothing to see")
    write_video(copy / "videos" / "untracked.mkv", scene(3))
    (copy / "tracks" / "untracked.txt").write_text("1,1,2,3\n")
    write_video(copy / "videos" / "short.mkv", scene(3))
    for name in ("cut", "text", "short"):
        (copy / "tracks" / f"{name}.txt").write_text(tracks(20))
    write_video(copy / "videos" / "void.mkv", scene(3))
    (copy / "tracks" / "void.txt").write_text("")  # a video without people is not broken
    write_video(copy / "videos" / "small.mkv", scene(3))
    (copy / "tracks" / "small.txt").write_text(
        "1,1,300,20,80,200\n2,1,20,20,80,200\n3,1,300,20,80,200\n1,2,200,0,80,80\n"
    )
    ingest(copy, out)
    broken = read_json(out / "report.json")["broken"]
    assert (
        list(broken) == ["cut", "short", "small", "text", "untracked"]
        and "4 values in the first line" in broken["untracked"]
    )
    assert "tracks up to frame 20, but the video has 3; are they of another" in broken["short"]
    assert "2 of 2 boxes lie outside their frames; they seem to have been made on larger frames" in broken["small"]
    assert all("frame 1 cannot be decoded" in broken[name] for name in ("cut", "text"))
    assert contents(out) == contents(ingested)
    assert not list(out.rglob("*.tmp"))


def test_names_near_the_limit_of_the_file_system_do_not_end_ingestion(tmp_path):
    fits, too_long = "é" * 125, "a" * 251  # bytes: 250, and 251; ".part" makes 255 of the first
    for name in (fits, too_long, "b"):
        write_video(tmp_path / "footage/videos" / f"{name}.mkv", scene(6))
        (tmp_path / "footage/tracks").mkdir(exist_ok=True)
        (tmp_path / "footage/tracks" / f"{name}.txt").write_text(tracks(6))
    out = tmp_path / "out"
    assert ingest(tmp_path / "footage", out)["broken"] == {too_long: job._TOO_LONG}
    table = read_samples(out / "samples.parquet")
    assert set(table["video"]) == {fits, "b"}
    assert open_images(out / "crops").load(table["file_path"][-1]).shape == (80, 24, 3)


class _Failing(IngestSettings):
    """Settings whose `tracks` is an exception to raise."""

    def open_tracks(self, name, path):
        raise self.tracks


def ingest_failing(error: BaseException) -> int | str:
    return job._ingest(job._Task("video", Path("video.mkv"), Path("part"), _Failing(tracks=error), {}), print)


def test_errors_of_libraries_are_named_with_their_kind():
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((2, 2)), (0, 0))
    assert ingest_failing(caught.value).startswith("cv2.error: OpenCV(") and "\n" not in ingest_failing(caught.value)
    assert ingest_failing(RuntimeError("no memory\non the device")) == "RuntimeError: no memory on the device"
    assert ingest_failing(ValueError("other tracks")) == "other tracks"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), MemoryError(), KeyboardInterrupt()])
def test_errors_that_affect_all_videos_stop_ingestion(error):
    with pytest.raises(type(error)):
        ingest_failing(error)


@pytest.mark.parametrize(
    ("package", "settings"), [("av", {}), ("cv2", {}), ("trackers", {}), ("cv2", {"blur_faces": True})]
)
def test_missing_packages_are_named_before_anything_is_begun(footage, monkeypatch, package, settings):
    tracks = footage / "tracks" if settings else None
    IngestSettings(tracks=tracks, **settings).check()
    monkeypatch.setitem(sys.modules, package, None)  # its import fails
    with pytest.raises(ValueError, match=rf"package '{package}', .*pip install -r requirements-ingest\.txt"):
        IngestSettings(tracks=tracks, **settings).check()


def test_an_opencv_without_its_old_detectors_is_named(monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor")
    with pytest.raises(ValueError, match=r"OpenCV [\d.]+ has no HOGDescriptor; pip install -r"):
        IngestSettings().check()
    with pytest.raises(ValueError, match="gone: no such folder of tracks"):
        IngestSettings(tracks=Path("gone")).check()
    with pytest.raises(ValueError, match="classes and first_frame describe the files of tracks"):
        IngestSettings(classes=(1,))


# Small frames

_TINY_FRAMES = """
import numpy as np
from cion_jax.samples.ingest.detectors import PeopleDetector
detector, random = PeopleDetector(), np.random.default_rng(0)
for height in (1, 16, 32, 64, 127, 145):
    for width in (1, 31, 64, 81, 200):
        detector.detect(random.integers(0, 256, (height, width, 3), np.uint8))
"""


def test_frames_smaller_than_a_window_do_not_end_the_process():
    done = subprocess.run([sys.executable, "-c", _TINY_FRAMES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_people_in_small_frames_are_found_where_they_are():
    image = np.full((300, 300, 3), 200, np.uint8)  # a dark person in front of a light wall
    cv2.circle(image, (150, 96), 6, (30, 30, 30), -1)
    cv2.ellipse(image, (150, 126), (17, 26), 0, 0, 360, (30, 30, 30), -1)
    for side in (-1, 1):
        cv2.line(image, (150 + 4 * side, 142), (150 + 8 * side, 188), (30, 30, 30), 9)
    image = cv2.GaussianBlur(image, (0, 0), 1)
    for top, bottom, left, right in ((0, 300, 0, 300), (82, 196, 122, 178), (70, 200, 110, 300)):
        detections = PeopleDetector().detect(image[top:bottom, left:right])
        assert len(detections.boxes) == 1 and detections.scores[0] > 0.9
        person = np.array([[128 - left, 90 - top, 172 - left, 190 - top]])
        assert overlap(person, detections.boxes).item() > 0.6  # loose, because windows are wider than people


# The command


@pytest.mark.slow
def test_work_finished_before_a_kill_is_kept(footage, tmp_path):
    """Fifteen videos in one process, killed after the second."""
    copy, out = tmp_path / "footage", tmp_path / "out"
    for number in range(15):
        for kind, ending in (("videos", "mkv"), ("tracks", "txt")):
            (copy / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(footage / kind / f"alley.{ending}", copy / kind / f"v{number:02d}.{ending}")
    command = [sys.executable, "-m", "cion_jax.samples.ingest", f"--videos={copy / 'videos'}"]
    command += [f"--tracks={copy / 'tracks'}", f"--out={out}", "--workers=1"]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(ages(out)) < 2:
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    before = ages(out)
    assert 2 <= len(before) < 15
    assert ingest(copy, out)["crops"] == 15 * 8
    after = ages(out)
    assert len(after) == 15 and all(after[name] == age for name, age in before.items())
    assert not list(out.rglob("*.tmp"))
    ingest(copy, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_the_command(footage, ingested, tmp_path):
    copy, out = tmp_path / "footage", tmp_path / "out"
    shutil.copytree(footage, copy)
    (copy / "videos" / "text.avi").write_text("nothing to see")
    command = [sys.executable, "-m", "cion_jax.samples.ingest", f"--videos={copy / 'videos'}"]
    command += [f"--tracks={copy / 'tracks'}", f"--out={out}", "--workers=2"]

    def run(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *more], capture_output=True, text=True)

    first = run("--shard=0/2")
    assert first.returncode == 0 and "Shard 0/2: 2 of its 2 videos are done" in first.stdout, first.stderr
    assert not (out / "samples.parquet").exists() and len(ages(out)) == 2
    whole = run()
    assert whole.returncode == 0 and "24 crops of 6 tracklets" in whole.stdout, whole.stderr
    assert "1 of 4 videos are left out:\n  text: " in whole.stderr
    assert contents(out) == contents(ingested)
    failed = run("--videos=no")
    assert failed.returncode == 2 and "no: no such folder of videos" in failed.stderr
