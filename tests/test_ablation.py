"""The rows of configs/ablation.py: valid configs of the pipeline that train on the identities they name."""

import itertools

import numpy as np
import pytest

from cion_jax.configs import ablation, base
from cion_jax.correlation import correlate
from cion_jax.distillation import groupings
from cion_jax.distillation.groupings import grouped, share_of_identities
from cion_jax.distillation.train import plan
from cion_jax.pipeline.stages import STAGES
from cion_jax.samples import SampleTable

# 24 tracklets of 50 crops in four videos.
TRACKLET = np.repeat(np.arange(24), 50)
CROPS = SampleTable.from_columns(
    file_path=[f"{row}.jpg" for row in range(len(TRACKLET))],
    video=[f"v{tracklet % 4}" for tracklet in TRACKLET],
    tracklet=TRACKLET,
    identity=TRACKLET // 2,
)


def flat(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("row", ablation.ROWS)
def test_a_row_differs_from_the_recipe_only_in_what_it_ablates(row):
    config = ablation.get_config(row)
    recipe = dict(flat(base.get_config()))
    changed = {key for key, value in flat(config) if value != recipe.get(key)}
    allowed = {"model", "stages", "correlate.levels", "pretrain.group_by", "pretrain.data_ratio"}
    if row in ("moco", "instance"):
        allowed |= {"pretrain.curriculum.stage_epochs", "pretrain.curriculum.images_per_identity"}
    if row == "moco":
        allowed |= {"pretrain.objective", *(f"pretrain.views.{name}" for name in ablation.LUP_VIEWS)}
    assert changed <= allowed
    assert set(config.stages) <= set(STAGES)


@pytest.mark.parametrize(
    ("row", "groups"),
    [("moco", 1200), ("instance", 1200), ("tracklet", 24), ("identity", 12), ("data50", 6), ("data10", 1)],
)
def test_a_row_trains_on_its_identities(row, groups):
    config = ablation.get_config(row)
    config.pretrain.batch_size = 24
    (by,) = config.pretrain.group_by
    table = share_of_identities(grouped(CROPS, by), config.pretrain.data_ratio, seed=0)
    identities = table["identity"]
    assert len(set(identities[identities >= 0])) == groups
    stages = plan(config, identities, devices=1).stages
    assert [stage.images_per_identity for stage in stages] == ([1] if row in ("moco", "instance") else [2, 4, 6, 8])


def test_smaller_shares_are_part_of_larger_ones_and_keep_identities_whole():
    tables = [share_of_identities(CROPS, percent / 100, seed=3)["identity"] for percent in range(10, 101, 10)]
    for smaller, larger in itertools.pairwise(tables):
        assert set(smaller) <= set(larger) | {-1}
    for identities in tables:
        assert set(np.unique(identities[identities >= 0], return_counts=True)[1]) == {100}
    np.testing.assert_array_equal(tables[-1], CROPS["identity"])


def test_level_zero_is_the_tracklets():
    features = np.random.default_rng(0).normal(size=(len(CROPS), 8)).astype(np.float32)
    level = ablation.get_config("level0").correlate.levels
    found = correlate(features, CROPS.videos, CROPS.tracklets, levels=level)
    np.testing.assert_array_equal(found.identities, grouped(CROPS, "tracklet")["identity"])


def test_wrong_rows_and_ratios_are_named():
    with pytest.raises(ValueError, match="choose from moco, instance, tracklet"):
        ablation.get_config("video")
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        share_of_identities(CROPS, 0.0, seed=0)


def test_a_run_is_done_when_the_card_of_its_weights_is_there_too(tmp_path, monkeypatch):
    config, begun = base.get_config(), []
    config.pretrain.group_by = ("tracklet", "identity")
    for name in ("tracklet/teacher.pth", "identity/teacher.pth", "identity/teacher.pth.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(groupings, "pretrain", lambda config, table, images, workdir: begun.append(workdir.name))
    groupings.pretrain_groupings(config, CROPS, tmp_path, tmp_path)
    assert begun == ["tracklet"]
