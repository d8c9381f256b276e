r"""Reads a data set on disk into a sample table.

    python -m cion_jax.samples.read --layout=market1501 --root=DIR --out=samples.parquet
    python -m cion_jax.samples.read --layout=msmt17 --root=DIR --split=train+val --out=samples.parquet
    python -m cion_jax.samples.read --layout=mot --root=MOT20/train --tracks=gt --crops=CROPS --out=samples.parquet
    python -m cion_jax.samples.read --layout=tracklets --root=DIR --frame='_f(\d+)' --out=samples.parquet

`file_path` is relative to --crops if given, else to --root: pass the same folder as --images to the other commands.
Names and annotations are checked against the published layout; `python -m cion_jax.samples.doctor` checks the images.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cion_jax.runtime.commands import run
from cion_jax.samples.contents import contents, in_words
from cion_jax.samples.formats import write_samples
from cion_jax.samples.readers import READERS, read_dataset

_OPTIONS = ("classes", "crops", "first_frame", "frame", "split", "tracks")


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    if Path(values.out).suffix.lower() != ".parquet":  # fail before hours of cutting crops
        raise ValueError(f"--out={values.out}: a sample table is written as Parquet, give a name that ends in .parquet")
    options = {name: value for name in _OPTIONS if (value := values[name].value) is not None}
    if values.classes is not None:
        options["classes"] = _integers("classes", values.classes)
    reading = read_dataset(values.layout, values.root, **options)
    write_samples(reading.samples, values.out)
    for reason, count in reading.left_out.items():
        print(f"Left out: {count:,} {reason}.")
    print(f"{values.out}: {in_words(contents(reading.samples))}; the image folder is {values.crops or values.root}")


def _integers(flag: str, texts: Sequence[str]) -> list[int]:
    if not texts or not all(re.fullmatch("[0-9]{1,9}", text.strip()) for text in texts):
        raise ValueError(f"--{flag}={','.join(texts)}: expected integers with commas between them, such as 1,2")
    return [int(text) for text in texts]


if __name__ == "__main__":
    flags.DEFINE_enum("layout", None, sorted(READERS), "The data set, as it is published.", required=True)
    flags.DEFINE_string("root", None, "Its folder.", required=True)
    flags.DEFINE_string("out", None, "Sample table to write (.parquet).", required=True)
    flags.DEFINE_string("split", None, "msmt17: train, or train+val.")
    flags.DEFINE_string("tracks", None, "mot: gt, det, or a folder (or file) of a tracker's results.")
    flags.DEFINE_list("classes", None, "mot: classes that are people, as 1,2; needed where boxes have classes.")
    flags.DEFINE_integer(
        "first_frame", None, "mot: number of the first frame in files of boxes, 0 or 1; default 1.", 0, 1
    )
    flags.DEFINE_string("crops", None, "mot and lupersonnl's videos: folder that crops are written to.")
    flags.DEFINE_string("frame", None, r"tracklets: regular expression of the frame number in a name, as 'f(\d+)'.")
    run(main)
