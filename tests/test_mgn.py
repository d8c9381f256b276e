"""MGN against values measured on the released FastReID (tests/reference/finetune)."""

import functools
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cion_jax.configs import finetune_mgn
from cion_jax.conversion import signature, state_dict
from cion_jax.conversion.finetuned_resnets import package_keys, released_keys
from cion_jax.distillation.schedules import Curriculum, Stage
from cion_jax.finetuning.circle import ADAPTIVE, circle_logits, smoothed_cross_entropy
from cion_jax.finetuning.losses import triplet_loss
from cion_jax.finetuning.method import Phase
from cion_jax.finetuning.mgn import FROZEN_AT_FIRST, MGN, loss_terms, make_adam, parameter_groups, step_rates
from cion_jax.finetuning.mgn_network import MGNNetwork, striped
from cion_jax.models import create_model
from tests.finetune_reference import FOLDER, fill, functional, gem_of, pixels, read_json, symmetric
from tests.refweights import weight

LOSSES, SCHEDULES, RUNS = (read_json(name) for name in ("mgn_losses.json", "mgn_schedule.json", "mgn.json"))
KEYS = json.loads(gzip.decompress((FOLDER / "mgn_state_dict.json.gz").read_bytes()))
ARRAYS = np.load(FOLDER / "mgn.npz")
NETWORKS = {"market1501_mgn_R50_cion": "resnet50", "market1501_mgn_R50ibn_cion": "resnet50_ibn"}
by_tag = pytest.mark.parametrize("case", LOSSES, ids=lambda case: case["tag"])


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def value_and_gradient(function, *arguments, which=0):
    value, gradient = jax.value_and_grad(function, argnums=which)(*map(jnp.asarray, arguments))
    return float(value), np.asarray(gradient)


@by_tag
def test_smoothed_cross_entropy(case):
    logits = symmetric(case["tag"] + "/logits", (case["batch"], case["classes"]), 4)
    labels = np.array(case["labels"])
    for smoothing, key in ((0.0, "ce_eps0.0"), (0.1, "ce_eps0.1"), (ADAPTIVE, "ce_eps-1")):
        loss, gradient = value_and_gradient(lambda x, s=smoothing: smoothed_cross_entropy(x, labels, s), logits)
        np.testing.assert_allclose(loss, case[key]["loss"], rtol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(gradient), case[key]["grad_norm"][0], rtol=1e-9)


@pytest.mark.parametrize("case", LOSSES[:2], ids=lambda case: case["tag"])  # the third has no negatives
def test_triplet_is_that_of_supervised_fine_tuning(case):
    features, labels = symmetric(case["tag"] + "/feat", (case["batch"], case["dim"]), 1.5), np.array(case["labels"])
    for margin, key in ((None, "0.0"), (0.3, "0.3")):
        for normalise in (False, True):
            expected = case[f"triplet_margin{key}_norm{normalise:d}_hard1"]
            loss, gradient = value_and_gradient(
                lambda x, m=margin, n=normalise: triplet_loss(x, labels, m, normalise=n), features
            )
            np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
            np.testing.assert_allclose(np.linalg.norm(gradient), expected["grad_norm"][0], rtol=1e-7)


@by_tag
def test_circle_softmax(case):
    features = symmetric(case["tag"] + "/feat", (case["batch"], case["dim"]), 1.5)
    weights = symmetric(case["tag"] + "/weight", (case["classes"], case["dim"])).T
    labels, expected = np.array(case["labels"]), case["circle_scale64_margin0.35"]
    logits = circle_logits(jnp.asarray(features), jnp.asarray(weights), labels)
    np.testing.assert_allclose(logits[0], expected["logits_row0"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(logits.sum(), expected["logits_sum"], rtol=1e-9)
    for which, key in ((0, "grad_feat_norm"), (1, "grad_weight_norm")):
        _, gradient = value_and_gradient(lambda x, w: circle_logits(x, w, labels).sum(), features, weights, which=which)
        np.testing.assert_allclose(np.linalg.norm(gradient), expected[key], rtol=1e-9)
    loss, gradient = value_and_gradient(
        lambda x: smoothed_cross_entropy(circle_logits(x, jnp.asarray(weights), labels), labels), features
    )
    np.testing.assert_allclose(loss, case["circle_then_ce0.1"]["loss"], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(gradient), case["circle_then_ce0.1"]["grad_norm"], rtol=1e-9)


@by_tag
def test_gem(case):
    expected = case["gem_p3"]
    maps, cotangent = symmetric(case["tag"] + "/map", (2, 6, 4, 3), 2), symmetric(case["tag"] + "/mapw", (2, 6, 1, 1))
    out, by_map, by_p = gem_of(maps, 3.0, cotangent)
    np.testing.assert_allclose(out.ravel(), expected["out"], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(by_map), expected["grad_norm"], rtol=1e-9)
    np.testing.assert_allclose(by_p, [expected["grad_p"]], rtol=1e-9)


@pytest.mark.parametrize("name", ["market1501", "msmt17"])
def test_schedule(name):
    case = SCHEDULES[name]
    rates = step_rates(
        case["base_lr"], steps=case["max_iter"], warmup_steps=case["warmup_iters"], constant_until=case["delay_iters"]
    )
    steps, expected = np.array(case["lr_at"]).T
    np.testing.assert_allclose(rates[steps.astype(int)], expected, rtol=1e-12)


def test_the_resnet_is_frozen_for_ten_epochs_and_a_step():
    config = finetune_mgn.get_config("market1501/resnet50").mgn
    plan = Curriculum((Stage(16, 0, 60, 0, SCHEDULES["market1501"]["iters_per_epoch"]),))
    frozen, trained = MGN(config).phases(plan)
    assert frozen == (0, ("backbone", "b1", "b2", "b3"))
    assert trained == (SCHEDULES["market1501"]["freeze_iters"] + 1, ())
    config.optimizer.update(frozen_epochs=0, extra_frozen_steps=0)
    assert MGN(config).phases(plan) == (Phase(0),)


def test_a_schedule_out_of_order_is_refused():
    with pytest.raises(ValueError, match="must end in this order"):
        step_rates(1e-3, steps=10, warmup_steps=5, constant_until=4)


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_and_fixed_parameters_are_the_released_ones(name):
    shapes = nnx.eval_shape(lambda: MGNNetwork(create_model(NETWORKS[name]), 751, rngs=nnx.Rngs(0)))
    tensors = released_keys(signature(shapes))
    assert [[key, list(shape)] for key, (shape, _) in tensors.items()] == KEYS[name]["state_dict"]
    assert package_keys(tensors) == signature(shapes)
    params = nnx.as_pure(nnx.state(shapes, nnx.Param))
    fixed = [path for path, group in jax.tree.leaves_with_path(parameter_groups(params)) if group == "fixed"]
    assert len(fixed) == len(KEYS[name]["frozen"]) == 8
    assert sum(x.size for x in jax.tree.leaves(params)) - 8 * 256 == KEYS[name]["n_trainable"]


def test_shared_stages_and_branches_start_from_the_backbone():
    mark = {"b1_head.pool_layer.p": None}  # by which the format is told
    expected = package_keys(KEYS["market1501_mgn_R50ibn_cion"]["starts_from"] | mark)
    assert {key: source_of(key) for key in expected} == expected
    backbone = create_model("resnet_ibn_test", depths=(1, 1, 2, 1))
    source, network = state_dict(backbone), MGNNetwork(backbone, 3, rngs=nnx.Rngs(0))
    arrays = state_dict(network)
    copied = [key for key in arrays if source_of(key)]
    assert {source_of(key) for key in copied} == set(source)
    for key in copied:
        np.testing.assert_array_equal(arrays[key], source[source_of(key)], err_msg=key)
    assert state_dict(backbone).keys() == source.keys()  # it is still whole


def test_stripes_cover_the_map():
    maps = jnp.arange(10.0).reshape(1, 10, 1, 1)
    assert [x.shape[1] for x in striped(maps, 3)] == [4, 4, 2]
    np.testing.assert_array_equal(jnp.concatenate(striped(maps, 3), axis=1), maps)
    with pytest.raises(ValueError, match="4 rows can't be cut into 3 stripes"):
        striped(maps[:, :4], 3)


def test_other_backbones_are_refused():
    with pytest.raises(ValueError, match="MGN branches off a ResNet's third stage; ViT has none"):
        MGNNetwork(create_model("vit_test"), 3, rngs=nnx.Rngs(0))


def source_of(key):
    """The backbone's key that a tensor of the network starts from, or None."""
    part, _, rest = key.partition(".")
    if part == "backbone":
        return rest
    if part in ("b1", "b2", "b3"):
        stage, block, rest = rest.split(".", 2)
        return f"layer3.{int(block) + 1}.{rest}" if stage == "0" else f"layer4.{block}.{rest}"
    return None


def of_the_reference(key, shape):
    """Values by key; shared stages and branches have those of the pre-training backbone."""
    return np.full(shape, 3.0) if key.endswith("pool_layer.p") else weight(source_of(key) or key, shape)


def norm(tree):
    return float(np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(tree))))


def loss(outputs, labels, memory):
    del memory
    identity, triplet = loss_terms(outputs, labels, 0.1, axis_name=None)
    terms = {f"loss_cls_{name}": x for name, x in identity.items()}
    terms |= {f"loss_triplet_{name}": x for name, x in triplet.items()}
    return sum(terms.values()), terms


@pytest.fixture(scope="module")
def mgn():
    network = MGNNetwork(create_model("resnet50_ibn", dtype=jnp.float64), 6, rngs=nnx.Rngs(0))
    fill(network, of_the_reference)
    return functional(network, loss)


def images(name, count, size):
    """The reference's images on 0..255 are 127.5 + 85 x / 1.5; normalised here as FastReID's network does."""
    x = 127.5 + 85 * pixels(name, (count, 3, *size)) / 1.5
    return (x - jnp.array([123.675, 116.28, 103.53])) / jnp.array([58.395, 57.12, 57.375])


@pytest.mark.slow
def test_test_features(mgn):
    params, stats, _, features = mgn
    found, expected = features(params, stats, images("mgn/eval", 2, (96, 32))), ARRAYS["eval_features"]
    assert np.abs(found - expected).max() / expected.std() < 1e-6


@pytest.mark.slow
def test_loss_terms_and_gradients(mgn):
    params, stats, gradients, _ = mgn
    case = RUNS["forward"]["train_mode"]
    labels = jnp.array(case["labels"])
    found, (outputs, total, _, terms) = gradients(params, stats, images("mgn/loss", 8, (96, 32)), labels)
    np.testing.assert_allclose(total, case["total"], rtol=1e-9)
    for name, value in case["terms"].items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(outputs.embeddings["b31"].sum(), case["features_b31_sum"], rtol=1e-7)
    logits = circle_logits(outputs.embeddings["b1"], outputs.classifiers["b1"], labels)
    np.testing.assert_allclose(logits, case["cls_outputs_b1"], rtol=1e-7)
    groups = parameter_groups(params)
    trained = [x for x, group in zip(jax.tree.leaves(found), jax.tree.leaves(groups)) if group != "fixed"]
    np.testing.assert_allclose(norm(trained), case["total_grad_norm"], rtol=1e-7)
    parts = {
        "backbone.0.weight": found["backbone"]["conv1"],
        "b33_head.pool_layer.p": found["b33_head"]["pool_layer"],
        "b32_head.classifier.weight": found["b32_head"]["classifier"],
        "b21_head.bottleneck.0.weight": found["b21_head"]["bottleneck"]["layers"][0],
        "heads_extra_bn_b1.weight": found["heads_extra_bn_b1"]["scale"],
        "heads_extra_bn_b3.bias": found["heads_extra_bn_b3"]["bias"],
        "b2.1.2.conv3.weight": found["b2"]["layers"][1]["layers"][2]["conv3"],
    }
    for name, gradient in parts.items():
        np.testing.assert_allclose(norm(gradient), case["grad_norms"][name], rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "loss_bound", "probe_bound"), [("trajectory", 1e-7, 1e-3), ("trajectory_small_lr", 1e-9, 1e-7)]
)
def test_trajectory(mgn, name, loss_bound, probe_bound):
    """Two steps with a frozen backbone, then two; bounds are above what noise of 1e-12 in the pixels changes."""
    params, stats, gradients, features = mgn
    case = RUNS[name]
    rates = step_rates(
        case["base_lr"], steps=case["max_iter"], warmup_steps=case["warmup_iters"], constant_until=case["delay_iters"]
    )
    optimizer = make_adam(rates, case["weight_decay"], frozen_steps=case["freeze_iters"] + 1)
    params, state = jax.tree.map(jnp.copy, params), optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))  # in place: ten copies of the network would be left otherwise
    def apply(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for number, step in enumerate(case["steps"]):
        frozen = FROZEN_AT_FIRST if step["frozen"] else ()
        x, labels = images(f"mgn/step{number}", 8, (96, 32)), jnp.array(step["labels"])
        found, (_, total, stats, terms) = gradients(params, stats, x, labels, frozen=frozen)
        params, state = apply(params, state, found)
        np.testing.assert_allclose(total, step["loss"], rtol=loss_bound)
        for key, value in step["terms"].items():
            np.testing.assert_allclose(terms[key], value, rtol=10 * loss_bound, err_msg=key)
        np.testing.assert_allclose(rates[number], step["lr"], rtol=1e-12)
        np.testing.assert_allclose(params["b33_head"]["pool_layer"]["p"], [step["p_b33"]], rtol=1e-8)
        np.testing.assert_allclose(norm(params["backbone"]["conv1"]), step["backbone_conv1_norm"], rtol=1e-9)
        np.testing.assert_allclose(norm(params["b1_head"]["classifier"]), step["classifier_norm_b1"], rtol=1e-8)
        np.testing.assert_allclose(stats["backbone"]["bn1"]["mean"].sum(), step["backbone_bn1_mean_sum"], rtol=1e-6)
    probe, expected = features(params, stats, images("mgn/probe", 2, (96, 32))), ARRAYS[f"{name}/probe"]
    assert np.abs(probe - expected).max() / expected.std() < probe_bound
