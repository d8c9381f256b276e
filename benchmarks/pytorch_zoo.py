"""The models of ReIDZoo that the package `transformers` has too, in PyTorch with random weights."""

from collections.abc import Callable
from typing import Any

import jax

from cion_jax.models import convnext, resnet, swin, vit

SIZE = (256, 128)


def embedder(name: str, batch: int) -> Callable[[], Any] | None:
    """A function that embeds one fixed batch and waits for the result; None for models that `transformers` has not.

    In the defaults of both packages: eager, channels first, float32 on CPU and bfloat16 on a GPU; on CPU with as many
    threads as JAX's CPU client has, one per core.
    """
    import torch

    model = plain_model(name)
    if model is None:
        return None
    on_gpu = jax.default_backend() == "gpu"
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    model = model.to(device, dtype).eval()
    images = torch.randn(batch, 3, *SIZE).to(device, dtype)

    @torch.inference_mode()
    def embed() -> Any:
        output = model(images).last_hidden_state
        return output.sum().item() if on_gpu else output  # reading one number waits for the GPU

    return embed


def plain_model(name: str, size: tuple[int, int] = SIZE) -> Any:
    """The model for images of `size`, or None; a ResNet-IBN has no twin."""
    import transformers as package

    family = name.split("_")[0]
    if family.startswith("resnet"):
        return None if name.endswith("_ibn") else _resnet(package, resnet.MODELS[name])
    if family == "vit":
        return _vit(package, vit.MODELS[name], size)
    if family == "convnext":
        settings = convnext.MODELS[name]
        config = package.ConvNextConfig(depths=list(settings.depths), hidden_sizes=list(settings.widths))
        return package.ConvNextModel(config)
    if family == "swin":
        return _swin(package, swin.MODELS[name], size)
    return None


def _resnet(package: Any, settings: resnet.Settings) -> Any:
    """The last stage at stride 1, as ours."""
    expansion = 4 if settings.bottleneck else 1
    config = package.ResNetConfig(
        embedding_size=settings.widths[0],
        hidden_sizes=[expansion * width for width in settings.widths],
        depths=list(settings.depths),
        layer_type="bottleneck" if settings.bottleneck else "basic",
    )
    model = package.ResNetModel(config)
    for module in model.encoder.stages[3].modules():
        if getattr(module, "stride", None) == (2, 2):
            module.stride = (1, 1)
    return model


def _swin(package: Any, settings: swin.Settings, size: tuple[int, int]) -> Any:
    """With windows of half the side where maps have become narrower than that: `transformers` cannot."""

    def model(window: int) -> Any:
        config = package.SwinConfig(
            image_size=size,
            embed_dim=settings.width,
            depths=list(settings.depths),
            num_heads=list(settings.heads),
            window_size=window,
        )
        return package.SwinModel(config)

    whole = model(settings.window)
    whole.encoder.layers[-1] = model(settings.window // 2).encoder.layers[-1]
    return whole


def _vit(package: Any, settings: vit.Settings, size: tuple[int, int]) -> Any:
    """With the convolutional stem of ours, plainly batch-normalised, in place of the patch projection."""
    from torch import nn

    config = package.ViTConfig(
        image_size=size,
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.width,
    )
    model, channels = package.ViTModel(config, add_pooling_layer=False), settings.stem_width
    layers = []
    for inputs, kernel_size, stride in ((3, 7, 2), (channels, 3, 1), (channels, 3, 1)):
        conv = nn.Conv2d(inputs, channels, kernel_size, stride, kernel_size // 2, bias=False)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
    patches = nn.Conv2d(channels, settings.width, vit.STRIDE // 2, vit.STRIDE // 2)
    stem = nn.Sequential(*layers, patches)
    stem.weight = patches.weight  # transformers asks it for the type to compute in
    model.embeddings.patch_embeddings.projection = stem
    return model
