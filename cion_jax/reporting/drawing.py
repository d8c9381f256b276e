"""Images embedded in the page as data URIs: crops as JPEG, charts as SVG."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cion_jax.reporting.figures import new_figure, tidy
from cion_jax.reporting.page import Crop
from cion_jax.samples import UndecodableImage
from cion_jax.samples.stores.sources import Images

CROP_HEIGHT = 128  # pixels; larger than displayed, for high-resolution screens
# Okabe and Ito's colour-blind-safe palette; dash patterns distinguish lines in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
_SIZE = 4.3, 3.0  # inches: 9 pt text stays legible on a phone


def chart(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    """Returns an empty chart of the page's standard size."""
    figure = new_figure(*_SIZE)
    axes = figure.add_subplot()
    axes.set_prop_cycle(cycler(color=COLOURS) + cycler(linestyle=_DASHES))
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8.5)
    axes.set_axisbelow(True)
    tidy(axes)
    return figure, axes


def lines(
    named: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    x_label: str,
    y_label: str,
    title: str,
    marks: Mapping[str, float],
) -> str:
    """Draws named lines, each x and y `[points]`, and labelled horizontal reference lines `marks`, as SVG."""
    figure, axes = chart(x_label, y_label, title)
    for name, (x, y) in named.items():
        axes.plot(x, y, label=name, linewidth=1.5)
    for name, level in marks.items():
        axes.axhline(level, color="0.35", linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(name, (0.99, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    if len(named) > 1:
        legend_below(figure)
    return svg(figure)


def legend_below(figure: Figure) -> None:
    """Places the legend below the chart, where it covers no data."""
    figure.legend(loc="outside lower left", frameon=False, fontsize=8)


def svg(figure: Figure) -> str:
    """Encodes a figure as an SVG data URI, deterministically."""
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "cion_jax"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _uri(written.getvalue(), "image/svg+xml")


def jpeg(image: np.ndarray) -> str:
    """Encodes an image `[h, w, 3]` uint8 as a JPEG data URI, at most `CROP_HEIGHT` pixels high."""
    shown = Image.fromarray(image)
    if shown.height > CROP_HEIGHT:
        width = max(1, round(shown.width * CROP_HEIGHT / shown.height))
        shown = shown.resize((width, CROP_HEIGHT), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    shown.save(written, format="JPEG", quality=82)
    return _uri(written.getvalue(), "image/jpeg")


def crops(images: Images, paths: Sequence[str], alt: str) -> list[Crop]:
    """Loads crops, skipping images that cannot be decoded."""
    loaded = []
    for number, path in enumerate(paths, 1):
        try:
            image = images.load(path)
        except UndecodableImage:  # counted and named in the section on input data
            continue
        loaded.append(Crop(jpeg(image), f"{alt}, crop {number}"))
    return loaded


def _uri(data: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"
