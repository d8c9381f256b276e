"""Sampler and augmentation of fine-tuning, and the data, weights and settings that it refuses before training."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from cion_jax.configs import finetune
from cion_jax.conversion import write_weights
from cion_jax.conversion.finetuned import write_finetuned
from cion_jax.distillation.erasing import Erasing, erased_box
from cion_jax.finetuning import train
from cion_jax.finetuning.augmentation import Augmentation, augment
from cion_jax.finetuning.data import read_benchmark, read_training
from cion_jax.finetuning.mgn_network import MGNNetwork
from cion_jax.finetuning.sampler import PKSampler, plan_epochs
from cion_jax.models import create_model
from cion_jax.runtime.checkpoints import Checkpoints
from cion_jax.samples import SampleTable, write_samples
from tests import tiny_market

LABELS = np.repeat(np.arange(7), [9, 8, 5, 4, 3, 2, 8])


def sampler(labels=LABELS, *, batch_size=12, k=4, epochs=3, seed=0):
    plan = plan_epochs(labels, batch_size=batch_size, images_per_identity=k, epochs=epochs, devices=1)
    return PKSampler(labels, plan, batch_size=batch_size, seed=seed)


def test_batches_hold_different_identities_with_k_images_each():
    ours = sampler()
    # groups of 4: 2, 2, 1, 1, 1, 1, 2; three batches of three different identities use nine of the ten
    assert len(ours) == 9
    for step in range(9):
        labels = LABELS[ours[step]]
        assert labels.shape == (3, 4) and (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 3
    for epoch in range(3):
        rows = np.concatenate([ours[step].ravel() for step in range(3 * epoch, 3 * epoch + 3)])
        large = rows[np.isin(LABELS[rows], np.flatnonzero(np.bincount(LABELS) >= 4))]
        assert len(set(large)) == len(large)  # an image at most once, unless its identity has fewer than four


def test_batches_depend_on_seed_and_step_only_and_leave_out_unused_rows():
    ours = [sampler()[step] for step in range(9)]
    again = sampler()
    np.testing.assert_array_equal([again[step] for step in reversed(range(9))][::-1], ours)
    other = sampler(seed=1)
    assert any((other[step] != ours[step]).any() for step in range(9))
    some = np.where(np.arange(len(LABELS)) % 2, LABELS, -1)
    drawn = sampler(some, k=2, batch_size=6)
    assert all((some[drawn[step]] >= 0).all() for step in range(len(drawn)))


def test_no_larger_number_of_batches_is_possible():
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = rng.integers(1, 40, 9)
        labels = np.repeat(np.arange(9), sizes)
        steps = plan_epochs(labels, batch_size=16, images_per_identity=4, epochs=1, devices=1).total_steps
        groups, batches = np.maximum(sizes // 4, 1), 0
        while (groups > 0).sum() >= 4:  # greedy: always the identities with most groups left
            groups[np.argsort(-groups, kind="stable")[:4]] -= 1
            batches += 1
        assert steps == batches


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (np.arange(8), {}, "none of the 8 identities has two images"),
        (np.full(8, -1), {}, "none of the 0 identities has two images"),
        (LABELS, {"batch_size": 32}, r"needs 8 identities, and the training table has 7.*at most 28"),
        (LABELS, {"batch_size": 10}, "use 8 or 12"),
        (LABELS, {"images_per_identity": 1}, "at least 2 images"),
    ],
)
def test_data_that_give_no_triplets_are_refused(labels, settings, message):
    with pytest.raises(ValueError, match=message):
        plan_epochs(labels, **{"batch_size": 12, "images_per_identity": 4, "epochs": 1, "devices": 1} | settings)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_resize_flip_pad_and_crop_are_those_of_pil():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (8, 5, 3), np.uint8)).resize((30, 50), Image.Resampling.BICUBIC)
    canvas = np.zeros((64, 40, 3), np.uint8)
    canvas[:50, :30] = np.asarray(smooth)
    settings = Augmentation(size=(32, 16), mean=(0, 0, 0), std=(1 / 255,) * 3, pad=3, erasing=Erasing(probability=0))
    views = augment(jnp.tile(canvas, (24, 1, 1, 1)), jnp.tile(jnp.asarray([50, 30]), (24, 1)), keys_of(24), settings)
    resized = smooth.resize((16, 32), Image.Resampling.BICUBIC)
    expected = {}
    for flipped in (False, True):
        padded = np.zeros((38, 22, 3))
        padded[3:-3, 3:-3] = np.asarray(resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else resized)
        for top, left in np.ndindex(7, 7):
            expected[flipped, top, left] = padded[top : top + 32, left : left + 16]
    found = [min(expected, key=lambda place: np.abs(expected[place] - view).max()) for view in np.asarray(views)]
    assert max(np.abs(expected[place] - view).max() for place, view in zip(found, np.asarray(views))) <= 2
    assert {flipped for flipped, *_ in found} == {False, True} and len(set(found)) > 12


def test_erased_boxes_have_the_areas_and_aspects_asked_for():
    settings, size = Erasing(), (64, 32)
    masks = np.asarray(jax.vmap(lambda key: erased_box(size, key, settings))(keys_of(2000)))
    assert abs(masks.any((1, 2)).mean() - 0.5) < 0.04  # the probability
    boxes = []
    for mask in masks[masks.any((1, 2))]:
        height, width = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == height * width and height < 64 and width < 32
        boxes.append((height, width))
    height, width = np.asarray(boxes).T
    assert (height * width / 2048).min() > 0.015 and (height * width / 2048).max() < 0.36
    # of the boxes that fit, none is higher than wide times 10 / 3, or wider, up to rounding
    assert (height / width).max() < 4 and (height / width).min() > 0.25
    x = jnp.zeros((4, 64, 32, 3))
    constant = dataclasses.replace(settings, probability=1.0, fill=(1.0, 2.0, 3.0))
    views = augment(x.astype(jnp.uint8), jnp.tile(jnp.asarray([64, 32]), (4, 1)), keys_of(4), Augmentation((64, 32)))
    assert views.shape == (4, 64, 32, 3) and constant.fill == (1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return tiny_market.write(tmp_path_factory.mktemp("market"))


def get_config(recipe="market1501/resnet_test", **data):
    """Supervised training of a small network, with data settings."""
    config = finetune.get_config(recipe)
    config.supervised.update(batch_size=16, images_per_identity=2, size=(48, 16))
    config.data.update(data)
    return config


def started(config, workdir):
    """The run up to its first step, so that an error is one before training."""

    def no_step(*_, **__):
        raise AssertionError("training began")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_train_step", no_step)
        train.fine_tune(config, read_training(config), workdir)


def of_colours(root, identities, cameras=None):
    """Settings of a sample table of one image per identity given."""
    for row in range(len(identities)):
        Image.new("RGB", (8, 16), (20 * row, 0, 0)).save(root / f"{row}.png")
    columns = {"file_path": [f"{row}.png" for row in range(len(identities))], "identity": np.asarray(identities)}
    columns |= {} if cameras is None else {"camera": np.asarray(cameras)}
    write_samples(SampleTable.from_columns(**columns), root / "samples.parquet")
    return {"samples": str(root / "samples.parquet"), "images": str(root)}


@pytest.mark.parametrize(
    ("identities", "settings", "message"),
    [
        (range(8), {}, "none of the 8 identities has two images"),
        ([-1] * 8, {}, "no identities"),
        ([0, 0, 1, 1], {}, "needs 8 identities, and the training table has 2"),
        (np.repeat(range(8), 2), {"batch_size": 15}, r"batch size 15 does not give each of 8 device\(s\).* use 16"),
        (np.repeat(range(8), 2), {"batch_size": 12}, r"batch size 12 does not give each of 8 device\(s\).* use 16"),
    ],
)
def test_tables_and_batches_that_cannot_be_trained_on_are_refused_before_training(
    tmp_path, identities, settings, message
):
    config = get_config(**of_colours(tmp_path, list(identities)))
    config.from_scratch = True
    config.supervised.update(settings)
    with pytest.raises(ValueError, match=message):
        started(config, tmp_path / "run")


def test_a_benchmark_with_one_camera_cannot_be_scored(market, tmp_path):
    shutil.copytree(market, tmp_path / "market")
    for path in list((tmp_path / "market").rglob("*.jpg")):
        person, _, *rest = path.name.split("_")
        path.rename(path.with_name("_".join([person, "c1s1", *rest])))
    with pytest.raises(ValueError, match=r"no query has a match from another camera.*\[1\].*--config.evaluate.root"):
        read_benchmark(get_config(root=str(tmp_path / "market")))


def test_msmt17_needs_a_split_that_its_lists_tell_apart(tmp_path):
    for split in (None, "test"):
        config = get_config("msmt17/resnet_test", root=str(tmp_path), split=split)
        with pytest.raises(ValueError, match=rf"data.split is {split!r}.*--config.data.split=train\+val .*train"):
            read_training(config)


def test_weights_of_another_width_or_method_are_refused_before_training(market, tmp_path):
    config = get_config(root=str(market))
    with pytest.raises(ValueError, match=r"no weights to start from: give --config.weights"):
        started(config, tmp_path / "run")
    write_weights(create_model("resnet18"), tmp_path / "wide.pth")
    config.weights = str(tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"wide.pth(.|\n)*keys and shapes of resnet18"):
        started(config, tmp_path / "run")
    mgn = MGNNetwork(create_model("resnet_test"), 8, rngs=nnx.Rngs(0))
    write_finetuned(mgn, tmp_path / "mgn.pth", about={})
    config.weights = str(tmp_path / "mgn.pth")
    with pytest.raises(ValueError, match="can't start from the parts of a fastreid network; give a backbone's"):
        started(config, tmp_path / "run")


def test_a_run_of_another_method_or_model_is_not_continued(market, tmp_path):
    config = get_config(root=str(market))
    config.from_scratch = True
    meta = {"config": json.dumps({"method": "mgn", "model": "resnet_test"})}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"x": jnp.zeros(1)}, meta)
    with pytest.raises(ValueError, match="method 'mgn' and model 'resnet_test', and this config is of 'supervised'"):
        started(config, tmp_path)
