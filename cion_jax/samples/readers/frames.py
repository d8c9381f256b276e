"""Folders of a video's frames as image files, numbered by their names, such as MOTChallenge's `img1/`."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.samples.images import load_image
from cion_jax.samples.ingest.decoding import Frame
from cion_jax.samples.stores.folder import EXTENSIONS

_NAME = re.compile(r"(?P<before>.*?)(?P<number>[0-9]+)", re.DOTALL)


class FrameFolder(NamedTuple):
    """The frames of a folder.

    Attributes:
        files: Image files by frame number, ascending.
        left_out: Number of other files, by reason.
    """

    files: dict[int, Path]
    left_out: dict[str, int]

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[Frame]:
        """The frames in order, decoded on demand; all have the declared `size` (width, height) or that of the first.

        Boxes are in pixels of one size of frames; in frames of another size they would cut out something else.

        Raises:
            ValueError: Also by a frame's `image`: it cannot be decoded, or has another size.
        """
        first = next(iter(self.files.values()))
        expected, source = (size, "seqinfo.ini says") if size else (_size(load_image(first)), f"{first.name} has")

        def image(file: Path) -> np.ndarray:
            pixels = load_image(file)
            if (got := _size(pixels)) != expected:
                raise ValueError(
                    f"{file}: {got[0]}x{got[1]} pixels, but {source} {expected[0]}x{expected[1]}, so boxes are in "
                    "another scale; give the frames that they were made on"
                )
            return pixels

        for number, file in self.files.items():
            yield Frame(number, lambda file=file: image(file))


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def read_frame_folder(folder: Path) -> FrameFolder:
    """Lists images whose names end in the frame number: `000001.jpg`, `frame_000001.png`, `img00001.jpg`.

    The frames may be of several formats, but what precedes the number is the same in all names. Hidden files are
    ignored; other files, such as labels beside the frames, and images without a number are left out and counted.

    Raises:
        ValueError: No frames, two images of one frame, or different names before the number.
    """
    files: dict[int, Path] = {}
    left_out: Counter[str] = Counter()
    first = None
    for file in sorted(folder.glob("[!.]*")):
        if file.suffix.lower() not in EXTENSIONS:
            left_out[f"files beside the frames that are no images ({file.suffix or 'without extension'})"] += 1
            continue
        if not (match := _NAME.fullmatch(file.stem)):
            left_out["images beside the frames without a number at the end of their name"] += 1
            continue
        number = int(match["number"])
        if number in files:
            raise ValueError(f"{folder}: {files[number].name} and {file.name} are both frame {number}; remove one")
        first = first or match
        if match["before"] != first["before"]:
            raise ValueError(
                f"{folder}: {first[0]!r} and {match[0]!r} differ before the frame number, as frames of two videos "
                "would; keep those of one"
            )
        files[number] = file
    if not files:
        raise ValueError(
            f"{folder}: no frames; expected images whose names end in the frame number, such as 000001.jpg or "
            "frame_000001.jpg"
        )
    return FrameFolder(dict(sorted(files.items())), dict(left_out))
