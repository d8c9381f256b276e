r"""Reads a data set on disk into a sample table.

    python -m cion_jax.samples.read --layout=market1501 --root=DIR --out=samples.parquet
    python -m cion_jax.samples.read --layout=msmt17 --root=DIR --split=train+val --out=samples.parquet
    python -m cion_jax.samples.read --layout=mot --root=MOT20/train --tracks=gt --crops=CROPS --out=samples.parquet
    python -m cion_jax.samples.read --layout=tracklets --root=DIR --frame='_f(\d+)' --out=samples.parquet

`file_path` is relative to --crops if given, else to --root: pass the same folder as --images to the other commands.
Names and annotations are checked against the published layout; `python -m cion_jax.samples.doctor` checks the images.
"""

from pathlib import Path

from absl import flags

from cion_jax.runtime.commands import run
from cion_jax.samples.contents import contents, in_words
from cion_jax.samples.formats import write_samples
from cion_jax.samples.readers import READERS, read_dataset
from cion_jax.samples.track_flags import define_track_flags, track_options

_OPTIONS = ("crops", "frame", "split", "tracks")


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    if Path(values.out).suffix.lower() != ".parquet":  # fail before hours of cutting crops
        raise ValueError(f"--out={values.out}: a sample table is written as Parquet, give a name that ends in .parquet")
    options = {name: value for name in _OPTIONS if (value := values[name].value) is not None}
    reading = read_dataset(values.layout, values.root, **options, **track_options(values))
    write_samples(reading.samples, values.out)
    for reason, count in reading.left_out.items():
        print(f"Left out: {count:,} {reason}.")
    print(f"{values.out}: {in_words(contents(reading.samples))}; the image folder is {values.crops or values.root}")


if __name__ == "__main__":
    flags.DEFINE_enum("layout", None, sorted(READERS), "The data set, as it is published.", required=True)
    flags.DEFINE_string("root", None, "Its folder.", required=True)
    flags.DEFINE_string("out", None, "Sample table to write (.parquet).", required=True)
    flags.DEFINE_string("split", None, "msmt17: train, or train+val.")
    flags.DEFINE_string("tracks", None, "mot: gt, det, or a folder (or file) of a tracker's results.")
    define_track_flags()
    flags.DEFINE_string("crops", None, "mot and lupersonnl's videos: folder that crops are written to.")
    flags.DEFINE_string("frame", None, r"tracklets: regular expression of the frame number in a name, as 'f(\d+)'.")
    run(main)
