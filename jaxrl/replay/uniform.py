"""Uniform experience replay (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import recorded
from jaxrl.replay import ring
from jaxrl.replay.types import Read, Replay, Sample
from jaxrl.types import Array, Key, Spec, Transition


@recorded
def uniform(*, capacity: int, batch_size: int, read: Read = ring.window) -> Replay:
    """The last `capacity` transitions, sampled uniformly and with replacement.

    Args:
      capacity: how many transitions it holds, of all environments together; the oldest are overwritten.
      batch_size: `B`, how many are drawn at once.
      read: how what was drawn is read: as it is, or with `hindsight(...)`.

    Returns:
      a `Replay` whose state is a `Ring`, each observation once and in its own dtype.

    Raises:
      JaxrlError: if a size is not a positive whole number, or a batch is larger than the capacity; at `init`, if the
        capacity is not a multiple of what is added at once.
    """
    check_sizes("uniform replay", capacity, batch_size)

    def init(trajectory: Transition, spec: Spec) -> ring.Ring:
        return ring.init("uniform replay", capacity, trajectory, spec)

    def sample(state: ring.Ring, key: Key, step: Array, length: int = 1) -> Sample:
        draw_key, read_key = jax.random.split(key)
        layout = state.layout
        drawn = jax.random.randint(draw_key, (batch_size,), 0, jnp.minimum(step, capacity))  # 0 is in the newest row
        newest_row = step - layout.num_envs + drawn % layout.num_envs
        slots = (newest_row - drawn // layout.num_envs * layout.num_envs) % capacity
        steps, valid = read(state, read_key, slots, step, length)
        return Sample(steps, valid, slots, valid[:, 0].astype(jnp.float32))

    def update(state: ring.Ring, indices: Array, td_errors: Array) -> ring.Ring:
        return state

    return Replay(init, ring.write, sample, update, ring.interrupt, capacity, batch_size)


def check_sizes(owner: str, capacity: int, batch_size: int):
    """Checks the sizes that every replay has.

    Raises:
      JaxrlError: if one is not a positive whole number, or a batch is larger than the capacity.
    """
    checks.integer(owner, capacity=capacity, batch_size=batch_size)
    if batch_size > capacity:
        raise checks.JaxrlError(
            f"{owner}: batch_size={batch_size} is not accepted; it must be at most capacity={capacity}"
        )
