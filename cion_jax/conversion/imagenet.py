"""ImageNet weights as torchvision, timm, IBN-Net and the architectures' own repositories name them.

A file's keys are renamed by a table per family. What fits is taken; position embeddings and the tables of relative
position biases are resized; a batch normalisation that the model splits in two (IBN) is split. Only what is known to
have no counterpart may be left over on either side: a file of another size or family is refused.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.conversion.state_dict import load_state_dict, signature, state_dict
from cion_jax.conversion.weights import read_file
from cion_jax.models.transformer import cubic_resize_matrix
from cion_jax.models.vit import ViT, resize_position_embedding

Arrays = dict[str, np.ndarray]
Replacement = str | Callable[[re.Match], str]


@dataclasses.dataclass(frozen=True)
class Naming:
    """The key names that a family's ImageNet files use, and how they map to the model's.

    Attributes:
        renames: regular expressions and replacements, applied one after the other to every key of the file.
        unused: what a file may hold beside the model (pattern of renamed keys).
        initial: what the model may have and a file not (pattern of the model's keys); nothing by default.
    """

    renames: tuple[tuple[str, Replacement], ...] = ()
    unused: str = r"(head|heads|fc|classifier|pre_logits)\."
    initial: str = r"(?!)"


def _odd_features(name: str) -> Callable[[re.Match], str]:
    """torchvision counts stages and what lies between them in one list: 1, 3, 5, 7 are the stages 0 to 3."""
    return lambda match: name.format(int(match[1]) // 2)


def _even_features(name: str, first: int) -> Callable[[re.Match], str]:
    """2, 4, 6 come between the stages, 0 before them."""
    return lambda match: name.format(int(match[1]) // 2 + first)


NAMINGS = {
    "ResNet": Naming(),  # torchvision, timm and IBN-Net agree
    "ConvNeXt": Naming(
        renames=(
            # timm
            (r"^stem\.", "downsample_layers.0."),
            (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
            (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
            (r"\.conv_dw\.", ".dwconv."),
            (r"\.mlp\.fc([12])\.", r".pwconv\1."),
            (r"^head\.norm\.", "norm."),
            # torchvision
            (r"^features\.([0246])\.", _even_features("downsample_layers.{}.", 0)),
            (r"^features\.([1357])\.", _odd_features("stages.{}.")),
            (r"\.block\.0\.", ".dwconv."),
            (r"\.block\.2\.", ".norm."),
            (r"\.block\.3\.", ".pwconv1."),
            (r"\.block\.5\.", ".pwconv2."),
            (r"\.layer_scale$", ".gamma"),
            (r"^classifier\.0\.", "norm."),
        )
    ),
    "ViT": Naming(
        renames=(
            # torchvision, whose files name the MLP's layers in two ways
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.ln\.", "norm."),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
        ),
        # ReIDZoo's stem of convolutions has no counterpart in a ViT trained on ImageNet; DeiT has two heads
        unused=r"((head|heads|head_dist|pre_logits|patch_embed)\.|dist_token$)",
        initial=r"patch_embed\.",
    ),
    "Swin": Naming(
        renames=(
            # torchvision
            (r"^features\.0\.0\.", "patch_embed.proj."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.([246])\.", _even_features("layers.{}.downsample.", -1)),
            (r"^features\.([1357])\.", _odd_features("layers.{}.blocks.")),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
            # all of them
            (r"^norm\.", "norm3."),
        ),
        # masks and indices are constants of the window, and the windows here are others
        unused=r"(head\.|.*\.(relative_position_index|attn_mask)$)",
        initial=r".*\.relative_position_index$",
    ),
}


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """The outcome of an initialisation from ImageNet weights, by key; `where` is the part of the file that was read."""

    where: str
    taken: list[str]
    changed: dict[str, str]
    unused: dict[str, str]
    initial: list[str]

    def __str__(self) -> str:
        total = len(self.taken) + len(self.initial)
        lines = [f"{len(self.taken)} of the model's {total} tensors taken, {len(self.changed)} of them changed to fit"]
        lines += [f"  ~ {key} {note}" for key, note in _first(self.changed.items())]
        lines += [f"left at their initial values: {len(self.initial)}"] + [f"  - {key}" for key in _first(self.initial)]
        lines += [f"not used of the file: {len(self.unused)}"]
        lines += [f"  + {key} {note}" for key, note in _first(self.unused.items())]
        return "\n".join([*lines, f"read from {self.where}"])


def initialise(model: nnx.Module, path: str | os.PathLike, *, section: str | None = None) -> Initialisation:
    """Fills a ResNet, ViT, ConvNeXt or Swin from a file of ImageNet weights, in place, as far as there are any.

    Raises:
        ValueError: another family, an unreadable file, or one of another architecture or size: something is left
            over in the file or the model that has a counterpart. The model is left as it was.
    """
    family = type(model).__name__
    if family not in NAMINGS:
        raise ValueError(f"no naming of ImageNet weights is known for a {family}; known are {', '.join(NAMINGS)}")
    naming, expected = NAMINGS[family], signature(model)
    weights = read_file(path, section=section)
    arrays = _renamed(weights.backbone, naming, family)
    changed = _split_batch_norms(arrays, expected)
    taken, unused = {}, {}
    for key, value in arrays.items():
        shape = expected[key][0] if key in expected and not key.endswith("relative_position_index") else None
        fitted = None if shape is None else _fitted(key, value, shape, model)
        if fitted is None:
            unused[key] = f"{value.shape}" + (f", the model's is {shape}" if shape else "")
            continue
        taken[key] = fitted
        if fitted.shape != value.shape:
            changed[key] = f"resized from {value.shape} to {shape}"
    initial = [key for key in expected if key not in taken]
    _check(naming, unused, initial, path, family)
    load_state_dict(model, state_dict(model) | taken)
    return Initialisation(weights.where, list(taken), changed, unused, initial)


def _renamed(arrays: Arrays, naming: Naming, family: str) -> Arrays:
    renamed = {}
    for key, value in arrays.items():
        for pattern, replacement in naming.renames:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    if family == "Swin" and "layers.3.downsample.norm.weight" in renamed:
        # timm since 0.9 merges patches at the start of a stage, not at the end of the one before
        shift = lambda match: f"layers.{int(match[1]) - 1}.downsample."  # noqa: E731
        renamed = {re.sub(r"^layers\.(\d)\.downsample\.", shift, key): value for key, value in renamed.items()}
    return renamed


def _split_batch_norms(arrays: Arrays, expected: Mapping[str, tuple]) -> dict[str, str]:
    """Divides the channels of `bn1` between the two halves of an IBN, where the model has one and the file not."""
    notes = {}
    for place in [key.removesuffix(".IN.weight") for key in expected if key.endswith(".IN.weight")]:
        if f"{place}.running_var" not in arrays:
            continue
        half = expected[f"{place}.IN.weight"][0][0]
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            if (value := arrays.pop(f"{place}.{name}", None)) is None:
                continue
            if name in ("weight", "bias"):
                arrays[f"{place}.IN.{name}"] = value[:half]
            arrays[f"{place}.BN.{name}"] = value[half:] if value.ndim else value
        notes[place] = "split: scale and bias of the first half for IN, the rest with its statistics for BN"
    return notes


def _fitted(key: str, value: np.ndarray, shape: tuple[int, ...], model: nnx.Module) -> np.ndarray | None:
    """`value` in the model's shape, or None where it can't be."""
    if value.shape == shape:
        return value
    if [size for size in value.shape if size > 1] == [size for size in shape if size > 1]:
        return value.reshape(shape)  # layer scales [c, 1, 1]
    if isinstance(model, ViT) and key == "pos_embed" and value.shape[-1] == shape[-1]:
        side = math.isqrt(value.shape[1] - 1)
        square = np.concatenate([value[:, :1], value[:, -side * side :]], axis=1)  # without a distillation token
        return np.asarray(resize_position_embedding(jnp.asarray(square, jnp.float32), (side, side), model.grid))
    if key.endswith("relative_position_bias_table") and value.shape[-1] == shape[-1]:
        return _resized_table(value.astype(np.float32), math.isqrt(shape[0]))
    return None


def _resized_table(table: np.ndarray, side: int) -> np.ndarray:
    """Bicubic, from `[n * n, heads]` to `[side * side, heads]`: the biases of windows of another size."""
    matrix = cubic_resize_matrix(math.isqrt(len(table)), side, 0.0)
    square = table.reshape(matrix.shape[1], matrix.shape[1], -1)
    return np.einsum("ir,jq,rqh->ijh", matrix, matrix, square).reshape(side * side, -1).astype(np.float32)


def _check(naming: Naming, unused: Mapping[str, str], initial: list[str], path: str | os.PathLike, family: str) -> None:
    lost = {key: note for key, note in unused.items() if not re.match(naming.unused, key)}
    missing = [key for key in initial if not re.match(naming.initial, key)]
    if lost or missing:
        lines = [f"{path}: no ImageNet weights of this {family}: {len(lost)} tensors too many, {len(missing)} missing"]
        lines += [f"  + {key} {note}" for key, note in _first(lost.items())] + [f"  - {key}" for key in _first(missing)]
        raise ValueError("\n".join([*lines, "(names as the model has them; is it another size, or another family?)"]))


def _first(items, count: int = 12) -> list:
    return list(items)[:count]
