"""Fine-tuning as a whole: sampler, augmentation, devices, resuming, weight files, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from cion_jax.configs import finetune
from cion_jax.distillation.erasing import Erasing, erased_box
from cion_jax.finetuning import train
from cion_jax.finetuning.augmentation import Augmentation, augment
from cion_jax.finetuning.data import read_benchmark, read_training
from cion_jax.finetuning.sampler import PKSampler, plan_epochs
from cion_jax.runtime.files import read_json
from cion_jax.runtime.mesh import make_mesh
from cion_jax.runtime.metrics import read_metrics

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


PEOPLE, EACH = 8, 6


def get_config():
    """Two epochs of a small network on crops that take no time."""
    config = finetune.get_config("market1501/resnet_test")
    config.from_scratch = True
    config.compute_dtype, config.canvas, config.loader_threads, config.log_every = "float32", (40, 20), 1, 1
    config.checkpoint.every_steps = 1
    config.supervised.update(epochs=4, batch_size=32, images_per_identity=2, size=(32, 16))
    config.supervised.batch_size = 16
    config.supervised.optimizer.update(learning_rate=0.05, warmup_epochs=1)
    config.supervised.augmentation.pad = 2
    config.evaluate.update(batch_size=16, every_epochs=2)
    return config


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Rectangles of a colour per person in Market-1501's layout, from three cameras."""
    root, rng = tmp_path_factory.mktemp("market"), np.random.default_rng(0)
    for folder, count in (("bounding_box_train", EACH), ("query", 1), ("bounding_box_test", 3)):
        (root / folder).mkdir()
        for person in range(PEOPLE):
            for number in range(count):
                camera = number % 3 + (2 if folder == "query" else 1)
                color = (
                    40 + 25 * np.asarray([person % 2, person // 2 % 2, person // 4]) + rng.normal(0, 20, (40, 20, 3))
                )
                name = f"{person + 1:04d}_c{camera}s1_{number:06d}_00.jpg"
                Image.fromarray(np.clip(color, 0, 255).astype(np.uint8)).save(root / folder / name)
    return root


def arguments(market, workdir, **settings):
    given = [f"--config.{name.replace('__', '.')}={value}" for name, value in settings.items()]
    return [
        "-m",
        "cion_jax.finetune",
        "--config=tests/test_finetune.py",
        f"--workdir={workdir}",
        f"--config.data.root={market}",
        *given,
    ]


def run(config, market, workdir, devices=1):
    config.data.root = str(market)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_mesh", lambda: make_mesh(jax.devices()[:devices]))
        return train.fine_tune(config, read_training(config), workdir, benchmark=read_benchmark(config))


@pytest.fixture(scope="module")
def finished(market, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, run(get_config(), market, workdir)


@pytest.mark.slow
def test_a_run_learns_and_leaves_scores_weights_and_cards(finished):
    workdir, reports = finished
    log = read_metrics(workdir / "metrics.jsonl")
    assert len(log) == 4 * 3 and log[-1]["loss"] < log[0]["loss"]
    assert reports["last"]["epoch"] == 4 and reports["best"]["mAP"] >= reports["last"]["mAP"]
    assert [line["step"] for line in read_metrics(workdir / "epochs.jsonl")] == [6]
    card = read_json(workdir / "last.pth.json")
    assert card["mean"] == [0.5] * 3 and card["input_size"] == [32, 16] and card["evaluation"] == reports["last"]
    arrays = torch.load(workdir / "last.pth", weights_only=True)
    assert list(arrays)[-6:] == [
        "classifier.weight",
        *(f"bottleneck.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    assert not arrays["bottleneck.bias"].any() and arrays["classifier.weight"].shape == (PEOPLE, 192)
