"""Anti-aliased shapes on a batch of crops.

A canvas is `[3, crops, height, width]` float32, channels first, so that a coverage `[crops, height, width]`
broadcasts to it. The coverage of a pixel is computed from its signed distance to the shape: this looks like
supersampling at far less cost. All crops of a batch are drawn at once, in the window that contains the shape in
every one of them.

Positions are `[crops, 2]`, (x, y) in pixels; sizes are `[crops]` or one number, in pixels.
"""

import dataclasses

import numpy as np

Sizes = np.ndarray | float


@dataclasses.dataclass(frozen=True)
class Shape:
    """A shape in its window of the canvas.

    Attributes:
        window: Rows and columns of the canvas.
        coverage: [crops, h, w] in [0, 1].
        across: [crops, h, w], -1 at the left edge of the shape and 1 at the right edge.
        along: [crops, h, w], 0 at the first end of the shape and 1 at the other.
    """

    window: tuple[slice, slice]
    coverage: np.ndarray
    across: np.ndarray
    along: np.ndarray


def capsule(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, start_radius: Sizes, end_radius: Sizes) -> Shape:
    """Rounded segment from `start` to `end` with a radius at each end, for limbs."""
    start_radius, end_radius = _column(start_radius), _column(end_radius)
    window, x, y = _grid(canvas, start, end, float(np.maximum(start_radius, end_radius).max()))
    axis = end - start
    length = np.sqrt((axis * axis).sum(1, keepdims=True)) + 1e-3
    ux, uy = (_column(part) for part in (axis / length).T)
    length = _column(length)
    dx, dy = x - _column(start[:, 0]), y - _column(start[:, 1])
    beyond = dx * ux + dy * uy
    side = dx * uy - dy * ux  # positive on the right of a limb that points down
    along = _clamp(beyond / length, 0)
    beyond -= along * length
    radius = along * (end_radius - start_radius)
    radius += start_radius
    return Shape(window, _coverage(_norm(side, beyond) - radius), _clamp(side / radius, -1), along)


def ellipse(canvas: np.ndarray, centre: np.ndarray, half_width: Sizes, half_height: Sizes) -> Shape:
    """Axis-aligned ellipse, for heads, faces and shadows."""
    half_width, half_height = _column(half_width), _column(half_height)
    window, x, y = _grid(canvas, centre, centre, float(np.maximum(half_width, half_height).max()))
    across = (x - _column(centre[:, 0])) / half_width
    down = (y - _column(centre[:, 1])) / half_height
    coverage = _coverage((_norm(across, down) - 1) * np.minimum(half_width, half_height))
    across, down = np.broadcast_arrays(np.clip(across, -1, 1), (down + 1) / 2)
    return Shape(window, coverage, across, down)


def trapezoid(
    canvas: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    top_half: Sizes,
    bottom_half: Sizes,
    corner: float = 1.0,
) -> Shape:
    """Trapezoid with horizontal edges, centred at `top` and `bottom`, for trunks, skirts and boxes.

    `top_half` and `bottom_half` are half the edges' widths; `corner` is the corner radius, in pixels.
    """
    top_half, bottom_half = _column(top_half), _column(bottom_half)
    window, x, y = _grid(canvas, top, bottom, float(np.maximum(top_half, bottom_half).max()))
    height = _column(bottom[:, 1] - top[:, 1]) + np.float32(1e-3)
    along = (y - _column(top[:, 1])) / height
    share = np.clip(along, 0, 1)
    half = top_half + (bottom_half - top_half) * share
    offset = x - (_column(top[:, 0]) + _column(bottom[:, 0] - top[:, 0]) * share)
    over_x = np.abs(offset) - (half - np.float32(corner))
    over_y = np.abs(along - np.float32(0.5)) * height - (height / 2 - np.float32(corner))
    distance = _norm(np.maximum(over_x, 0), np.maximum(over_y, 0))
    distance += np.minimum(np.maximum(over_x, over_y), 0)
    distance -= np.float32(corner)
    across = _clamp(offset / half, -1)
    return Shape(window, _coverage(distance), across, np.broadcast_to(share, across.shape))


def paint(canvas: np.ndarray, shape: Shape, colour: np.ndarray, shade: np.ndarray | None = None) -> None:
    """Blends `colour`, [3] or [3, crops, h, w], times `shade`, [crops, h, w], into the canvas."""
    window = (slice(None), slice(None), *shape.window)
    colour = colour.reshape(3, 1, 1, 1) if colour.ndim == 1 else colour
    region = canvas[window].copy()  # arithmetic on contiguous memory outweighs the cost of copying
    region *= 1 - shape.coverage
    region += colour * (shape.coverage if shade is None else shape.coverage * shade)
    canvas[window] = region


def _column(values: Sizes) -> np.ndarray:
    """Reshapes [crops] or a scalar to broadcast with [crops, h, w]."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _clamp(values: np.ndarray, low: float) -> np.ndarray:
    """Clips to [low, 1], in place; several times faster than `np.clip` on windows this small."""
    np.maximum(values, low, out=values)
    return np.minimum(values, 1, out=values)


def _coverage(distance: np.ndarray) -> np.ndarray:
    """Converts signed distances of pixel centres (positive outside) to coverage in [0, 1], in place."""
    return _clamp(np.subtract(np.float32(0.5), distance, out=distance), 0)


def _norm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    square = x * x + y * y
    return np.sqrt(square, out=square)


def _grid(
    canvas: np.ndarray, start: np.ndarray, end: np.ndarray, margin: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Returns the window around two points (empty if outside the canvas) and its pixel centres' x and y."""
    left, top = np.minimum(start, end).min(0).tolist()
    right, bottom = np.maximum(start, end).max(0).tolist()
    rows = _span(top - margin, bottom + margin, canvas.shape[2])
    columns = _span(left - margin, right + margin, canvas.shape[3])
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, None, :] + np.float32(0.5)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[None, :, None] + np.float32(0.5)
    return (rows, columns), x, y


def _span(low: float, high: float, size: int) -> slice:
    return slice(min(max(int(low) - 1, 0), size), min(max(int(high) + 2, 0), size))
