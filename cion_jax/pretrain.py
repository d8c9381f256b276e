"""Identity-guided self-distillation: `python -m cion_jax.pretrain --config=configs/resnet50_ibn.py --workdir=W`."""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from cion_jax.conversion.card import card_path
from cion_jax.distillation.train import pretrain
from cion_jax.runtime.commands import run
from cion_jax.runtime.config import Config
from cion_jax.samples import SampleTable, check_images, read_samples

GROUPINGS = ("identity", "tracklet", "image", "person")


def grouped(table: SampleTable, by: str) -> SampleTable:
    """The table with `identity` set to what training takes for one identity.

    `by` is "identity" (the column as it is), "tracklet" (Fig. 1b of the paper), "image" (Fig. 1a: every image by
    itself, which is DINO) or "person" (the truth, where it is known; -1, no person, is not used).
    """
    if by not in GROUPINGS:
        raise ValueError(f"pretrain.group_by {by!r} is unknown; choose from {', '.join(GROUPINGS)}")
    if by == "image":
        return table.with_columns(identity=np.arange(len(table)))
    if by == "tracklet":
        return table.with_columns(identity=table.tracklets.astype(np.int64))
    if by not in table.columns:
        raise ValueError(f"the sample table has no {by!r} column, which pretrain.group_by={by!r} needs")
    return table.with_columns(identity=table[by])


def share_of_identities(table: SampleTable, ratio: float, seed: int) -> SampleTable:
    """The table with only a share `ratio` of its identities, drawn by `seed`; the others are set to -1, not used.

    Identities are kept whole, and those of a smaller ratio are among those of a larger one (Fig. 6 of the paper).
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"pretrain.data_ratio must be above 0 and at most 1 (all identities), got {ratio}")
    used = np.unique(table["identity"])
    drawn = np.random.default_rng(seed).permutation(used[used >= 0])
    kept = np.isin(table["identity"], drawn[: round(ratio * len(drawn))])
    return table.with_columns(identity=np.where(kept, table["identity"], -1))


def trained_on(config: Config, table: SampleTable, by: str) -> SampleTable:
    """The table that the run of one grouping gets: what it does not use has identity -1."""
    return share_of_identities(grouped(table, by), config.pretrain.data_ratio, config.seed)


def pretrain_groupings(config: Config, table: SampleTable, images: Path, workdir: Path) -> None:
    """One run in `workdir/<grouping>` for each of `config.pretrain.group_by`; finished ones are left alone."""
    tables = {by: trained_on(config, table, by) for by in config.pretrain.group_by}
    for by, samples in tables.items():
        if not card_path(workdir / by / "teacher.pth").exists():  # what a run writes last
            pretrain(config, samples, images, workdir / by)


def main(argv: list[str]) -> None:
    del argv
    config, workdir = flags.FLAGS.config, Path(flags.FLAGS.workdir)
    for name in ("samples", "images"):
        if not config.data[name]:
            raise ValueError(f"no training data: give --config.data.{name} (see docs/data.md)")
    table = read_samples(config.data.samples)
    check_images(table, config.data.images)
    pretrain_groupings(config, table, Path(config.data.images), workdir)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.mark_flag_as_required("config")
    run(main, shares_work=True)
