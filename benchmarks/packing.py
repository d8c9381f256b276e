"""Times packing of crops and reading them back: python -m benchmarks.packing [--images=1000000] [--folder=DIR]

Packs made-up JPEG crops of 256x128, each with bytes of its own; verifies the store; reads crops of it in shuffled
order on one thread, each compared with what was packed; and decodes them on one thread, which is what reading must
keep ahead of. The store goes into `--folder` and is removed afterwards: 11 GB for a million. Reads come from the page
cache as far as it reaches.
"""

import functools
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.memory import PeakMemory, anonymous_bytes
from cion_jax.samples.images import decode_image
from cion_jax.samples.stores.packed import PackedImages, damaged_shards, pack

SIZE = (256, 128)
PICTURES = 64


@functools.cache
def picture(index: int) -> bytes:
    """A JPEG file of quality 90 with as much detail as a photograph has at this size."""
    generator = np.random.default_rng(index)
    coarse = Image.fromarray(generator.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def crop(path: str) -> bytes:
    """The file of this name; decoders ignore what follows the end of a JPEG."""
    return picture(int(path) % PICTURES) + path.encode()


def main(argv: list[str]) -> None:
    del argv
    count = flags.FLAGS.images
    paths = [f"{index:09d}" for index in range(count)]
    with tempfile.TemporaryDirectory(dir=flags.FLAGS.folder) as folder:
        before, memory = anonymous_bytes(), PeakMemory()
        rates = {"packed, read back and compared by SHA-256": _rate(count, lambda: pack(paths, crop, folder))}
        rates["verified once more"] = _rate(count, lambda: _verify(folder))
        images = PackedImages(folder)
        shuffled = [paths[index] for index in np.random.default_rng(0).permutation(count)[:100_000]]
        rates["read in shuffled order, one thread"] = _rate(len(shuffled), lambda: _read(images, shuffled))
        memory.running = False
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / count
    decoded = [crop(path) for path in shuffled[:10_000]]
    rates["decoded, one thread"] = _rate(len(decoded), lambda: [decode_image(data, name="") for data in decoded])
    print(f"{count:,} crops of {size / 1e3:.1f} kB; peak anonymous memory {memory.peak / 2**20:.0f} MiB "
          f"({before / 2**20:.0f} before)\n\n| crops | a second | MB/s |\n| --- | --- | --- |")  # fmt: skip
    print("\n".join(f"| {what} | {rate:,.0f} | {rate * size / 1e6:.0f} |" for what, rate in rates.items()))


def _rate(count: int, function) -> float:
    started = time.perf_counter()
    function()
    return count / (time.perf_counter() - started)


def _verify(folder: str) -> None:
    if damaged := damaged_shards(folder):
        raise ValueError(f"{len(damaged)} shards differ from what was packed, {damaged[0]} first")


def _read(images: PackedImages, paths: list[str]) -> None:
    for path in paths:
        if images.read(path) != crop(path):
            raise ValueError(f"{path} differs from what was packed")


if __name__ == "__main__":
    flags.DEFINE_integer("images", 1_000_000, "Crops to pack.", lower_bound=10_000)
    flags.DEFINE_string("folder", None, "Where the store is made; the system's temporary folder otherwise.")
    app.run(main)
