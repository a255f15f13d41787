"""What agents do with advantages, and report of the values behind them, over all steps or those that count."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxrl.types import Array


def whiten(
    advantages: Array, where: Array | None = None, average: Callable[[Array], Array] = lambda mean: mean
) -> Array:
    """Brought to mean 0 and standard deviation 1.

    Args:
      advantages: `[...]`.
      where: bool `[...]`, the steps that count; all unless given.
      average: from a mean over these to one over all there are, where others work on the rest.

    >>> whiten(jnp.array([1.0, 3.0, 9.0]), where=jnp.array([True, True, False])).tolist()
    [-1.0, 1.0, 7.0]
    """
    centred = advantages - average(advantages.mean(where=where))
    return centred / (jnp.sqrt(average(jnp.square(centred).mean(where=where))) + 1e-8)


def explained_variance(values: Array, targets: Array, where: Array | None = None) -> Array:
    """How much of the variance of the targets the values explain, over the steps that count, at least -1."""
    return jnp.maximum(-1.0, 1.0 - (targets - values).var(where=where) / (targets.var(where=where) + 1e-8))
