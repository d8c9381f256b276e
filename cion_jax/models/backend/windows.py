"""XLA's own convolution, and the windows that it sees: indexing that both platforms' forms share."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def output_size(x_shape: tuple, kernel_shape: tuple, stride: int, padding: int) -> tuple[int, int]:
    rows, columns = ((x_shape[i + 1] + 2 * padding - kernel_shape[i]) // stride + 1 for i in (0, 1))
    return rows, columns


def standard(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def taps(x: jax.Array, kernel_shape: tuple, stride: int, padding: int) -> list[jax.Array]:
    """The input under every kernel position: size * size arrays `[b, rows, columns, c]`."""
    rows, columns = output_size(x.shape, kernel_shape, stride, padding)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    spans = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return [
        lax.slice(x, (0, i, j, 0), (x.shape[0], i + spans[0], j + spans[1], x.shape[-1]), (1, stride, stride, 1))
        for i, j in np.ndindex(*kernel_shape[:2])
    ]


def patches(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """Square windows of `x`, unfolded: `[b, rows, columns, size * size * c]`."""
    if size != stride or padding:
        return jnp.concatenate(taps(x, (size, size), stride, padding), axis=-1)
    b, rows, columns, c = x.shape[0], x.shape[1] // size, x.shape[2] // size, x.shape[3]
    tiles = x[:, : rows * size, : columns * size].reshape(b, rows, size, columns, size, c)
    return tiles.swapaxes(2, 3).reshape(b, rows, columns, size * size * c)
