"""ImageNet weights in the names that torchvision, timm and the architectures' own repositories give them.

The names are listed here from those projects' definitions; the values are random.
"""

import re

import numpy as np
import pytest
import torch
from flax import nnx

from cion_jax.configs import base
from cion_jax.conversion import read_weights, signature, state_dict, write_weights
from cion_jax.conversion.imagenet import initialise
from cion_jax.conversion.transfer import Target, transfer_imagenet
from cion_jax.distillation.train import create_backbone
from cion_jax.models import create_model
from tests.weights import assert_same

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def random_like(arrays):
    return {
        key: random(*value.shape) if value.dtype == np.float32 else np.asarray(5 if value.ndim == 0 else value)
        for key, value in arrays.items()
    }


def save(path, arrays):
    torch.save({key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}, path)
    return path


def backbone_with_names(name):
    """Random weights of a model, by the released names, for the tests to rename."""
    return random_like(state_dict(create_model(name)))


def check(name, file, expected, tmp_path):
    """The model filled from `file` has the arrays `expected`, and its initial values elsewhere."""
    model = create_model(name)
    before = state_dict(model)
    report = initialise(model, save(tmp_path / "imagenet.pth", file))
    after = state_dict(model)
    assert_same(after, before | expected)
    assert sorted(report.initial) == sorted(before.keys() - expected.keys())
    return report


def test_resnet_loads_under_each_naming(tmp_path):
    arrays = backbone_with_names("resnet_test")
    report = check("resnet_test", arrays | {"fc.weight": random(1000, 192), "fc.bias": random(1000)}, arrays, tmp_path)
    assert report.unused == {"fc.weight": "(1000, 192)", "fc.bias": "(1000,)"}
    assert str(report).startswith("72 of the model's 72 tensors taken, 0 of them changed to fit\n")


def test_resnet_of_before_batches_were_counted(tmp_path):
    arrays = {k: v for k, v in backbone_with_names("resnet_test").items() if not k.endswith("num_batches_tracked")}
    counters = {k: np.asarray(0) for k in signature(create_model("resnet_test")) if k.endswith("num_batches_tracked")}
    report = check("resnet_test", arrays, arrays | counters, tmp_path)
    assert str(report).endswith(f"read from a bare state dict, {len(counters)} missing num_batches_tracked set to 0")


def test_ibn_from_its_own_files(tmp_path):
    arrays = backbone_with_names("resnet_ibn_test")
    wrapped = {f"module.{key}": value for key, value in arrays.items()}
    check("resnet_ibn_test", wrapped | {"module.fc.weight": random(10, 64)}, arrays, tmp_path)


def test_ibn_from_a_plain_resnet_splits_the_batch_normalisation(tmp_path):
    expected, file = backbone_with_names("resnet_ibn_test"), {}
    places = {key.split(".IN.")[0] for key in expected if ".IN." in key}
    assert places == {"layer1.0.bn1", "layer2.0.bn1", "layer3.0.bn1"}
    for key, value in expected.items():
        if not re.search(r"\.(IN|BN)\.", key):
            file[key] = value
    for place in places:
        for name in ("weight", "bias"):
            parts = expected[f"{place}.IN.{name}"], expected[f"{place}.BN.{name}"]
            file[f"{place}.{name}"] = np.concatenate(parts)
        for name in ("running_mean", "running_var"):
            statistics = expected[f"{place}.BN.{name}"]
            file[f"{place}.{name}"] = np.concatenate([random(len(statistics)), statistics])
        file[f"{place}.num_batches_tracked"] = expected[f"{place}.BN.num_batches_tracked"]
    report = check("resnet_ibn_test", file, expected, tmp_path)
    assert set(report.changed) == places


def timm_convnext(key):
    key = re.sub(r"^downsample_layers\.0\.", "stem.", key)
    key = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", key)
    key = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", key)
    key = re.sub(r"^norm\.", "head.norm.", key)
    return key.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")


def torchvision_convnext(key):
    parts = {"dwconv": "block.0", "norm": "block.2", "pwconv1": "block.3", "pwconv2": "block.5"}
    if found := re.match(r"downsample_layers\.(\d)\.(.*)", key):
        return f"features.{2 * int(found[1])}.{found[2]}"
    if found := re.match(r"stages\.(\d)\.(\d+)\.(\w+)\.?(.*)", key):
        inner = "layer_scale" if found[3] == "gamma" else f"{parts[found[3]]}.{found[4]}"
        return f"features.{2 * int(found[1]) + 1}.{found[2]}.{inner}"
    return key.replace("norm.", "classifier.0.")


def test_convnext_loads_under_each_naming(tmp_path):
    arrays = backbone_with_names("convnext_test")
    head = {"head.weight": random(10, 32), "head.bias": random(10)}
    check("convnext_test", arrays | head, arrays, tmp_path)

    timm = {timm_convnext(key): value for key, value in arrays.items()}
    assert "stages.0.blocks.0.conv_dw.weight" in timm and "stages.1.downsample.1.weight" in timm
    check("convnext_test", timm | {"head.fc.weight": random(10, 32)}, arrays, tmp_path)

    torchvision = {torchvision_convnext(key): value for key, value in arrays.items()}
    assert {"features.0.0.weight", "features.3.0.block.5.bias", "features.6.1.weight"} <= set(torchvision)
    for key, value in torchvision.items():
        torchvision[key] = value.reshape(-1, 1, 1) if key.endswith("layer_scale") else value
    check("convnext_test", torchvision | {"classifier.2.weight": random(10, 32)}, arrays, tmp_path)


def plain_vit(side, distilled=False):
    """State dict of a ViT with 16x16 patches on square images, and what ReIDZoo's takes from it, resized by PyTorch."""
    arrays = backbone_with_names("vit_test")
    file = {key: value for key, value in arrays.items() if not key.startswith("patch_embed.")}
    file["pos_embed"] = random(1, 1 + distilled + side * side, 32)
    grid = torch.from_numpy(file["pos_embed"][:, -side * side :]).reshape(1, side, side, 32).permute(0, 3, 1, 2)
    scale = ((4 + 0.1) / side, (2 + 0.1) / side)  # 64x32 has 4x2 patches
    grid = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    patches = grid.permute(0, 2, 3, 1).reshape(1, 8, 32).numpy()
    taken = {key: value for key, value in file.items() if key != "pos_embed"}
    return file, taken, np.concatenate([file["pos_embed"][:, :1], patches], axis=1)


def torchvision_vit(key):
    if found := re.match(r"blocks\.(\d+)\.(.*)", key):
        names = {"norm": "ln_", "attn.qkv.": "self_attention.in_proj_", "attn.proj": "self_attention.out_proj"}
        inner = found[2]
        for ours, theirs in (names | {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.linear_2"}).items():
            inner = inner.replace(ours, theirs)
        return f"encoder.layers.encoder_layer_{found[1]}.{inner}"
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    return names.get(key, key.replace("norm.", "encoder.ln."))


@pytest.mark.parametrize("form", ["timm", "torchvision", "distilled"])
def test_vit_takes_all_but_the_stem(form, tmp_path):
    file, taken, pos_embed = plain_vit(14, distilled=form == "distilled")
    extra = {"patch_embed.proj.weight": random(32, 3, 16, 16), "patch_embed.proj.bias": random(32)}
    extra |= {"head.weight": random(10, 32), "head.bias": random(10)}
    if form == "distilled":
        extra |= {"dist_token": random(1, 1, 32), "head_dist.weight": random(10, 32)}
    if form == "torchvision":
        file = {torchvision_vit(key): value for key, value in file.items()}
        assert "encoder.layers.encoder_layer_1.self_attention.in_proj_weight" in file
        extra = {"conv_proj.weight": extra["patch_embed.proj.weight"], "heads.head.weight": random(10, 32)}
    model = create_model("vit_test")
    before = state_dict(model)
    report = initialise(model, save(tmp_path / "imagenet.pth", file | extra))
    after = state_dict(model)
    np.testing.assert_allclose(after.pop("pos_embed"), pos_embed, atol=2e-5)
    bias_fits = {} if form == "torchvision" else {"patch_embed.proj.bias": extra["patch_embed.proj.bias"]}
    del before["pos_embed"]
    assert_same(after, before | taken | bias_fits)
    assert report.changed["pos_embed"] == f"resized from {(1, file_tokens(form), 32)} to (1, 9, 32)"
    assert "(32, 3, 16, 16), the model's is (32, 8, 8, 8)" in report.unused["patch_embed.proj.weight"]


def file_tokens(form):
    return 198 if form == "distilled" else 197


def official_swin(window):
    """A Swin with its authors' names and windows of another size, and the entries that the model takes from it."""
    arrays = backbone_with_names("swin_test")
    file, expected = {}, {}
    for key, value in arrays.items():
        name = key.replace("norm3.", "norm.")
        if key.endswith("relative_position_index"):
            file[name] = np.zeros((window**2, window**2), np.int64)
            continue
        if key.endswith("relative_position_bias_table"):
            value = random((2 * window - 1) ** 2, value.shape[1])
        file[name] = expected[key] = value
    return file | {"layers.0.blocks.1.attn_mask": random(4, 16, 16), "head.weight": random(10, 64)}, expected


def resized_by_pytorch(table, side):
    size = int(len(table) ** 0.5)
    square = torch.from_numpy(table).T.reshape(1, -1, size, size)
    square = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic")
    return square.reshape(-1, side * side).T.numpy()


def timm_swin(key):
    return re.sub(r"^layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", key)


def torchvision_swin(key):
    key = re.sub(r"^layers\.(\d)\.downsample", lambda match: f"features.{2 * int(match[1]) + 2}", key)
    key = re.sub(r"^layers\.(\d)\.blocks", lambda match: f"features.{2 * int(match[1]) + 1}", key)
    key = key.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
    return key.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")


@pytest.mark.parametrize("rename", [str, timm_swin, torchvision_swin])
@pytest.mark.parametrize("window", [4, 7])
def test_swin_loads_under_each_naming(rename, window, tmp_path):
    file, expected = official_swin(window)
    file = {rename(key): value for key, value in file.items()}
    model = create_model("swin_test")
    report = initialise(model, save(tmp_path / "imagenet.pth", file))
    got = state_dict(model)
    tables = [key for key in expected if key.endswith("bias_table")]
    assert len(report.changed) == (0 if window == 4 else len(tables))
    for key, value in expected.items():
        if key in tables:
            np.testing.assert_allclose(got[key], resized_by_pytorch(value, 7), atol=1e-5, err_msg=key)
        else:
            np.testing.assert_array_equal(got[key], value, err_msg=key)
    assert all(key.endswith("relative_position_index") for key in report.initial)


def test_files_of_other_models_are_refused_and_the_model_left_alone(tmp_path):
    arrays = backbone_with_names("resnet_test")
    other = save(tmp_path / "deeper.pth", arrays | {"layer1.1.conv1.weight": random(24, 24, 3, 3)})
    model = create_model("resnet_test")
    before = state_dict(model)
    with pytest.raises(ValueError, match=r"deeper\.pth: no ImageNet weights of this ResNet: 1 tensors too many"):
        initialise(model, other)
    del arrays["layer1.0.conv2.weight"]
    with pytest.raises(ValueError, match=r"1 missing\n  - layer1\.0\.conv2\.weight"):
        initialise(model, save(tmp_path / "part.pth", arrays))
    with pytest.raises(ValueError, match="no ImageNet weights of this ViT"):
        initialise(create_model("vit_test"), tmp_path / "part.pth")
    arrays["layer1.0.conv2.weight"] = np.full((24, 24, 3, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        initialise(model, save(tmp_path / "nan.pth", arrays))
    assert_same(state_dict(model), before)


def test_families_without_a_naming_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no naming of ImageNet weights is known for a VOLO; known are ResNet"):
        initialise(create_model("volo_test"), tmp_path / "any.pth")


def test_converting_and_training_start_from_them(tmp_path):
    arrays = backbone_with_names("resnet_test")
    source = save(tmp_path / "imagenet.pth", arrays | {"fc.weight": random(10, 192)})
    report = transfer_imagenet("resnet_test", source, Target(tmp_path / "to.pth"))
    assert "+ fc.weight (10, 192)" in report
    assert_same(read_weights(tmp_path / "to.pth")[0], arrays)
    config = base.get_config()
    config.model, config.pretrain.init = "resnet_test", str(source)
    config.pretrain.head.update(prototypes=8, hidden_dim=8, bottleneck_dim=4)
    assert_same(state_dict(create_backbone(config, nnx.Rngs(0))), arrays)


def test_a_converted_file_can_be_the_source_again(tmp_path):
    model = create_model("convnext_test")
    write_weights(model, tmp_path / "w.pth")
    other = create_model("convnext_test")
    initialise(other, tmp_path / "w.pth")
    assert_same(state_dict(other), state_dict(model))
