"""Uniform experience replay (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.replay.types import Replay, Sample
from jaxrl.types import Array, Key, PyTree


def uniform(*, capacity: int, batch_size: int) -> Replay:
    """A ring of the last `capacity` items, sampled uniformly and with replacement.

    Args:
      capacity: how many items it holds; the oldest are overwritten.
      batch_size: `B`, how many are drawn at once.

    Returns:
      a `Replay` whose state is the stored items, leaves `[capacity, ...]`, in their own dtypes.

    Raises:
      JaxrlError: if a size is not a positive whole number, or a batch is larger than the capacity; when items are
        added, if their number does not divide the capacity.

    Example:
      >>> replay = uniform(capacity=4, batch_size=2)
      >>> state = replay.add(replay.init(jnp.float32(0)), jnp.array([7.0]), step=0)
      >>> replay.sample(state, jax.random.key(0), step=1).items.tolist()
      [7.0, 7.0]
    """
    checks.integer("uniform replay", capacity=capacity, batch_size=batch_size)
    if batch_size > capacity:
        raise checks.JaxrlError(
            f"uniform replay: batch_size={batch_size} is not accepted; it must be at most capacity={capacity}"
        )

    def init(item: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), item)

    def add(state: PyTree, items: PyTree, step: Array) -> PyTree:
        added = jax.tree.leaves(items)[0].shape[0]
        if capacity % added:
            raise checks.JaxrlError(
                f"uniform replay: capacity={capacity} is not accepted; it must be a multiple of the {added} items that "
                "are added at once"
            )
        write = lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, step % capacity, axis=0)  # noqa: E731
        return jax.tree.map(write, state, items)

    def sample(state: PyTree, key: Key, step: Array) -> Sample:
        indices = jax.random.randint(key, (batch_size,), 0, jnp.minimum(step, capacity))
        items = jax.tree.map(lambda ring: ring.at[indices].get(mode="promise_in_bounds"), state)
        return Sample(items, indices, jnp.ones(batch_size))

    return Replay(init, add, sample, update=lambda state, indices, priorities: state)
