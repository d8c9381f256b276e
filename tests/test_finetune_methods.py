"""Every method as a whole run: scores, devices, weights, resuming within an epoch."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from cion_jax.configs import finetune, finetune_clusters, finetune_mgn
from cion_jax.conversion import state_dict
from cion_jax.finetuning import train
from cion_jax.finetuning.data import read_benchmark, read_training
from cion_jax.finetuning.methods import create_method
from cion_jax.finetuning.weights import create_backbone, load_network, start_backbone
from cion_jax.runtime.checkpoints import read_checkpoint
from cion_jax.runtime.files import read_json
from cion_jax.runtime.mesh import make_mesh
from cion_jax.runtime.metrics import read_metrics
from tests import processes, tiny_market

CONFIGS = {"supervised": finetune, "mgn": finetune_mgn, "cluster_contrast": finetune_clusters}


def get_config(method="cluster_contrast"):
    """Three epochs of a few steps."""
    config = CONFIGS[method].get_config("market1501/resnet_test")
    config.from_scratch = True
    config.compute_dtype, config.canvas, config.loader_threads, config.log_every = "float32", (40, 20), 1, 1
    config.checkpoint.every_steps = 1
    settings = config[method]
    settings.update(epochs=3, batch_size=16, size=(48, 16))
    settings.augmentation.pad = 2
    if method == "supervised":
        settings.images_per_identity = 2
        settings.optimizer.update(warmup_epochs=1, learning_rate=0.02)
    elif method == "mgn":
        settings.images_per_identity = 2
        settings.optimizer.update(warmup_epochs=1, constant_until_epoch=2, frozen_epochs=1)
    else:
        settings.update(steps_per_epoch=3, images_per_cluster=2, extract_batch_size=16)
        settings.clustering.update(k1=8, k2=3, min_samples=2)
    config.evaluate.update(batch_size=16, every_epochs=2 if method == "supervised" else 0)
    return config


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return tiny_market.write(tmp_path_factory.mktemp("market"))


def run(config, market, workdir, devices=1):
    config.data.root = str(market)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda: make_mesh(jax.devices()[:devices]))
        return train.fine_tune(config, read_training(config), workdir, benchmark=read_benchmark(config))


@pytest.fixture(scope="module", params=CONFIGS)
def finished(request, market, tmp_path_factory):
    """A method's name, and the folder and the reports of a run of it on one device."""
    workdir = tmp_path_factory.mktemp(request.param)
    return request.param, workdir, run(get_config(request.param), market, workdir)


@pytest.mark.slow
def test_runs_leave_scores_and_weights_that_the_released_code_and_this_package_read(finished):
    method, workdir, reports = finished
    assert 0 < reports["last"]["mAP"] <= 1
    content = torch.load(workdir / "last.pth", weights_only=True)
    section, start = {"supervised": (None, "base.conv1.weight"), "mgn": ("model", "backbone.0.weight")}.get(
        method, ("state_dict", "module.base.0.weight")
    )
    tensors = content if section is None else content[section]
    assert (section is None or len(content) == 1) and start in tensors
    loaded = load_network("resnet_test", workdir / "last.pth")
    for key, value in state_dict(loaded.network).items():
        if key.endswith("classifier.weight"):
            np.testing.assert_array_equal(tensors[key], value)
    settings = get_config(method)[method]
    assert loaded.preprocessing == (settings.size, settings.mean, settings.std)
    (workdir / "last.pth.json").rename(workdir / "card")  # the released files have none
    size = load_network("resnet_test", workdir / "last.pth").preprocessing.size
    (workdir / "card").rename(workdir / "last.pth.json")
    assert size == ((384, 128) if method == "mgn" else (256, 128))
    checkpoint, _ = read_checkpoint(workdir / "checkpoints")
    saved = {jnp.shape(x) for x in jax.tree.leaves(checkpoint["params"])}
    assert {x.shape for x in jax.tree.leaves(nnx.state(loaded.network, nnx.Param))} <= saved


@pytest.mark.slow
def test_cards_have_the_scores_and_the_best_epoch_is_kept_where_epochs_are_scored(finished):
    method, workdir, reports = finished
    card, settings = read_json(workdir / "last.pth.json"), get_config(method)[method]
    assert card["evaluation"] == reports["last"] and reports["last"]["epoch"] == 3
    assert card["mean"] == list(settings.mean) and card["input_size"] == [48, 16]
    assert (workdir / "best.pth").exists() == ("best" in reports) == (method == "supervised")
    if method == "supervised":
        (scored,) = read_metrics(workdir / "epochs.jsonl")
        assert scored["step"] == 6 and reports["best"]["mAP"] == max(scored["mAP"], reports["last"]["mAP"])


@pytest.mark.slow
def test_training_starts_from_the_backbone_of_a_cluster_encoder_but_not_from_parts(finished):
    method, workdir, _ = finished
    backbone = create_backbone("resnet_test")
    if method == "mgn":
        with pytest.raises(ValueError, match="can't start from the parts of a fastreid network"):
            start_backbone(backbone, workdir / "last.pth")
        return
    kind = {"supervised": "transreid", "cluster_contrast": "cluster-contrast"}[method]
    assert start_backbone(backbone, workdir / "last.pth") == f"backbone of a {kind} network"
    whole = state_dict(load_network("resnet_test", workdir / "last.pth").network)
    for key, value in state_dict(backbone).items():
        np.testing.assert_array_equal(whole[f"base.{key}"], value)


@pytest.mark.slow
def test_metrics_of_steps_and_of_clusters(finished):
    method, workdir, _ = finished
    log = read_metrics(workdir / "metrics.jsonl")
    assert len(log) == 9 and all(np.isfinite(line["loss"]) for line in log)
    if method != "cluster_contrast":
        np.testing.assert_allclose(log[0]["identity_loss"] + log[0]["triplet_loss"], log[0]["loss"], rtol=1e-5)
        return
    epochs = read_metrics(workdir / "epochs.jsonl")
    assert [line["step"] for line in epochs] == [0, 3, 6]
    for line in epochs:
        assert 2 <= line["clusters"] <= 24 and 0 <= line["outliers"] < 48
        assert 0 < line["pair_precision"] <= 1 and 0 < line["pair_recall"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_devices_agree(finished, market, tmp_path, devices):
    method, workdir, _ = finished
    if method == "mgn" and devices == 2:
        pytest.skip("eight heads take long to compile; on eight devices every one has its own identity")
    run(get_config(method), market, tmp_path, devices=devices)
    one, several = (read_metrics(folder / "metrics.jsonl") for folder in (workdir, tmp_path))
    for name in (name for name in one[0] if name.endswith("loss")):
        np.testing.assert_allclose(several[0][name], one[0][name], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(several[3][name], one[3][name], rtol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["supervised", "cluster_contrast"])
def test_killed_within_an_epoch_a_run_ends_as_an_undisturbed_one(method, market, tmp_path):
    def command(name):
        config = [f"--config=tests/test_finetune_methods.py:{method}", f"--config.data.root={market}"]
        return ["-m", "cion_jax.finetune", *config, f"--workdir={tmp_path / name}", f"--compile_cache={tmp_path / 'c'}"]

    processes.run(1, tmp_path / "logs", *command("whole"))
    (process,) = processes.start(1, tmp_path / "logs", *command("broken"))
    while not any((tmp_path / "broken/checkpoints" / str(step)).exists() for step in (4, 5)):  # of the second epoch
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "broken/last.pth").exists()
    (log,) = processes.run(1, tmp_path / "logs", *command("broken"))
    assert "Continuing from step" in log
    whole, broken = (torch.load(tmp_path / name / "last.pth", weights_only=True) for name in ("whole", "broken"))
    for key, value in whole.get("state_dict", whole).items():
        assert torch.equal(broken.get("state_dict", broken)[key], value), key
    runs = [read_metrics(tmp_path / name / "epochs.jsonl") for name in ("whole", "broken")]
    assert runs[0] == runs[1]


def test_a_method_without_settings_in_the_config_is_refused():
    config = get_config("supervised")
    config.method = "mgn"
    with pytest.raises(ValueError, match=r"settings of 'supervised' only; take --config=configs/finetune/mgn.py"):
        create_method(config)
