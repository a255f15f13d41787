"""The linear decay of a learning rate that agents offer as `anneal_steps`."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl.types import Array


def annealed(step: Array, anneal_steps: int) -> Array | float:
    """What is left of the learning rate at an environment step: 1 at first, 0 after `anneal_steps`; 0 of them keep it.

    >>> float(annealed(25, 100)), annealed(25, 0)
    (0.75, 1.0)
    """
    return jnp.maximum(0.0, 1.0 - step / anneal_steps) if anneal_steps else 1.0
