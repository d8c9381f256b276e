"""Figures for reports: contact sheets of crops, line charts and histograms, and helpers that all charts share."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from cion_jax.runtime.files import atomic_path
from cion_jax.samples import load_image, resize

_GAP = 4  # pixels between tiles
_CAPTION = 18  # height of a caption line
_BORDER = 3
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of this size in inches, without pyplot's global state."""
    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Axes, *, grid: bool = True, legend: bool = False, legend_size: float | None = None) -> None:
    """Removes the top and right spines, and adds a light grid and a frameless legend (of `legend_size` points)."""
    if grid:
        axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=legend_size)


def write_png(figure: Figure, out: str | os.PathLike) -> None:
    """Writes a figure as PNG, atomically."""
    with atomic_path(out) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def contact_sheet(
    rows: Sequence[Sequence[str | os.PathLike]],
    out: str | os.PathLike,
    *,
    tile: tuple[int, int] = (128, 64),
    captions: Sequence[str] | None = None,
    borders: Sequence[Sequence[str | None]] | None = None,
    load: Callable[[Any], np.ndarray] = load_image,
) -> None:
    """Writes a PNG with one row of images per entry of `rows` (e.g. crops of one identity, or a ranked list).

    Args:
        rows: images, as `load` takes them; rows may differ in length.
        out: PNG file.
        tile: height and width of an image, in pixels.
        captions: a line of text above each row.
        borders: colour name per image, or None for no border.
        load: decodes an image.
    """
    if not any(len(row) for row in rows):
        raise ValueError("a contact sheet needs at least one image")
    for name, given in (("captions", captions), ("borders", borders)):
        if given is not None and len(given) != len(rows):
            raise ValueError(f"{len(given)} {name} for {len(rows)} rows of images")
    height, width = tile
    header = _CAPTION if captions is not None else 0
    pitch = height + _GAP + header
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (_GAP + columns * (width + _GAP), _GAP + len(rows) * pitch), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        top = _GAP + index * pitch
        if captions is not None:
            draw.text((_GAP, top), captions[index], fill=_INK, font=ImageFont.load_default(12))
        for column, path in enumerate(row):
            x, y = _GAP + column * (width + _GAP), top + header
            sheet.paste(Image.fromarray(resize(load(path), tile)), (x, y))
            if borders is not None and borders[index][column] is not None:
                box = (x, y, x + width - 1, y + height - 1)
                draw.rectangle(box, outline=borders[index][column], width=_BORDER)
    with atomic_path(out) as temporary:
        sheet.save(temporary, format="PNG")


def curve(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    out: str | os.PathLike,
    *,
    x_label: str,
    y_label: str,
    title: str = "",
) -> None:
    """Writes a PNG of named lines, each given as x and y `[points]`."""
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, linewidth=1.2)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    tidy(axes, legend=len(lines) > 1)
    write_png(figure, out)


def histograms(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    out: str | os.PathLike,
    *,
    marks: Mapping[str, float],
    bins: np.ndarray,
) -> None:
    """Writes a PNG of panels side by side, each with overlaid histograms of named samples.

    Bars are fractions of their sample, on a logarithmic scale that shows rare values.

    Args:
        panels: samples by name, by the x label of their panel.
        out: PNG file.
        marks: x of the vertical line in each panel, by the same labels.
        bins: edges of the bins.
    """
    figure = new_figure(5 * len(panels), 3.6)
    for axes, (label, samples) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for name, values in samples.items():
            weights = np.full(len(values), 1 / max(len(values), 1))
            axes.hist(values, bins, weights=weights, alpha=0.6, label=f"{name} ({len(values):,})")
        axes.axvline(marks[label], color="black", linewidth=1, linestyle="--")
        axes.set(xlabel=label, ylabel="share", yscale="log")
        tidy(axes, grid=False, legend=True)
    write_png(figure, out)
