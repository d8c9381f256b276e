"""Reading a benchmark in the layout of Market-1501 (Zheng et al., ICCV 2015).

File names are `<identity>_c<camera>...jpg`. Identity -1 marks junk boxes, which are dropped; 0 marks
distractors, which stay in the gallery.
"""

import os
from pathlib import Path

from cion_jax.evaluation.benchmark import GALLERY_FOLDER, QUERY_FOLDER, Benchmark, read_named_folder

# The folder itself, and the names that ReID code bases give it below a data root.
_ROOTS = (".", "market1501", "Market-1501-v15.09.15")


def read_market1501(root: str | os.PathLike) -> Benchmark:
    """Reads `query/` and `bounding_box_test/` in `root`, `root/market1501` or `root/Market-1501-v15.09.15`.

    Images are in order of their names. Raises ValueError for missing folders, a folder without images and
    names that do not follow the pattern.
    """
    folder = _find(root)
    query, gallery = read_named_folder(folder / QUERY_FOLDER), read_named_folder(folder / GALLERY_FOLDER)
    return Benchmark(query, gallery, f"Market-1501 layout in {folder}")


def _find(root: str | os.PathLike) -> Path:
    candidates = [Path(root) / name for name in _ROOTS]
    for folder in candidates:
        if (folder / QUERY_FOLDER).is_dir() and (folder / GALLERY_FOLDER).is_dir():
            return folder
    raise ValueError(
        f"no {QUERY_FOLDER}/ beside a {GALLERY_FOLDER}/ in any of {', '.join(map(str, candidates))}; "
        "give the folder that holds them"
    )
