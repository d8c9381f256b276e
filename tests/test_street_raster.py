"""Rasterised shapes compared with their exact areas, and poses with anatomy."""

import numpy as np
import pytest

from cion_jax.street import raster
from cion_jax.street.people import make_person
from cion_jax.street.pose import Box, walk_pose


@pytest.fixture
def canvas() -> np.ndarray:
    return np.zeros((3, 3, 128, 64), np.float32)


# Three crops, each with the shape at a different subpixel position.
SPOTS = np.array([[30.0, 50.0], [31.3, 52.7], [28.5, 47.25]], np.float32)
DOWN = np.array([4.0, 20.0], np.float32)


def area(shape: raster.Shape) -> np.ndarray:
    return shape.coverage.sum((1, 2))


def test_ellipse_covers_its_area(canvas):
    assert area(raster.ellipse(canvas, SPOTS, 9.0, 12.0)) == pytest.approx(np.pi * 9 * 12, rel=0.02)


def test_capsule_covers_its_area(canvas):
    shape = raster.capsule(canvas, SPOTS, SPOTS + DOWN, 5.0, 5.0)
    assert area(shape) == pytest.approx(np.pi * 25 + 2 * 5 * np.hypot(4, 20), rel=0.01)


def test_trapezoid_covers_its_area(canvas):
    shape = raster.trapezoid(canvas, SPOTS, SPOTS + np.array([0, 20]), 6.0, 10.0, corner=0.5)
    assert area(shape) == pytest.approx((12 + 20) / 2 * 20, rel=0.03)


def test_paint_colours_the_inside_only(canvas):
    raster.paint(canvas, raster.ellipse(canvas, SPOTS, 9.0, 12.0), np.array([1.0, 0.5, 0.0], np.float32))
    for crop, (x, y) in enumerate(SPOTS.astype(int)):
        assert canvas[:, crop, y, x] == pytest.approx([1.0, 0.5, 0.0])
        assert not canvas[:, crop, y, x + 12].any() and not canvas[:, crop, y + 15, x].any()


def test_across_runs_from_left_to_right_and_along_from_start_to_end(canvas):
    for shape in (
        raster.ellipse(canvas, SPOTS, 9.0, 12.0),
        raster.capsule(canvas, SPOTS, SPOTS + DOWN, 5.0, 4.0),
        raster.trapezoid(canvas, SPOTS, SPOTS + DOWN, 6.0, 10.0),
    ):
        assert (np.diff(shape.across, axis=2) >= 0).all() and (np.diff(shape.along, axis=1) >= 0).all()


@pytest.mark.parametrize("spot", [(-500.0, 50.0), (500.0, 50.0), (30.0, -500.0), (30.0, 500.0)])
def test_a_shape_out_of_sight_paints_nothing(canvas, spot):
    centre = np.array([spot], np.float32).repeat(3, 0)
    for shape in (
        raster.ellipse(canvas, centre, 9.0, 12.0),
        raster.capsule(canvas, centre, centre + DOWN, 5.0, 4.0),
        raster.trapezoid(canvas, centre, centre + DOWN, 6.0, 10.0),
    ):
        raster.paint(canvas, shape, np.ones(3, np.float32))
    assert not canvas.any()


@pytest.fixture
def walker():
    return make_person(np.random.default_rng(3))


PHASES = np.linspace(0, 2 * np.pi, 40, endpoint=False)
BOX = Box(foot_x=np.full(40, 32.0), foot_y=np.full(40, 120.0), height=np.full(40, 100.0), stretch=1.0)


def pose(person, azimuth: float, pitch: float = 0.0) -> dict[str, np.ndarray]:
    return walk_pose(person, np.full(40, azimuth), PHASES, pitch, BOX).joints


def test_one_foot_is_always_on_the_ground(walker):
    joints = pose(walker, 0.7)
    lowest = np.maximum(joints["left ankle"][:, 1], joints["right ankle"][:, 1])
    assert lowest == pytest.approx(np.full(40, 117.0), abs=1e-3)  # an ankle is 0.03 heights above its sole


def test_limbs_keep_their_length(walker):
    """The 3-D length of each limb, reconstructed from front and side views, is constant."""
    front, side = pose(walker, 0.0), pose(walker, np.pi / 2)
    for start, end, length in (("hip", "knee", 23), ("knee", "ankle", 23), ("shoulder", "elbow", None)):
        for which in ("left", "right"):
            across, down = (front[f"{which} {end}"] - front[f"{which} {start}"]).T
            depth = (side[f"{which} {end}"] - side[f"{which} {start}"])[:, 0]
            measured = np.sqrt(across**2 + down**2 + depth**2)
            assert np.ptp(measured) < 1e-3
            if length:
                assert measured == pytest.approx(np.full(40, length * walker.legs), rel=1e-3)


def test_knees_bend_backwards_and_elbows_forwards(walker):
    joints = pose(walker, np.pi / 2)  # walks to the right
    for which in ("left", "right"):
        for start, middle, end, sign in (("hip", "knee", "ankle", 1), ("shoulder", "elbow", "hand", -1)):
            upper = joints[f"{which} {middle}"] - joints[f"{which} {start}"]
            lower = joints[f"{which} {end}"] - joints[f"{which} {middle}"]
            assert (sign * (upper[:, 0] * lower[:, 1] - upper[:, 1] * lower[:, 0]) > 0).all()


def test_the_left_hand_of_a_person_facing_the_camera_is_on_the_right(walker):
    assert (pose(walker, 0.0)["left hand"][:, 0] > 32).all()
    assert (pose(walker, np.pi)["left hand"][:, 0] < 32).all()
