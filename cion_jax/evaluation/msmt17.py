"""MSMT17 benchmark (Wei et al., CVPR 2018), in each layout in circulation.

Lists:          `list_query.txt` and `list_gallery.txt` with lines `0000/0000_000_01_0303morning_0008_0.jpg 0`: the path
                below an image folder and the identity; the camera is the third number of the file name. The folder
                is `test/` (V1, and the copies that CION's fine-tuning reads) or `mask_test_v2/` (V2, faces masked:
                scores on it are not comparable with V1).
Market-1501's:  `query/`, `bounding_box_test/` with names like `0000_c12_0033.jpg`.

Training and test identities are both numbered from 0: equal numbers are different people.
"""

import os
from pathlib import Path

from cion_jax.evaluation.benchmark import (
    GALLERY_FOLDER,
    QUERY_FOLDER,
    Benchmark,
    LabelledImages,
    in_folder,
    read_named_folder,
)
from cion_jax.samples.layouts import MSMT17_ROOTS, dataset_folders, image_folder, read_list

_QUERY_LIST, _GALLERY_LIST = "list_query.txt", "list_gallery.txt"
_MASKED = "mask_test_v2"
_TEST_FOLDERS = ("test", _MASKED)


def read_msmt17(root: str | os.PathLike) -> Benchmark:
    """Reads queries and gallery in `root`, or in `MSMT17_V1`, `MSMT17_V2`, `MSMT17` or `msmt17` below it.

    Raises:
        ValueError: no copy or more than one, a malformed line in a list, or a listed image that is not on disk.
    """
    folder = _find(Path(root))
    if not _has_lists(folder):
        query, gallery = read_named_folder(folder / QUERY_FOLDER), read_named_folder(folder / GALLERY_FOLDER)
        return Benchmark(query, gallery, f"MSMT17 in Market-1501 layout in {folder}")
    images = image_folder(folder, _TEST_FOLDERS)
    version = "V2, faces masked" if images.name == _MASKED else "as V1"
    query, gallery = _listed(folder / _QUERY_LIST, images), _listed(folder / _GALLERY_LIST, images)
    return Benchmark(query, gallery, f"MSMT17 by its lists in {folder}, images in {images.name}/ ({version})")


def _has_lists(folder: Path) -> bool:
    return (folder / _QUERY_LIST).is_file() or (folder / _GALLERY_LIST).is_file()


def _is_benchmark(folder: Path) -> bool:
    return _has_lists(folder) or (folder / GALLERY_FOLDER).is_dir()


def _find(root: Path) -> Path:
    folders = dataset_folders(root, MSMT17_ROOTS, _is_benchmark)
    if len(folders) == 1:
        return folders[0]
    if folders:
        raise ValueError(
            f"{len(folders)} copies of MSMT17: {', '.join(map(str, folders))}; scores on them need not compare, give "
            "the folder of one"
        )
    raise ValueError(
        f"no MSMT17 in any of {', '.join(str(root / name) for name in MSMT17_ROOTS)}: expected {_QUERY_LIST} and "
        f"{_GALLERY_LIST} beside {' or '.join(f'{name}/' for name in _TEST_FOLDERS)}, or {QUERY_FOLDER}/ beside "
        f"{GALLERY_FOLDER}/"
    )


def _listed(file: Path, images: Path) -> LabelledImages:
    """The images of a list, in its order; all of them exist."""
    listed = read_list(file)
    missing = [name for name in listed.names if not (images / name).is_file()]
    if missing:
        raise ValueError(
            f"{file}: {len(missing)} of its {len(listed.names)} images are not in {images}; the first is {missing[0]}"
        )
    return in_folder(images, listed)
