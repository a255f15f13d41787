"""A layer whose weights carry learned noise: exploration that the gradient turns up or down (Fortunato et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.networks.module import Module
from jaxrl.types import Array, Key


def _uniform(scale: float) -> Callable[..., Array]:
    """Initialisation drawn uniformly from [-scale, scale): `init(key, shape, dtype)`."""

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return init


class NoisyDense(Module):
    """A fully connected layer with factorised Gaussian noise on its weights: `[..., p] -> [..., features]`.

    ```
    y = x (mu_w + sigma_w * eps_w) + mu_b + sigma_b * eps_b
    eps_w[i, j] = f(e_in[i]) f(e_out[j]),    eps_b[j] = f(e_out[j]),    f(e) = sgn(e) sqrt(|e|),    e ~ N(0, 1)
    ```

    Fortunato et al. (2018), eqs. 9 to 11, initialised as in section 3.2: mu uniform in +-1/sqrt(p), sigma at
    `sigma` / sqrt(p). One draw is for the whole batch. It comes from the stream "noise" of `apply`'s `rngs`, and each
    layer of a network has its own; without that stream, as in `init(key, obs)`, the layer is its mean.

    Its parameters are `kernel` and `bias`, as those of `nn.Dense`, and `kernel_sigma` and `bias_sigma`.

    Attributes:
      features: units of the layer.
      sigma: sigma_0, the standard deviation that the noise starts with, in units of 1/sqrt(p).
      kernel_init: of mu_w; None is the paper's.

    >>> layer = NoisyDense(2)
    >>> params = layer.init(jax.random.key(0), jnp.ones(3))
    >>> layer.apply(params, jnp.ones((5, 3)), rngs={"noise": jax.random.key(1)}).shape
    (5, 2)
    """

    features: int
    sigma: float = 0.5
    kernel_init: Callable[..., Array] | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        scale = 1 / math.sqrt(inputs)
        sigma_init = nn.initializers.constant(self.sigma * scale)
        kernel = self.param("kernel", self.kernel_init or _uniform(scale), (inputs, self.features))
        bias = self.param("bias", _uniform(scale), (self.features,))
        kernel_sigma = self.param("kernel_sigma", sigma_init, (inputs, self.features))
        bias_sigma = self.param("bias_sigma", sigma_init, (self.features,))
        if self.has_rng("noise"):
            noise = jax.random.normal(self.make_rng("noise"), (inputs + self.features,))
            noise = jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))
            rows, columns = noise[:inputs], noise[inputs:]
            kernel = kernel + kernel_sigma * rows[:, None] * columns
            bias = bias + bias_sigma * columns
        return x @ kernel + bias
