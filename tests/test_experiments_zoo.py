"""Tables 1, 2, 3 and 6: planning, sharing and resuming of fine-tuning runs, and the paper's scores."""

import json

import pytest
from absl import flags

from cion_jax.configs import finetune, finetune_clusters
from cion_jax.experiments import refuse_unused_flags
from cion_jax.models import list_models
from cion_jax.pipeline.experiments import finetuning, zoo
from cion_jax.pipeline.experiments.paper import reported
from tests import tiny_market


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return {name: tiny_market.write(tmp_path_factory.mktemp(name)) for name in finetune.DATASETS}


@pytest.fixture
def trained(monkeypatch):
    """Runs so far, as (folder, start); the paper's recipes with small batches, and training that only scores."""
    done = []

    def small(module, group, per_group):
        def get_config(recipe):
            config = module.get_config(recipe)
            config[group].update({"batch_size": 16, per_group: 2})
            config.data.dataset, config.data.split = "market1501", None
            return config

        return get_config

    def fake(config, samples, folder, *, benchmark):
        assert benchmark is not None and len(samples.table) == 48
        done.append(("/".join(folder.parts[-3:]), config.weights))
        scores = {"mAP": 0.5 + config.seed / 10, "rank1": 0.7, "rank5": 0.8, "rank10": 0.9, "mINP": 0.3}
        return {"last": scores}

    clusters = small(finetune_clusters, "cluster_contrast", "images_per_cluster")
    supervised = small(finetune, "supervised", "images_per_identity")
    monkeypatch.setattr(zoo, "_CONFIGS", {"supervised": supervised, "usl": clusters, "uda": clusters})
    monkeypatch.setattr(finetuning, "fine_tune", fake)
    return done


def run(which, tmp_path, datasets, *, models="*", seeds=(0,)):
    weights = tmp_path / "zoo"
    weights.mkdir(exist_ok=True)
    for name in ("ResNet50_IBN.pth", "vit_small.pth"):
        (weights / name).touch()
    return zoo.run_zoo_table(which, tmp_path, weights=weights, datasets=datasets, models=models, seeds=seeds)


def test_rows_are_shared_skipped_when_complete_and_scored_beside_the_paper(trained, datasets, tmp_path):
    text = run("table2", tmp_path, datasets, models="resnet*", seeds=(0, 1))
    zoo_file, folder = str(tmp_path / "zoo/ResNet50_IBN.pth"), "resnet50_ibn/{}/seed{}"
    assert trained[:4] == [
        (folder.format("supervised-msmt17", 0), zoo_file),
        (folder.format("uda-market1501", 0), str(tmp_path / folder.format("supervised-msmt17", 0) / "last.pth")),
        (folder.format("supervised-msmt17", 1), zoo_file),
        (folder.format("uda-market1501", 1), str(tmp_path / folder.format("supervised-msmt17", 1) / "last.pth")),
    ]
    assert len(trained) == len(set(trained)) == 12  # uda, usl and supervised, two data sets, two seeds
    # the interval of 50 and 60 %: t(1) s / sqrt(2) = 12.7062 * 7.0711 / 1.4142
    assert "| resnet50_ibn | uda | 55.0 ± 63.5 % | 70.0 ± 0.0 % | 92.1 / 96.5 |" in text
    assert (tmp_path / "table2.md").read_text() == text
    entry = json.loads((tmp_path / "table2.json").read_text())["scores"][-1]
    assert (entry["setting"], entry["dataset"], entry["paper"]) == ("usl", "msmt17", [59.4, 82.4])
    assert run("table2", tmp_path, datasets, models="resnet*", seeds=(0, 1)) == text and len(trained) == 12
    with pytest.raises(ValueError, match="was made with another config"):
        run("table2", tmp_path, datasets | {"market1501": datasets["msmt17"]}, models="resnet*", seeds=(0, 1))


def test_errors_come_before_any_training(trained, datasets, tmp_path):
    with pytest.raises(ValueError, match=r"has no weights .* matches 'swin_tiny'"):
        run("table3", tmp_path, datasets, models="swin_tiny")
    with pytest.raises(ValueError, match="domain adaptation to market1501 starts from msmt17"):
        run("table6", tmp_path, {"market1501": datasets["market1501"]})
    with pytest.raises(ValueError, match="no bounding_box_train"):
        run("table2", tmp_path, datasets | {"msmt17": tmp_path})
    assert not trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--which=table1", "--finetune=mgn"], "table1 does not use --finetune, only table4, fig5, fig6, fig7 do"),
        (["--which=fig5", "--weights=ZOO", "--models=vit*"], "fig5 does not use --weights, --models, only table1"),
        (["--which=table3", "--weights=ZOO", "--data=market1501=DIR"], None),
        (["--which=table4", "--finetune=mgn"], None),
    ],
)
def test_flags_of_other_tables_are_refused(arguments, message):
    values = flags.FlagValues()
    for name in ("which", "finetune", "config", "weights", "models"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_multi_string("data", [], "", flag_values=values)
    values(["experiments", *arguments])
    if message is None:
        refuse_unused_flags(values)
        return
    with pytest.raises(ValueError, match=message):
        refuse_unused_flags(values)


def test_every_row_of_the_paper_has_a_recipe_and_every_model_is_in_table_3():
    for table in zoo.TABLES.values():
        for model, setting in table.rows:
            for dataset in finetune.DATASETS:
                assert zoo._CONFIGS[setting](f"{dataset}/{model}").model == model
    supervised = [model for model, setting in zoo.TABLES["table3"].rows if setting == "supervised"]
    assert sorted(supervised) == sorted(name for name in list_models() if not name.endswith("test"))


def test_scores_of_the_paper():
    assert reported("resnet50_ibn", "mgn", "msmt17") == (74.3, 89.8)  # Table 4
    assert reported("vit_small", "uda", "msmt17") == (58.0, 79.9)  # Table 2
    assert reported("resnet152_ibn", "usl", "market1501") == (94.3, 97.1)  # Table 6
    assert reported("ghostnet_0_5", "supervised", "market1501") == (81.0, 92.0)  # Table 3
    assert reported("swin_tiny", "usl", "market1501") is None
