"""Data sets with a JSON list of `id` and `file_path`: CION-AL and SYNTH-PEDES."""

from pathlib import Path

from cion_jax.samples.formats import read_samples
from cion_jax.samples.readers.reading import Reading
from cion_jax.samples.stores.sources import check_images


def read_cional(root: Path) -> Reading:
    """CION-AL: `cional_annos.json`, in `root` or beside it, and the folders sec0 to sec129 in `root`."""
    return _read(root, "cional_annos.json")


def read_synthpedes(root: Path) -> Reading:
    """SYNTH-PEDES: `synthpedes_dataset.json`, in `root` or beside it, and the folders Part1 to Part11 in `root`.

    Captions and attributes are ignored: a sample table has no columns for them.
    """
    return _read(root, "synthpedes_dataset.json")


def _read(root: Path, name: str) -> Reading:
    files = [folder / name for folder in (root, root.resolve().parent)]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        raise ValueError(f"{root}: no {name} in this folder or beside it; give the folder that file_path is in")
    table = read_samples(file)
    if "identity" not in table.columns:
        raise ValueError(f"{file}: its objects have no key 'id'; expected a list of objects with id and file_path")
    check_images(table, root)
    return Reading(table)
