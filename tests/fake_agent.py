"""An agent whose numbers can be foretold, and which compiles in a second."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.types import Agent

TRACED = []  # one entry each time that `update` is traced


class FakeState(NamedTuple):
    weight: jax.Array


def fake(
    *,
    rate: float = 0.5,
    blow_up: float = 2.0,
    blow_up_at: int = 0,
    num_envs: int = 2,
    rollout_length: int = 4,
    label: str = "a",
    sizes: tuple[int, ...] = (),
) -> Agent:
    """An agent that learns nothing.

    Its weight is drawn from [0, 1) and stays, and its loss is `rate`. In seeds whose weight exceeds `blow_up` the loss
    is NaN in the update that begins at step `blow_up_at`. The metric `seen` is the step, `drawn` a random number.
    """

    def init(key, spec):
        return FakeState(jax.random.uniform(key, (1, *sizes)))

    def act(state, memory, obs, key, step, explore=True):
        return jnp.zeros(len(obs), jnp.int32), memory, {}

    def update(state, trajectory, key, step):
        TRACED.append(rate)
        weight = state.weight.mean()
        bad = (weight > blow_up) & (step == blow_up_at)
        loss = jnp.where(bad, jnp.nan, jnp.float32(rate))
        metrics = {"loss": loss, "weight": weight, "drawn": jax.random.uniform(key), "seen": jnp.float32(step)}
        return state, metrics

    return Agent(init, act, update, num_envs, rollout_length, name="fake")
