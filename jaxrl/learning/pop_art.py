"""A critic on a scale of its own, which follows its targets' (Pop-Art; van Hasselt et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl.types import Array


class PopArt(NamedTuple):
    """Scale of a critic's values: they are `sigma * output + mean`.

    Attributes:
      mean: float32 `()`, moving average of the targets.
      var: float32 `()`, that of their squares less the mean's, kept as such so that a large mean costs no digits.
      unseen: float32 `()`, the weight that the averages' first values would still have; 1 before the first update.
    """

    mean: Array
    var: Array
    unseen: Array

    @property
    def sigma(self) -> Array:
        """The targets' standard deviation, at least 1e-4."""
        return jnp.sqrt(jnp.maximum(self.var, 1e-8))


def init_pop_art() -> PopArt:
    """The scale before any target was seen: mean 0 and deviation 1, so that values are what the network says."""
    return PopArt(jnp.float32(0), jnp.float32(1), jnp.float32(1))


def pop_art_update(scale: PopArt, targets: Array, rate: Array | float) -> PopArt:
    """Moves a scale towards a batch of targets.

    ```
    mean <- (1 - beta) mean + beta mean(targets), and the squares alike; at update k, beta = rate / (1 - (1 - rate)^k)
    ```

    Van Hasselt et al. (2016), equation 6 and the correction of beta below it: the first batch counts in full, and the
    averages are never of values that nothing was seen of.

    Args:
      scale: so far.
      targets: float `[...]`, of the values, on the rewards' scale.
      rate: how much a batch counts in the long run, in (0, 1].

    >>> scale = pop_art_update(init_pop_art(), jnp.array([2.0, 4.0]), 0.1)
    >>> round(float(scale.mean), 4), round(float(scale.sigma), 4)
    (3.0, 1.0)
    """
    unseen = scale.unseen * (1 - rate)
    beta = jnp.where(scale.unseen == 1, 1.0, rate / (1 - unseen))  # exactly 1 at first, whatever rounding makes of it
    moved = targets.mean() - scale.mean
    var = (1 - beta) * scale.var + beta * targets.var() + beta * (1 - beta) * jnp.square(moved)
    return PopArt(scale.mean + beta * moved, var, unseen)


def preserve_outputs(head: dict[str, Array], old: PopArt, new: PopArt) -> dict[str, Array]:
    """A last layer whose values on the new scale are what the given one's were on the old.

    ```
    W' = sigma W / sigma',  b' = (sigma b + mean - mean') / sigma'
    ```

    Van Hasselt et al. (2016), proposition 1.

    Args:
      head: a dense layer's `kernel` and `bias`.
      old: the scale that it was made for.
      new: the one that it is to be used with.
    """
    ratio = old.sigma / new.sigma
    return {"kernel": head["kernel"] * ratio, "bias": head["bias"] * ratio + (old.mean - new.mean) / new.sigma}


def denormalize(scale: PopArt | tuple, values: Array) -> Array:
    """Values on the rewards' scale; `()` leaves them as they are."""
    return scale.sigma * values + scale.mean if isinstance(scale, PopArt) else values
