"""Market-1501 benchmark (Zheng et al., ICCV 2015).

File names are `<identity>_c<camera>...jpg`. Identity -1 marks junk boxes, which are dropped; 0 marks distractors, which
stay in the gallery.
"""

import os
from pathlib import Path

from cion_jax.evaluation.benchmark import GALLERY_FOLDER, QUERY_FOLDER, Benchmark, read_named_folder
from cion_jax.samples.layouts import MARKET1501_ROOTS, dataset_folders


def read_market1501(root: str | os.PathLike) -> Benchmark:
    """Reads `query/` and `bounding_box_test/` in `root`, `root/market1501` or `root/Market-1501-v15.09.15`.

    Images are sorted by name.

    Raises:
        ValueError: missing folders, a folder without images, or names that do not follow the pattern.
    """
    folder = _find(Path(root))
    query, gallery = read_named_folder(folder / QUERY_FOLDER), read_named_folder(folder / GALLERY_FOLDER)
    return Benchmark(query, gallery, f"Market-1501 layout in {folder}")


def _find(root: Path) -> Path:
    folders = dataset_folders(root, MARKET1501_ROOTS, _is_benchmark)
    if not folders:
        candidates = ", ".join(str(root / name) for name in MARKET1501_ROOTS)
        raise ValueError(
            f"no {QUERY_FOLDER}/ beside a {GALLERY_FOLDER}/ in any of {candidates}; give the folder that holds them"
        )
    return folders[0]


def _is_benchmark(folder: Path) -> bool:
    return (folder / QUERY_FOLDER).is_dir() and (folder / GALLERY_FOLDER).is_dir()
