"""Rendered street videos: encoded frames, ground-truth boxes, and matching crops to people."""

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest

from cion_jax.samples import SampleTable
from cion_jax.samples.motchallenge import read_mot
from cion_jax.street import street_config
from cion_jax.street.film import _visible, film_street, render_video
from cion_jax.street.passages import FilmConfig, plan_video
from cion_jax.street.truth import overlap, with_people

CONFIG = street_config(crawl_people=6, crawl_videos=2, people_per_video=3, co_visible=2.0)
FILM = FilmConfig(height=120, width=200, rate=4, seconds=3.0)
CLEAR = dataclasses.replace(CONFIG, camera_strength=0.0, occlusion=0.0, people_per_video=1)


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "street"
    film_street(CONFIG, folder, FILM, workers=1)
    return folder


def decoded(video: Path) -> list[np.ndarray]:
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_videos_show_what_was_rendered(street):
    frames = decoded(street / "videos" / "v00001.mp4")
    rendered = [image for image, _ in render_video(CONFIG, FILM, 1)]
    np.testing.assert_array_equal(rendered, [image for image, _ in render_video(CONFIG, FILM, 1)])
    assert len(frames) == len(rendered) == 12
    for ours, theirs in zip(frames, rendered, strict=True):
        assert ours.shape == (120, 200, 3)
        assert np.abs(ours.astype(int) - theirs).mean() < 8  # compression loses chroma detail and noise


@pytest.mark.slow
def test_the_same_street_with_any_number_of_workers(street, tmp_path):
    film_street(CONFIG, tmp_path / "again", FILM, workers=2)
    for name in ("v00000", "v00001"):
        truth, video = f"truth/{name}.txt", f"videos/{name}.mp4"
        assert (tmp_path / "again" / truth).read_bytes() == (street / truth).read_bytes()
        # What is rendered is the same to the byte; x264 itself has written a video differently from call to call.
        for ours, theirs in zip(decoded(tmp_path / "again" / video), decoded(street / video), strict=True):
            assert np.abs(ours.astype(int) - theirs).mean() < 8  # the loss of compression, as above


def test_videos_differ_by_camera_and_by_seed():
    first = [next(render_video(config, FILM, video))[0] for config, video in ((CONFIG, 0), (CONFIG, 1))]
    other = next(render_video(dataclasses.replace(CONFIG, seed=1), FILM, 0))[0]
    assert np.abs(first[0].astype(int) - first[1]).mean() > 5 and np.abs(first[0].astype(int) - other).mean() > 5


@pytest.mark.parametrize("video", range(4))
def test_true_boxes_are_where_people_are_drawn(video):
    """The pixels that differ from the empty street are the person and the shadow."""
    film = dataclasses.replace(FILM, rate=2, seconds=6.0)
    frames = list(render_video(CLEAR, film, video))
    empty = np.median([image for image, _ in frames], axis=0)
    overlaps = []
    for image, truth in frames:
        if not truth or truth[0].visible < 0.95:
            continue
        rows, columns = np.nonzero(np.abs(image - empty).max(2) > 25)
        drawn = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
        overlaps.append(overlap(drawn, np.array([truth[0].box]))[0, 0])
    assert np.median(overlaps) > 0.75 and min(overlaps) > 0.6  # people are 50 pixels high


def test_truth_is_ground_truth_of_motchallenge(street):
    truth = read_mot(street / "truth" / "v00000.txt", "gt")
    walkers = {passage.number for passage in plan_video(CONFIG, FILM, 0)[1]}
    assert set(truth.ids.tolist()) <= walkers and truth.frames.max() <= 12
    lines = np.loadtxt(street / "truth" / "v00000.txt", delimiter=",", ndmin=2)
    assert lines.shape[1] == 9 and (lines[:, 6] == (lines[:, 8] >= 0.3)).all() and (lines[:, 7] == 1).all()


def test_visibility_of_people_who_occlude_each_other_or_leave_the_frame():
    behind, before, leaving = (10.0, 10.0, 30.0, 60.0), (20.0, 10.0, 40.0, 60.0), (190.0, 20.0, 230.0, 100.0)
    seen = _visible(FILM, [(1, behind), (2, before), (3, leaving)])
    assert [(true.number, round(true.visible, 6)) for true in seen] == [(1, 0.5), (2, 1.0), (3, 0.25)]


def test_people_walk_upright_across_the_picture():
    seconds, passages = plan_video(street_config(people_per_video=12), FilmConfig(), 0)
    film = FilmConfig()
    assert len({passage.number for passage in passages}) == 12 and seconds > 10
    assert [passage.foot_y for passage in passages] == sorted(passage.foot_y for passage in passages)
    for passage in passages:
        ends = [passage.foot_x(film, passage.enters + share * passage.crossing(film)) for share in (0, 1)]
        assert sorted(ends) == pytest.approx([-passage.height / 2, film.width + passage.height / 2])


# Matching crops to people


def test_crops_get_the_person_they_show(tmp_path):
    (tmp_path / "a.txt").write_text("1,7,10,10,20,40,1,1,1\n1,8,40,10,20,40,1,1,1\n2,7,12,10,20,40,1,1,1\n")
    boxes = [(1, 12, 12, 20, 40), (1, 38, 8, 22, 44), (1, 24, 10, 22, 40), (2, 12, 10, 20, 40), (3, 12, 10, 20, 40)]
    table = SampleTable.from_columns(
        file_path=[f"{row}.jpg" for row in range(5)],
        video=["a"] * 5,
        tracklet=[0] * 5,
        **{name: list(column) for name, column in zip(("frame", "left", "top", "width", "height"), zip(*boxes))},
    )
    assert with_people(table, tmp_path)["person"].tolist() == [7, 8, -1, 7, -1]
    with pytest.raises(ValueError, match=r"b\.txt: no such file"):
        with_people(table.with_columns(video=["b"] * 5), tmp_path)
    with pytest.raises(ValueError, match="no column 'left'"):
        with_people(SampleTable.from_columns(file_path=["0.jpg"], video=["a"], frame=[1]), tmp_path)


def test_overlap_is_what_counting_pixels_gives():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, (8, 2)).astype(float)
    boxes = np.hstack([corners, corners + rng.integers(1, 20, (8, 2))])
    y, x = np.mgrid[:40, :40] + 0.5
    masks = [(x > left) & (x < right) & (y > top) & (y < bottom) for left, top, right, bottom in boxes]
    expected = [[(one & other).sum() / (one | other).sum() for other in masks[3:]] for one in masks[:3]]
    np.testing.assert_allclose(overlap(boxes[:3], boxes[3:]), expected)


@pytest.mark.parametrize(
    "wrong", [{"height": 121}, {"width": 2160}, {"rate": 0}, {"seconds": -1.0}, {"far": 0.8, "near": 0.5}]
)
def test_impossible_films_are_refused(wrong):
    with pytest.raises(ValueError, match=r"film: .*expected"):
        FilmConfig(**wrong)
