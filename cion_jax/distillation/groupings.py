"""Identities for training: the rows of Fig. 1 (image, tracklet, identity), and the data ratio of Fig. 6."""

from pathlib import Path

import numpy as np

from cion_jax.conversion.card import card_path
from cion_jax.distillation.train import pretrain
from cion_jax.runtime.config import Config
from cion_jax.samples import SampleTable

GROUPINGS = ("identity", "tracklet", "image", "person")


def grouped(table: SampleTable, by: str) -> SampleTable:
    """The table with `identity` set to the grouping that training uses.

    `by` is "identity" (the column unchanged), "tracklet" (Fig. 1b of the paper), "image" (Fig. 1a: each image is its
    own identity, which is DINO) or "person" (ground truth where known; rows of -1, no person, are not used).

    Raises:
        ValueError: an unknown grouping, or a table without the column it needs.
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


def trainable(table: SampleTable) -> SampleTable:
    """The rows whose identity has several images, which a loss over pairs of them needs.

    Raises:
        ValueError: fewer than two identities have several images.
    """
    identities = table["identity"]
    present, counts = np.unique(identities[identities >= 0], return_counts=True)
    if np.count_nonzero(counts > 1) < 2:
        raise ValueError(
            f"{np.count_nonzero(counts > 1)} of {len(present)} identities have several images; training needs at least "
            "two that do"
        )
    return table.select(np.isin(identities, present[counts > 1]))


def share_of_identities(table: SampleTable, ratio: float, seed: int) -> SampleTable:
    """The table with a random fraction `ratio` of its identities; the others are set to -1, not used.

    Identities are kept whole. For one seed, the identities of a smaller ratio are a subset of those of a larger one
    (Fig. 6 of the paper).
    """
    if not 0 < ratio <= 1:
        raise ValueError(
            f"data_ratio (or identities_ratio) must be above 0 and at most 1 (all identities), got {ratio}"
        )
    used = np.unique(table["identity"])
    drawn = np.random.default_rng(seed).permutation(used[used >= 0])
    kept = np.isin(table["identity"], drawn[: round(ratio * len(drawn))])
    return table.with_columns(identity=np.where(kept, table["identity"], -1))


def trained_on(config: Config, table: SampleTable, by: str) -> SampleTable:
    """The training table of one grouping; rows that are not used have identity -1."""
    return share_of_identities(grouped(table, by), config.pretrain.data_ratio, config.seed)


def pretrain_groupings(config: Config, table: SampleTable, images: Path, workdir: Path) -> None:
    """Trains one run in `workdir/<grouping>` for each of `config.pretrain.group_by`, skipping finished ones."""
    tables = {by: trained_on(config, table, by) for by in config.pretrain.group_by}
    for by, samples in tables.items():
        if not card_path(workdir / by / "teacher.pth").exists():  # written last by a run
            pretrain(config, samples, images, workdir / by)
