"""Checks a sample table and decodes every image in it; prints a report and writes it as JSON with --out.

    python -m cion_jax.samples.doctor --samples=S --images=DIR [--out=report.json]

Exit status: 0 if no problem was found, 1 if there are problems, 2 if the table cannot be read.
"""

import sys

from absl import flags

from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json
from cion_jax.runtime.progress import progress
from cion_jax.samples.examination import examine, in_lines
from cion_jax.samples.formats import read_samples


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    report = examine(read_samples(values.samples or values.images), values.images, progress=progress)
    print("\n".join(in_lines(report)))
    if values.out:
        write_json(values.out, {"samples": values.samples, "root": values.images} | report)
    if report["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("samples", None, "Sample table (.parquet, .json, .jsonl or .csv). Default: all of --images.")
    flags.DEFINE_string("images", None, "Folder of images, packed store or LMDB.", required=True)
    flags.DEFINE_string("out", None, "Report to write (.json).")
    run(main)
