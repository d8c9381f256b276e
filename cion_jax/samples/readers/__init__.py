"""Readers of data sets as sample tables: one for each published layout, by name.

    lupersonnl   LUPerson-NL: LMDB and keys.pkl, loose crops, or detections and videos
    synthpedes   SYNTH-PEDES: synthpedes_dataset.json and images
    cional       CION-AL: cional_annos.json and images
    mot          MOTChallenge: ground truth, detections or tracker results, with frames or videos
    market1501   Market-1501's training images
    msmt17       MSMT17's training images, `train` or `train+val`, by lists or by file names
    tracklets    any folder of images video/tracklet/*

`file_path` is relative to the data set's folder, or to the crop folder if the reader cuts crops from frames.
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cion_jax.samples.readers.annotations import read_cional, read_synthpedes
from cion_jax.samples.readers.labelled import read_market1501, read_msmt17
from cion_jax.samples.readers.lupersonnl import read_lupersonnl
from cion_jax.samples.readers.reading import Reading
from cion_jax.samples.readers.sequences import read_sequences
from cion_jax.samples.readers.tracklets import read_tracklets

READERS: dict[str, Callable[..., Reading]] = {
    "cional": read_cional,
    "lupersonnl": read_lupersonnl,
    "market1501": read_market1501,
    "mot": read_sequences,
    "msmt17": read_msmt17,
    "synthpedes": read_synthpedes,
    "tracklets": read_tracklets,
}


def read_dataset(layout: str, root: str | os.PathLike, **options: Any) -> Reading:
    """Reads the data set in the folder `root`; `options` are the keyword arguments of the layout's reader.

    Raises:
        ValueError: an unknown layout, missing or unknown options, or a data set that differs from its published layout.
    """
    if layout not in READERS:
        raise ValueError(f"unknown layout {layout!r}, expected one of {', '.join(READERS)}")
    settings = list(inspect.signature(READERS[layout]).parameters.values())[1:]
    if unknown := options.keys() - {setting.name for setting in settings}:
        raise ValueError(f"{layout} takes no --{', --'.join(sorted(unknown))}")
    needed = [setting.name for setting in settings if setting.default is setting.empty]
    if absent := [name for name in needed if name not in options]:
        raise ValueError(f"{layout} needs --{', --'.join(absent)}")
    if not Path(root).is_dir():
        raise ValueError(f"{root}: {'a file, expected the' if Path(root).exists() else 'no such'} folder of a data set")
    return READERS[layout](Path(root), **options)


__all__ = ["READERS", "Reading", "read_dataset"]
