"""The extractor's losses against loops in float64, and that it learns and can be read back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from PIL import Image

from cion_jax.configs import demo
from cion_jax.conversion import load_weights
from cion_jax.finetuning.extractor import create_extractor, train_extractor
from cion_jax.finetuning.losses import cosine_cross_entropy, supervised_contrastive_loss
from cion_jax.runtime.mesh import DATA_AXIS, make_mesh
from cion_jax.samples import SampleTable


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_supervised_contrastive_loss_by_loops():
    rng = np.random.default_rng(0)
    z, labels = unit(rng.normal(size=(9, 5))), np.asarray([0, 1, 2] * 3)
    terms = []
    for i in range(9):
        others = [a for a in range(9) if a != i]
        log_sum = np.log(sum(np.exp(z[i] @ z[a] / 0.1) for a in others))
        positives = [p for p in others if labels[p] == labels[i]]
        terms.append(-np.mean([z[i] @ z[p] / 0.1 - log_sum for p in positives]))
    loss = supervised_contrastive_loss(jnp.asarray(3 * z), jnp.asarray(labels), 0.1)
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_cosine_cross_entropy_by_loops():
    rng = np.random.default_rng(1)
    x, proxies, labels = rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), np.asarray([0, 1, 2, 2, 1, 0])
    logits = 16 * unit(x) @ unit(proxies).T
    terms = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels)]
    loss = cosine_cross_entropy(jnp.asarray(x), jnp.asarray(proxies), jnp.asarray(labels))
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_contrastive_loss_and_gradient_do_not_depend_on_the_number_of_devices():
    rng = np.random.default_rng(2)
    x, labels = jnp.asarray(rng.normal(size=(16, 5))), jnp.asarray(rng.permutation(np.repeat(np.arange(4), 4)))
    one = jax.value_and_grad(supervised_contrastive_loss)(x, labels)
    split = PartitionSpec(DATA_AXIS)

    @functools.partial(jax.shard_map, mesh=make_mesh(), in_specs=split, out_specs=(PartitionSpec(), split))
    def several(x, labels):
        def loss(x):
            return jax.lax.pmean(supervised_contrastive_loss(x, labels, axis_name=DATA_AXIS), DATA_AXIS)

        return jax.value_and_grad(loss)(x)

    for ours, expected in zip(several(x, labels), one):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("identities", "settings", "message"),
    [
        ([0] * 64, {}, "80 steps on 1 identities: give at least one step, and two identities"),
        (
            [0, 1] * 32,
            {"batch_size": 16},
            r"batch size 16 does not give each of 8 device\(s\) whole identities.* use 32",
        ),
        ([0, 1] * 4, {}, "2 groups of 4 images are fewer than one batch of 32"),
    ],
)
def test_labels_and_batches_that_give_no_training_are_refused_before_it(tmp_path, identities, settings, message):
    config = demo.get_config()
    config.extractor.training.update(dict(steps=80, batch_size=32) | settings)
    files = [f"{row}.png" for row in range(len(identities))]
    table = SampleTable.from_columns(file_path=files, identity=np.asarray(identities))
    with pytest.raises(ValueError, match=message):
        train_extractor(config, table, tmp_path, tmp_path / "extractor.pth")


@pytest.mark.slow
def test_the_trained_extractor_separates_colours(tmp_path):
    identities = np.repeat(np.arange(6), 8)
    colors = np.asarray([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200], [90, 90, 90]])
    rng = np.random.default_rng(0)
    for row, identity in enumerate(identities):
        picture = np.clip(colors[identity] + rng.normal(0, 25, (64, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{row}.png")
    table = SampleTable.from_columns(file_path=[f"{row}.png" for row in range(48)], identity=identities)
    config = demo.get_config()
    config.extractor.training.update(dict(steps=30, batch_size=32, images_per_identity=4))
    train_extractor(config, table, tmp_path, tmp_path / "extractor.pth")
    assert not (tmp_path / "extractor.pth.training/checkpoints").exists()
    model = create_extractor("resnet_test")
    load_weights(model, tmp_path / "extractor.pth")
    model.eval()
    pixels = np.stack([np.asarray(Image.open(tmp_path / f"{row}.png")) for row in range(48)])
    x = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    z = unit(np.asarray(model(jnp.asarray(x, jnp.float32))))
    distance = 1 - z @ z.T
    same = (identities[:, None] == identities) & ~np.eye(48, dtype=bool)
    assert distance[same].mean() < 0.5 * distance[identities[:, None] != identities].mean()
