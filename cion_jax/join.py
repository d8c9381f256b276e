"""Joins the feature files of `cion_jax.extract --shard=i/n` into one, as a single call would have written it.

    python -m cion_jax.join --out=F.npy [--nocopy]

F.npy is the --out that `extract` was given. The parts are kept and may be removed afterwards. With --nocopy they are
still needed: only the table and the description are written, and `correlate` reads the features from the parts.
"""

from absl import flags

from cion_jax.features.joining import join
from cion_jax.runtime.commands import run
from cion_jax.runtime.progress import progress


def main(argv: list[str]) -> None:
    del argv
    out, copy = flags.FLAGS.out, flags.FLAGS.copy
    whole = join(out, copy=copy, progress=progress)
    parts = "its parts may be removed" if copy else "its parts are read in its place"
    print(f"{out}: {whole['rows']} rows, {whole['dim']} dimensions, {whole['dtype']}; {parts}")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Feature file to write (.npy): the --out that extract was given.", required=True)
    flags.DEFINE_bool("copy", True, "Copy the features into F.npy.")
    run(main)
