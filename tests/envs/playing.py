"""Stepping one environment through given actions."""

import jax
import jax.numpy as jnp
import numpy as np


def play(env, state, actions):
    """Outcomes of the actions from a state, `[T]`."""

    def body(state, action):
        state, _, outcome = env.step(jax.random.key(1), state, action)
        return state, outcome

    return jax.tree.map(np.asarray, jax.jit(lambda: jax.lax.scan(body, state, jnp.asarray(actions))[1])())
