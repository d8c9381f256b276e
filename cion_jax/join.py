"""Joins the feature files of `cion_jax.extract --shard=i/n` into one, as a single call would have written it.

    python -m cion_jax.join --out=F.npy

F.npy is the --out that `extract` was given. The parts are kept and may be removed afterwards.
"""

from absl import flags

from cion_jax.features.joining import join
from cion_jax.runtime.commands import run
from cion_jax.runtime.progress import progress


def main(argv: list[str]) -> None:
    del argv
    out = flags.FLAGS.out
    whole = join(out, progress=progress)
    print(f"{out}: {whole['rows']} rows, {whole['dim']} dimensions, {whole['dtype']}; its parts may be removed")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Feature file to write (.npy): the --out that extract was given.", required=True)
    run(main)
