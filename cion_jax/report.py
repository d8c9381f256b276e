"""Writes the report of a run of `cion_jax.main` again, however far the run has come: one page, `report.html`.

python -m cion_jax.report --workdir=DIR
"""

from pathlib import Path

from absl import flags
from rich.console import Console

from cion_jax.pipeline.report_page import write_page
from cion_jax.pipeline.run_report import reopened
from cion_jax.runtime.commands import run


def main(argv: list[str]) -> None:
    del argv
    Console().print(f"Written: {write_page(reopened(Path(flags.FLAGS.workdir)))}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of a run of cion_jax.main.", required=True)
    run(main)
