"""Anti-aliased shapes on a batch of crops.

A canvas is `[3, crops, height, width]` float32: colour first, so that a coverage `[crops, height, width]` blends with
it as it is. Shapes are drawn from their signed distance in pixels, which gives each pixel the share of it that
the shape covers; that looks like rendering large and filtering down, at a fraction of the cost. All crops of a
batch are drawn at once, in the window that holds the shape in every one of them.
"""

import dataclasses

import numpy as np

# Positions are [crops, 2] (x, y) in pixels; sizes are [crops] or scalars.
Sizes = np.ndarray | float


@dataclasses.dataclass(frozen=True)
class Shape:
    """A drawn shape in its window of the canvas.

    coverage: [crops, h, w] in [0, 1].
    across:   [crops, h, w], -1 at the left edge of the shape and 1 at the right one.
    along:    [crops, h, w], 0 at the first end of the shape and 1 at the other.
    """

    window: tuple[slice, slice]
    coverage: np.ndarray
    across: np.ndarray
    along: np.ndarray


def capsule(
    canvas: np.ndarray, start: np.ndarray, end: np.ndarray, start_radius: Sizes, end_radius: Sizes
) -> Shape:
    """A limb: a segment from `start` to `end`, round at both ends, as thick as its radii say."""
    start_radius, end_radius = _column(start_radius), _column(end_radius)
    margin = max(float(start_radius.max()), float(end_radius.max()))
    window, x, y = _grid(canvas, np.concatenate([start, end]), margin)
    axis = end - start
    length = np.maximum(np.sqrt((axis**2).sum(1)), 1e-3)
    ux, uy = _column(axis[:, 0] / length), _column(axis[:, 1] / length)
    dx, dy = x - _column(start[:, 0]), y - _column(start[:, 1])
    along = dx * ux + dy * uy
    side = dx * uy - dy * ux  # positive on the right of a limb that points down
    share = np.clip(along / _column(length), 0, 1)
    radius = start_radius + (end_radius - start_radius) * share
    beyond = along - share * _column(length)
    distance = np.sqrt(side * side + beyond * beyond) - radius
    return Shape(window, np.clip(0.5 - distance, 0, 1), np.clip(side / radius, -1, 1), share)


def ellipse(canvas: np.ndarray, centre: np.ndarray, half_width: Sizes, half_height: Sizes) -> Shape:
    """A head, a face, a shadow."""
    half_width, half_height = _column(half_width), _column(half_height)
    margin = max(float(half_width.max()), float(half_height.max()))
    window, x, y = _grid(canvas, centre, margin)
    across = (x - _column(centre[:, 0])) / half_width
    down = (y - _column(centre[:, 1])) / half_height
    distance = (np.sqrt(across * across + down * down) - 1) * np.minimum(half_width, half_height)
    return Shape(window, np.clip(0.5 - distance, 0, 1), np.clip(across, -1, 1), (down + 1) / 2)


def trapezoid(
    canvas: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    top_half: Sizes,
    bottom_half: Sizes,
    corner: float = 1.0,
) -> Shape:
    """A trunk, a skirt, a box: upright, from the middle of its top to the middle of its bottom edge.

    `corner` is the radius of the rounded corners, in pixels.
    """
    top_half, bottom_half = _column(top_half), _column(bottom_half)
    margin = max(float(top_half.max()), float(bottom_half.max()))
    window, x, y = _grid(canvas, np.concatenate([top, bottom]), margin)
    height = np.maximum(_column(bottom[:, 1] - top[:, 1]), 1e-3)
    along = (y - _column(top[:, 1])) / height
    share = np.clip(along, 0, 1)
    middle = _column(top[:, 0]) + _column(bottom[:, 0] - top[:, 0]) * share
    half = top_half + (bottom_half - top_half) * share
    offset = x - middle
    over_x = np.abs(offset) - half + corner
    over_y = np.abs(along - 0.5) * height - height / 2 + corner
    outside = np.sqrt(np.maximum(over_x, 0) ** 2 + np.maximum(over_y, 0) ** 2)
    distance = outside + np.minimum(np.maximum(over_x, over_y), 0) - corner
    return Shape(window, np.clip(0.5 - distance, 0, 1), np.clip(offset / half, -1, 1), share)


def paint(canvas: np.ndarray, shape: Shape, colour: np.ndarray) -> None:
    """Blends `colour`, [3] or [3, crops, h, w], into the canvas where the shape is."""
    region = canvas[:, :, shape.window[0], shape.window[1]]
    region += shape.coverage * ((colour.reshape(3, 1, 1, 1) if colour.ndim == 1 else colour) - region)


def _column(values: Sizes) -> np.ndarray:
    """[crops] or a scalar, to broadcast with [crops, h, w]."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _grid(
    canvas: np.ndarray, points: np.ndarray, margin: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The window around `points` (and the coordinates of its pixels' middles); empty where nothing is in sight."""
    (left, top), (right, bottom) = points.min(0) - margin - 1, points.max(0) + margin + 2
    columns = slice(*np.clip((int(left), int(right) + 1), 0, canvas.shape[3]).tolist())
    rows = slice(*np.clip((int(top), int(bottom) + 1), 0, canvas.shape[2]).tolist())
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
    y = np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5
    return (rows, columns), x[None, None, :], y[None, :, None]
