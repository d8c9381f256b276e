"""Data sets on disk as sample tables: one reader for each published layout, by its name.

    lupersonnl   LUPerson-NL: its LMDB and keys.pkl, its loose crops, or its detections and videos
    synthpedes   SYNTH-PEDES: synthpedes_dataset.json and its images
    cional       CION-AL: cional_annos.json and its images
    mot          MOTChallenge: ground truth, detections or a tracker's results, with frames or videos
    market1501   Market-1501's training images
    msmt17       MSMT17's training images, `train` or `train+val`, in all three layouts
    tracklets    any folder of the form video/tracklet/*.jpg

`file_path` is relative to the data set's folder, or to the folder of crops where a reader cuts them out of frames.
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
    """Reads the data set in the folder `root`; which options there are depends on `layout`, see its reader.

    Raises:
      ValueError: an unknown layout, options that it lacks or does not take, or a data set that is not as published.
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
