"""Augmentation on the device against PIL, colorsys and SciPy, one operation at a time; then whole batches."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

from cion_jax.distillation import augmentation, crop
from cion_jax.distillation.loader import fit


def photo(height=90, width=50, seed=0):
    """A smooth image with edges and noise, uint8 `[height, width, 3]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + p) + np.cos(y / 11 - p) for p in range(3)], -1)
    waves[height // 3 : height // 2, width // 4 :] = -1.5
    return np.clip(127 + 60 * waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("box", [(0, 0, 90, 50), (13, 5, 60, 33), (50, 30, 40, 20), (0, 49, 90, 1), (88, 0, 2, 50)])
@pytest.mark.parametrize("size", [(64, 32), (128, 64)])
def test_crop_equals_pil(box, size):
    image = photo()
    top, left, height, width = box
    canvas = np.zeros((110, 70, 3), np.uint8)
    canvas[:90, :50] = image
    ours = crop.crop_and_resize(jnp.asarray(canvas), jnp.asarray(box, jnp.float32), size, flip=jnp.asarray(False))
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    theirs = np.asarray(cut.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
    assert np.abs(np.asarray(ours) - theirs).max() <= 2
    mirrored = crop.crop_and_resize(jnp.asarray(canvas), jnp.asarray(box, jnp.float32), size, flip=jnp.asarray(True))
    np.testing.assert_array_equal(mirrored, ours[:, ::-1])


@pytest.mark.slow
def test_images_larger_than_the_canvas_are_shrunk_before_they_are_cropped():
    """A small crop of a shrunk image is smoother than PIL's; with a canvas of the image's size they are equal."""
    image, canvas, box = photo(128, 64), (64, 32), np.asarray([60, 20, 40, 20])
    cut = Image.fromarray(image).crop((20, 60, 40, 100)).resize((16, 32), Image.Resampling.BICUBIC)
    small = fit(image, canvas)
    assert small.shape == (*canvas, 3)
    for source, scale, least, most in ((image, 1, 0, 0.6), (small, 2, 3, 7)):
        at = jnp.asarray(box / scale, jnp.float32)
        ours = crop.crop_and_resize(jnp.asarray(source), at, (32, 16), flip=jnp.asarray(False))
        assert least <= np.abs(np.asarray(ours) - np.asarray(cut, np.float32)).mean() <= most


def test_crop_boxes_follow_their_distribution():
    size, scale, ratio = jnp.asarray([256, 128]), (0.3, 0.8), (0.4, 0.6)
    draws = np.random.default_rng(0).uniform(size=(4000, crop.BOX_DRAWS)).astype(np.float32)
    boxes = np.asarray(jax.jit(jax.vmap(lambda u: crop.random_box(u, size, scale=scale, ratio=ratio)))(draws))
    top, left, height, width = boxes.T
    assert (boxes == np.round(boxes)).all()
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 256).all() and (left + width <= 128).all()
    area = height * width / (256 * 128)
    assert area.min() > 0.29 and area.max() < 0.81 and abs(area.mean() - 0.55) < 0.02
    log_ratio = np.log(width / height)
    assert abs(log_ratio.mean() - np.log([0.4, 0.6]).mean()) < 0.02
    room = 256 - height
    assert abs((top[room > 20] / room[room > 20]).mean() - 0.5) < 0.03


def test_an_image_too_wide_for_the_ratio_is_cropped_in_its_middle():
    draws = jnp.full(crop.BOX_DRAWS, 0.3)
    box = crop.random_box(draws, jnp.asarray([40, 400]), scale=(0.8, 1.0), ratio=(0.4, 0.6))
    np.testing.assert_array_equal(box, [0, 188, 40, 24])


def test_color_operations_equal_pil():
    image = photo()
    x = jnp.asarray(image / 255, jnp.float32)
    pil = Image.fromarray(image)
    levels = lambda y: np.asarray(y) * 255  # noqa: E731
    for amount in (0.6, 1.4):
        contrast = augmentation.blend(x, augmentation.luma(x).mean(), amount)
        assert np.abs(levels(contrast) - np.asarray(ImageEnhance.Contrast(pil).enhance(amount))).max() <= 2
        color = augmentation.blend(x, augmentation.luma(x), amount)
        assert np.abs(levels(color) - np.asarray(ImageEnhance.Color(pil).enhance(amount))).max() <= 2


@pytest.mark.parametrize("turns", [-0.1, 0.0, 0.07, 0.5])
def test_hue_equals_colorsys(turns):
    pixels = np.random.default_rng(0).uniform(size=(50, 3))
    pixels[:3] = [[0.4] * 3, [0, 0, 0], [1, 1, 1]]
    ours = augmentation.shift_hue(jnp.asarray(pixels), turns)
    hsv = [colorsys.rgb_to_hsv(*p) for p in pixels]
    theirs = [colorsys.hsv_to_rgb((h + turns) % 1, s, v) for h, s, v in hsv]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def grey_level_differences(ours, theirs):
    """Largest and mean difference of an image in [0, 1] and a PIL image."""
    differences = np.abs(255 * np.asarray(ours) - np.asarray(theirs, np.float32))
    return differences.max(), differences.mean()


def test_brightness_grayscale_and_solarize_equal_pil():
    x, pil = jnp.asarray(photo() / 255, jnp.float32), Image.fromarray(photo())
    still = dict(jitter=1, brightness=0, contrast=0, saturation=0, hue=0)
    for amount in (-0.4, 0.4):
        settings = augmentation.Augmentation(**still | {"brightness": abs(amount)})
        draws = jnp.asarray([0.0, float(amount > 0), 0.5, 0.5, 0.5])  # the ends of its range
        ours = augmentation.color_jitter(x, draws, settings)
        assert grey_level_differences(ours, ImageEnhance.Brightness(pil).enhance(1 + amount))[0] <= 1
    gray = jnp.broadcast_to(augmentation.luma(x), x.shape)
    assert grey_level_differences(gray, pil.convert("L").convert("RGB"))[0] <= 1
    assert grey_level_differences(augmentation.solarize(x), ImageOps.solarize(pil))[0] < 0.01


@pytest.mark.parametrize("turns", [-0.1, 0.03, 0.1])
def test_hue_is_within_the_steps_of_pil(turns):
    """PIL stores hue, saturation and value as bytes: 256 hues, where RGB colours have 6 x 255."""
    pil = Image.fromarray(photo())
    hue, saturation, value = pil.convert("HSV").split()
    moved = Image.fromarray(((np.asarray(hue, int) + int(turns * 255)) % 256).astype(np.uint8))
    theirs = Image.merge("HSV", (moved, saturation, value)).convert("RGB")
    ours = augmentation.shift_hue(jnp.asarray(photo() / 255, jnp.float32), turns)
    largest, mean = grey_level_differences(ours, theirs)
    assert largest <= 9 and mean <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_near_the_boxes_of_pil(sigma):
    ours = augmentation.gaussian_blur(jnp.asarray(photo() / 255, jnp.float32), sigma, max_sigma=2.0)
    theirs = Image.fromarray(photo()).filter(ImageFilter.GaussianBlur(sigma))
    largest, mean = grey_level_differences(ours, theirs)
    assert largest <= 6 and mean <= 0.7


def test_a_fixed_order_of_jitter_is_near_a_random_one():
    """PIL's brightness, contrast and saturation, in the fixed order and in random orders, at released strengths."""
    rng, pil, differences = np.random.default_rng(0), Image.fromarray(photo()), []
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for _ in range(100):
        amounts = 1 + rng.uniform(-1, 1, 3) * (0.4, 0.4, 0.2)
        ours, theirs = pil, pil
        for one, other in zip(range(3), rng.permutation(3)):
            ours = enhance[one](ours).enhance(amounts[one])
            theirs = enhance[other](theirs).enhance(amounts[other])
        differences.append(np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).mean())
    assert np.mean(differences) < 1 and max(differences) < 8


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_gaussian(sigma):
    x = photo() / 255
    ours = augmentation.gaussian_blur(jnp.asarray(x, jnp.float32), sigma, max_sigma=2.0)
    theirs = ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", radius=(6, 6, 0))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def batch(count=6):
    images = np.stack([np.pad(photo(80 + i, 40 + i, i), ((0, 16 - i), (0, 24 - i), (0, 0))) for i in range(count)])
    sizes = np.asarray([(80 + i, 40 + i) for i in range(count)], np.int32)
    return jnp.asarray(images), jnp.asarray(sizes)


SETTINGS = augmentation.Augmentation(global_size=(32, 16), local_size=(16, 8), local_views=3)
views = jax.jit(augmentation.make_views, static_argnums=3)


def test_views_do_not_depend_on_the_split_of_the_batch():
    images, sizes = batch()
    keys = augmentation.sample_keys(0, 7, jnp.arange(6))
    whole, small = views(images, sizes, keys, SETTINGS)
    assert whole.shape == (2, 6, 32, 16, 3) and small.shape == (3, 6, 16, 8, 3)
    parts = [views(images[i : i + 2], sizes[i : i + 2], keys[i : i + 2], SETTINGS) for i in (0, 2, 4)]
    np.testing.assert_allclose(whole, np.concatenate([p[0] for p in parts], 1), atol=1e-5)
    np.testing.assert_allclose(small, np.concatenate([p[1] for p in parts], 1), atol=1e-5)
    other, _ = views(images, sizes, augmentation.sample_keys(0, 8, jnp.arange(6)), SETTINGS)
    assert np.abs(other - whole).max() > 0.1


def test_without_strengths_a_view_is_the_resized_image():
    images, sizes = batch(2)
    still = augmentation.Augmentation(
        global_size=(32, 16), local_views=0, global_scale=(1.0, 1.0), aspect_ratio=(0.5, 0.5),
        jitter=0, grayscale=0, blur=(0, 0, 0), solarize=0,
    )  # fmt: skip
    whole, none = views(images, sizes, augmentation.sample_keys(0, 0, jnp.arange(2)), still)
    assert none is None
    for i in range(2):
        height, width = np.asarray(sizes[i])
        image = Image.fromarray(np.asarray(images[i, :height, :width])).resize((16, 32), Image.Resampling.BICUBIC)
        expected = (np.asarray(image) / 255 - augmentation.IMAGENET_MEAN) / augmentation.IMAGENET_STD
        view = np.asarray(whole[0, i])
        error = min(np.abs(view - expected).mean(), np.abs(view[:, ::-1] - expected).mean())
        assert error < 0.05


def test_scales_are_checked():
    with pytest.raises(ValueError, match="global_scale"):
        augmentation.Augmentation(global_scale=(0.8, 1.2))
