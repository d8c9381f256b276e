"""Detectors, tracker, identities and face blurring on rendered street videos, against ground truth."""

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from trackers.eval import evaluate_mot_sequence

from cion_jax.correlation import correlate, pairwise_scores
from cion_jax.samples import SampleTable, open_images, read_samples, resize
from cion_jax.samples.ingest.byte_track import ByteTrack
from cion_jax.samples.ingest.decoding import find_videos
from cion_jax.samples.ingest.detectors import MotionDetector, PeopleDetector
from cion_jax.samples.ingest.faces import FaceBlur
from cion_jax.samples.ingest.job import gather, ingest_videos
from cion_jax.samples.ingest.settings import IngestSettings
from cion_jax.samples.ingest.tracks import DetectedTracks, Detections
from cion_jax.samples.ingest.video import CropSettings
from cion_jax.street import street_config
from cion_jax.street.film import film_street, render_video
from cion_jax.street.passages import FilmConfig
from cion_jax.street.truth import overlap, with_people

# Six people, all of whom walk past both cameras.
CONFIG = street_config(crawl_people=6, crawl_videos=2, people_per_video=6, co_visible=1.5)
FILM = FilmConfig(height=200, width=320, far=0.6, near=0.75, rate=8, seconds=24.0)


@pytest.mark.slow
def test_from_pixels_to_identities(tmp_path):
    street, out = tmp_path / "street", tmp_path / "out"
    film_street(CONFIG, street, FILM, workers=2)
    videos, settings = find_videos(street / "videos"), IngestSettings("motion", crops=CropSettings(every=4))
    gather(list(videos), out, settings, ingest_videos(videos, out, settings, workers=2))
    for video in videos:
        check_tracks(street / "truth" / f"{video}.txt", out / "tracks" / f"{video}.txt")
    check_identities(with_people(read_samples(out / "samples.parquet"), street / "truth"), out / "crops")


def check_tracks(truth: Path, tracks: Path) -> None:
    """Scores tracks with `trackers`, which agrees with TrackEval: boxes match from an IoU of 0.5."""
    scores = evaluate_mot_sequence(truth, tracks, ["CLEAR", "Identity"])
    assert scores.CLEAR.CLR_Re > 0.7 and scores.CLEAR.CLR_Pr > 0.85
    assert scores.Identity.IDF1 > 0.6


def check_identities(table: SampleTable, crops: Path) -> None:
    """Correlation improves on raw tracklets; colours of a few stripes are enough to distinguish six people."""
    images, persons = open_images(crops), table["person"]
    assert (persons >= 0).mean() > 0.7 and len(np.unique(persons[persons >= 0])) == 6
    stripes = np.stack([resize(images.load(path), (16, 8))[:, 2:6] for path in table["file_path"]]).astype(float)
    stripes -= stripes.mean((1, 2), keepdims=True)  # the cameras differ in their colour cast
    features = stripes.reshape(len(table), -1).astype(np.float32)
    result = correlate(features, table.videos, table.tracklets, sigma_cst=0.5, sigma_drm=0.35)
    raw, linked = (pairwise_scores(level.identities, persons) for level in (result.levels[0], result.levels[-1]))
    assert linked.recall > raw.recall + 0.1 and linked.f1 > raw.f1 + 0.05


@pytest.mark.slow
def test_the_people_detector_finds_drawn_people():
    """The detector was trained on photographs and detects about half of the drawn people."""
    film, detector, hits, wanted = dataclasses.replace(FILM, rate=1), PeopleDetector(), 0, 0
    for video in (0, 1):
        for image, truth in render_video(CONFIG, film, video):
            boxes = np.array([true.box for true in truth if true.visible > 0.5]).reshape(-1, 4)
            detections = detector.detect(image)
            assert ((detections.scores > 0) & (detections.scores < 1)).all()
            hits += (overlap(boxes, detections.boxes).max(1, initial=0) > 0.5).sum()
            wanted += len(boxes)
    assert wanted > 20 and hits > 0.4 * wanted, (hits, wanted)


# Components


def moving(frame: int) -> np.ndarray:
    """Renders noise, and from frame 0 on also a dark upright walking shape and a car below it."""
    image = np.random.default_rng(frame + 50).integers(100, 116, (200, 300, 3), np.uint8)
    if frame < 0:
        return image
    image[40:120, 10 + 5 * frame : 40 + 5 * frame] = 20
    image[150:180, 200 - 5 * frame : 290 - 5 * frame] = 230
    return image


def test_motion_finds_what_moves_and_is_upright():
    detector = MotionDetector()
    for frame in range(-40, 30):
        detections = detector.detect(moving(frame))
        if frame < 0:
            assert not len(detections.boxes)
        else:
            expected = np.array([[10 + 5 * frame, 40, 40 + 5 * frame, 120]], float)
            assert len(detections.boxes) == 1 and overlap(detections.boxes, expected)[0, 0] > 0.8


def test_byte_track_keeps_ids_through_a_gap_and_separates_two_people():
    tracker = ByteTrack(rate=10)
    numbers = []
    for frame in range(20):
        boxes = [[5 * frame, 50, 5 * frame + 40, 150]] if frame not in (9, 10) else []
        boxes += [[200, 60, 240, 160]]
        tracked = tracker.update(Detections.of(boxes, [0.9] * len(boxes)))
        for number, box in zip(tracked.tracklets, tracked.boxes):
            numbers.append((int(number), "stands" if box[0] == 200 else "walks"))
        if frame > 1 and len(boxes) == 2:
            assert len(tracked.tracklets) == 2
    assert len(set(numbers)) == 2 and len({number for number, _ in numbers}) == 2
    assert not len(tracker.update(Detections.of([], [])).tracklets)


def test_detection_runs_on_every_nth_frame():
    class Everywhere:
        def __init__(self):
            self.seen = []

        def detect(self, image):
            self.seen.append(int(image[0, 0, 0]))
            return Detections.of([[0, 0, 30, 90]], [0.9])

    detector = Everywhere()
    tracks = DetectedTracks(detector, ByteTrack(rate=5), every=3)
    counts = [
        len(tracks.at(number, lambda n=number: np.full((1, 1, 3), n, np.uint8)).tracklets) for number in range(1, 12)
    ]
    assert detector.seen == [1, 4, 7, 10]
    assert counts == [0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]  # the tracker confirms a track at its second detection
    with pytest.raises(ValueError, match="a crop every 5 frames, of people looked for every 3; expected a multiple"):
        IngestSettings(detect_every=3)


def test_faces_are_blurred_and_the_rest_is_left():
    photograph = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    portrait = np.array(photograph.resize((170, 200)))
    crop = np.concatenate([portrait, np.random.default_rng(0).integers(0, 256, (200, 170, 3), np.uint8)])
    blur = FaceBlur()
    blurred = blur(crop)
    face, head = (slice(45, 105), slice(55, 120)), slice(0, 80)
    sharpness = [np.abs(np.diff(image[face].astype(float), axis=0)).mean() for image in (crop, blurred)]
    assert sharpness[1] < 0.4 * sharpness[0]
    assert np.abs(np.diff(blurred[head].astype(float), axis=1)).mean() < 2
    np.testing.assert_array_equal(blurred[200:], crop[200:])
    assert blur._faces(crop) and not blur._faces(blurred)
