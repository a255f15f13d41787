"""Torsos: from a batch of observations to a batch of feature vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.networks.module import Module
from jaxrl.types import Array, Box, Key, Space, Spec


@jax.custom_jvp
def relu(x: Array) -> Array:
    """max(x, 0), with a derivative that is read off the output: the backward pass then keeps one array, not two.

    The barrier keeps XLA from computing the output again, which would keep the input for it.
    """
    return jax.lax.optimization_barrier(jnp.maximum(x, 0))


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": relu,
    "swish": jax.nn.swish,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
}


def orthogonal(scale: float = math.sqrt(2.0)) -> Callable[..., Array]:
    """Orthogonal initialisation of a kernel (Saxe et al. 2014): columns, or rows if they are fewer, of norm `scale`.

    Gram-Schmidt on a Gaussian matrix, which draws uniformly from the orthogonal ones. LAPACK's QR would do, but a
    batch of them, as `vmap` over seeds makes, waits for itself forever in jaxlib 0.10 on a machine with few cores.

    Args:
      scale: sqrt(2) keeps the variance of what goes through a rectifier.

    Returns:
      `init(key, shape, dtype)`; all axes of the shape but the last are the kernel's inputs.
    """

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        inputs, outputs = math.prod(shape[:-1]), shape[-1]
        drawn = jax.random.normal(key, (max(inputs, outputs), min(inputs, outputs)), dtype)

        q = _orthonormalized(drawn)
        return scale * (q if inputs >= outputs else q.T).reshape(shape)

    return init


def _orthonormalized(matrix: Array, block: int = 64) -> Array:
    """Gram-Schmidt on the columns; of many, a block of them at a time, which is mostly matrix products."""
    columns = matrix.shape[1]

    def one_column(column: Array, q: Array) -> Array:
        before = jnp.where(jnp.arange(q.shape[1]) < column, q, 0)
        vector = q[:, column]
        for _ in range(2):  # the second time takes away what rounding left
            vector = vector - before @ (before.T @ vector)
        return q.at[:, column].set(vector / jnp.linalg.norm(vector))

    if columns <= block or columns % block:
        return jax.lax.fori_loop(0, columns, one_column, matrix)

    def one_block(index: Array, q: Array) -> Array:
        before = jnp.arange(columns)[:, None] < index * block
        some = jax.lax.dynamic_slice_in_dim(q, index * block, block, axis=1)
        for _ in range(2):
            some = _orthonormalized(some - q @ jnp.where(before, q.T @ some, 0), block)
        return jax.lax.dynamic_update_slice_in_dim(q, some, index * block, axis=1)

    return jax.lax.fori_loop(0, columns // block, one_block, matrix)


def holds_pixels(space: Space) -> bool:
    """Whether observations are pixels: bytes, from 0 to 255, in an array of any shape."""
    if not isinstance(space, Box) or space.dtype != np.uint8:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())


def as_floats(obs: Array, pixels: bool) -> Array:
    """Observations as float32; bytes that are pixels are divided by 255.

    They may have become floats on their way, as normalised ones have: those are as they should be.
    """
    x = obs.astype(jnp.float32)
    return x / 255 if pixels and obs.dtype == jnp.uint8 else x


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image is taken for `[C, H, W]`: few rows, and either a square behind them or too many channels."""
    rows, columns, channels = shape
    return rows < min(columns, channels) and (columns == channels or channels > MAX_CHANNELS)


class MLP(Module):
    """Fully connected layers, each followed by its activation: `[..., any shape] -> [..., hidden_sizes[-1]]`.

    Attributes:
      hidden_sizes: units of each layer.
      activation: a key of `ACTIVATIONS`.
      obs_ndim: how many trailing axes belong to one observation; they are flattened.
      layer_norm: whether each layer's output is normalised over its units before the activation (Ba et al. 2016).
      dropout: how much of each layer's output is dropped before that, in [0, 1), where `apply` has
        `rngs={"dropout": key}` (Srivastava et al. 2014; in this order, Hiraoka et al. 2022).
      pixels: whether bytes are divided by 255; so in the other torsos.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    obs_ndim: int = 1
    layer_norm: bool = False
    dropout: Array | float = 0.0
    pixels: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = as_floats(obs, self.pixels).reshape((*obs.shape[: obs.ndim - self.obs_ndim], -1))
        for size in self.hidden_sizes:
            x = nn.Dense(size, kernel_init=orthogonal())(x)
            if self.has_rng("dropout"):
                kept = jax.random.uniform(self.make_rng("dropout"), x.shape) >= self.dropout
                x = jnp.where(kept, x / (1.0 - self.dropout), 0.0)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = ACTIVATIONS[self.activation](x)
        return x


class CNN(Module):
    """The MinAtar network (Young and Tian 2019): a 3 x 3 convolution, then an `MLP`; `[..., H, W, C] -> [..., units]`.

    The convolution is a matrix product with the image's patches. Under `vmap` over seeds, each with its own kernel, a
    convolution becomes a grouped one, which is many times slower.

    Attributes:
      hidden_sizes: units of the layers after the convolution.
      activation: a key of `ACTIVATIONS`.
      channels: filters of the convolution.
      layer_norm: whether each layer's output is normalised before the activation; the convolution's, at each position
        over its channels.
    """

    hidden_sizes: tuple[int, ...] = (128,)
    activation: str = "relu"
    channels: int = 16
    layer_norm: bool = False
    pixels: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        obs = as_floats(obs, self.pixels)
        rows, columns = obs.shape[-3] - 2, obs.shape[-2] - 2
        patches = [obs[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)]
        x = nn.Dense(self.channels, kernel_init=orthogonal())(jnp.concatenate(patches, axis=-1))  # [..., H-2, W-2, 9 C]
        if self.layer_norm:
            x = nn.LayerNorm()(x)
        mlp = MLP(self.hidden_sizes, self.activation, obs_ndim=3, layer_norm=self.layer_norm)
        return mlp(ACTIVATIONS[self.activation](x))


class NatureCNN(Module):
    """The network of Mnih et al. (2015) for the screens of games: three convolutions, then an `MLP`.

    `[..., H, W, C] -> [..., units]`, with H and W of at least `NATURE_PIXELS`.

    The convolutions are matrix products with patches. Besides what `CNN` says, XLA's own convolutions on a CPU are many
    times slower inside a loop or a branch, which is where agents learn: a batch's gradient took 1.4 s there, and takes
    0.1 s so.

    Attributes:
      hidden_sizes: units of the layers after the convolutions.
      activation: a key of `ACTIVATIONS`.
      layer_norm: whether each layer's output is normalised before the activation; a convolution's, at each position
        over its channels.
    """

    hidden_sizes: tuple[int, ...] = (512,)
    activation: str = "relu"
    layer_norm: bool = False
    pixels: bool = True

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = as_floats(obs, self.pixels)
        for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.Dense(channels, kernel_init=orthogonal())(_patches(x, size, stride))
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = ACTIVATIONS[self.activation](x)
        return MLP(self.hidden_sizes, self.activation, obs_ndim=3, layer_norm=self.layer_norm)(x)


def _patches(images: Array, size: int, stride: int) -> Array:
    """The squares that a convolution without padding looks at; `stride` divides `size`.

    `[..., H, W, C] -> [..., H', W', size * size * C]`. The image becomes one of blocks of `stride` x `stride` pixels; a
    patch is a few neighbours of them.
    """
    *leading, rows, columns, channels = images.shape
    rows, columns = (rows - size) // stride + 1, (columns - size) // stride + 1
    width = size // stride  # of a patch, in blocks
    high, wide = rows + width - 1, columns + width - 1
    blocks = images[..., : high * stride, : wide * stride, :].reshape(*leading, high, stride, wide, stride, channels)
    blocks = blocks.swapaxes(-4, -3).reshape(*leading, high, wide, stride * stride * channels)
    parts = [blocks[..., i : i + rows, j : j + columns, :] for i in range(width) for j in range(width)]
    return jnp.concatenate(parts, axis=-1)


CNN_PIXELS = 3  # of a smaller image, the convolution has nothing to look at
NATURE_PIXELS = 36  # and here the last one
MAX_CHANNELS = 32  # of an image with fewer rows than columns and channels; with more, its channels stand first


def make_torso(
    owner: str, spec: Spec, kind: str, hidden_sizes: tuple[int, ...], activation: str, *, layer_norm: bool = False
) -> Callable[[], Module]:
    """A constructor of the torso that fits an environment's observations.

    Args:
      owner: the agent, for the error's text.
      spec: the environment's.
      kind: "mlp", "cnn" (`CNN`), "nature" (`NatureCNN`), or "auto": where an observation is an image `[H, W, C]`, the
        one of the last two that its size is for; an MLP elsewhere, and for an image with less than 3 rows or columns.
      hidden_sizes: units of the fully connected layers.
      activation: a key of `ACTIVATIONS`.
      layer_norm: whether each layer is normalised before its activation.

    Returns:
      The constructor. Where observations are bytes from 0 to 255, of whatever shape, the torso divides them by 255.

    Raises:
      JaxrlError: if observations are not arrays, or hold no number; if a CNN is asked for where they are not images;
        and for images that seem to have their channels first, unless an MLP is asked for.
    """
    checks.one_of(owner, ("auto", "mlp", "cnn", "nature"), torso=kind)
    if not isinstance(spec.obs_space, Box):
        raise checks.JaxrlError(
            f"{owner}: {spec.id} has {spec.obs_space} observations; it needs arrays of numbers "
            f"(flatten_observations=True turns states into one-hot vectors)"
        )
    shape, pixels = spec.obs_space.shape, holds_pixels(spec.obs_space)
    if 0 in shape:
        raise checks.JaxrlError(f"{owner}: {spec.id} has observations of shape {shape}; it needs at least one number")
    if kind != "mlp" and len(shape) == 3 and _channels_first(shape):
        raise checks.JaxrlError(
            f"{owner}: {spec.id} has observations of shape {shape}, which seem to have their channels first; an image "
            "must be [height, width, channels] (jnp.moveaxis(obs, 0, -1) makes it so; torso='mlp' takes any order)"
        )
    image = len(shape) == 3 and min(shape[:2]) >= CNN_PIXELS
    large = image and min(shape[:2]) >= NATURE_PIXELS
    fitting = {"auto", "mlp"} | ({"cnn"} if image else set()) | ({"nature"} if large else set())
    if kind not in fitting:
        raise checks.JaxrlError(
            f"{owner}: torso={kind!r} is not accepted on {spec.id}, whose observations have shape {shape}; "
            f"it must be one of {', '.join(map(repr, sorted(fitting)))}"
        )
    if kind == "auto":
        kind = "nature" if large else "cnn" if image else "mlp"
    if kind == "mlp":
        return lambda: MLP(hidden_sizes, activation, len(shape), layer_norm, pixels=pixels)
    network = {"cnn": CNN, "nature": NatureCNN}[kind]
    return lambda: network(hidden_sizes, activation, layer_norm=layer_norm, pixels=pixels)
