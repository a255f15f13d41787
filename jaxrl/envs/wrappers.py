"""Wrappers: functions from an environment to another one, that compose.

Like the environments, they are of one instance; the training loop vmaps what comes out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks, prng
from jaxrl.envs.check import as_space
from jaxrl.types import Array, Box, Discrete, Env, Key, Outcome, PyTree, Space, box

MAX_ACTIONS = 4096


class TimeLimitState(NamedTuple):
    """The wrapped environment's state, and `time`, the steps taken in this episode (int32)."""

    env: PyTree
    time: Array


class FrameStackState(NamedTuple):
    """The wrapped environment's state, and `frames`, the stacked observation, the newest last."""

    env: PyTree
    frames: Array


def rescale_actions(env: Env) -> Env:
    """Lets the agent act in `[-1, 1]`: `a` becomes `low + (a + 1) / 2 * (high - low)`, rounded for whole numbers.

    Args:
      env: an environment whose actions are a bounded Box.

    Raises:
      JaxrlError: for another action space.
    """
    inner = _bounded("rescale_actions", env)
    low, width = inner.low, inner.high - inner.low
    return _with_actions(env, box(-1, 1, inner.shape), lambda action: inner.cast(low + (action + 1) / 2 * width))


def clip_actions(env: Env) -> Env:
    """Clips actions to the bounds of their space.

    Args:
      env: an environment whose actions are a bounded Box.

    Raises:
      JaxrlError: for another action space.
    """
    space = _bounded("clip_actions", env)
    return _with_actions(env, space, lambda action: space.cast(jnp.clip(action, space.low, space.high)))


def discretize_actions(env: Env, num_levels: int) -> Env:
    """Replaces each dimension of a continuous action by evenly spaced levels, both bounds among them.

    Of `d` dimensions the action number has the levels as its `d` digits to base `num_levels`, the first dimension's
    the most significant. Where actions are whole numbers, levels are the nearest ones.

    Args:
      env: an environment whose actions are a bounded Box.
      num_levels: levels per dimension, at least 2.

    Returns:
      The environment with `num_levels ** d` discrete actions.

    Raises:
      JaxrlError: for another action space, for more than 4096 actions, and for more levels than whole numbers.
    """
    table = action_levels(env.spec.id, _bounded("discretize_actions", env), num_levels)
    return _with_actions(env, Discrete(len(table)), lambda action: jnp.asarray(table)[action])


def action_levels(env_id: str, space: Any, num_levels: int) -> np.ndarray:
    """The actions that `discretize_actions` numbers, `[num_levels ** d, *space.shape]` of the space's dtype.

    Args:
      env_id: the environment's id, for messages.
      space: a bounded `Box`, ours or Gymnasium's.
      num_levels: levels per dimension.

    Raises:
      JaxrlError: for fewer than 2 levels, for more than 4096 actions, and for more levels than whole numbers.
    """
    checks.integer("discretize_actions", low=2, discretize_actions=num_levels)
    low, high, whole = space.low, space.high, space.dtype.kind in "biu"
    num_dims = math.prod(low.shape)
    if whole and num_levels > 1 + np.min(high.astype(np.float32) - low):
        raise checks.JaxrlError(
            f"discretize_actions: discretize_actions={num_levels} is not accepted for {env_id}, whose actions are "
            f"whole numbers between {low.tolist()} and {high.tolist()}; there must be as many of them in each dimension"
        )
    if num_levels**num_dims > MAX_ACTIONS:
        raise checks.JaxrlError(
            f"discretize_actions: {num_levels} levels in each of {num_dims} action dimensions of {env_id} are "
            f"{num_levels**num_dims} actions; at most {MAX_ACTIONS} are accepted"
        )
    levels = np.linspace(low.ravel(), high.ravel(), num_levels, dtype=np.float32)  # [num_levels, d]
    levels = (np.round(levels) if whole else levels).astype(space.dtype)
    digits = np.stack(np.unravel_index(np.arange(num_levels**num_dims), (num_levels,) * num_dims), axis=-1)
    return levels[digits, np.arange(num_dims)].reshape(-1, *low.shape)


def scale_rewards(env: Env, scale: float) -> Env:
    """Multiplies rewards by a number; the returns that are reported are of the scaled ones.

    What `model` and `spec.goal` say of the old rewards does not hold for them, so both are left out.

    Args:
      env: any environment.
      scale: the factor, > 0; it may be traced.

    Raises:
      JaxrlError: where `scale` is not a number above 0.
    """
    checks.number("scale_rewards", 0, open_low=True, scale_rewards=scale)

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        state, outcome = env.step(key, state, action)
        return state, outcome._replace(reward=jax.tree.map(lambda reward: scale * reward, outcome.reward))

    return Env(env.reset, step, env.spec._replace(goal=None), draw=env.draw)


def time_limit(env: Env, max_steps: int) -> Env:
    """Truncates episodes after `max_steps` steps.

    Args:
      env: any environment.
      max_steps: the limit, in environment steps.

    Raises:
      JaxrlError: where `max_steps` is not a whole number of at least 1.
    """
    checks.integer("time_limit", time_limit=max_steps)

    def reset(key: Key) -> tuple[TimeLimitState, PyTree]:
        state, obs = env.reset(key)
        return TimeLimitState(state, jnp.int32(0)), obs

    def step(key: Key, state: TimeLimitState, action: Array) -> tuple[TimeLimitState, Outcome]:
        inner, outcome = env.step(key, state.env, action)
        time = state.time + 1
        cut = (time >= max_steps) & jnp.logical_not(outcome.terminated)
        return TimeLimitState(inner, time), outcome._replace(truncated=outcome.truncated | cut)

    inner_limit = env.spec.max_steps
    limit = max_steps if inner_limit is None else min(max_steps, inner_limit)
    # Where it is not known when the environment itself truncates, that may be before the limit.
    spec = env.spec._replace(max_steps=limit, truncates_early=env.spec.truncation_gap == 1 < limit)
    return Env(reset, step, spec, draw=_inner_draw(env))


def frame_stack(env: Env, num_frames: int) -> Env:
    """Observes the last `num_frames` observations, concatenated along the last axis, the newest last.

    An episode's first observation is repeated.

    Args:
      env: an environment that observes a vector or an image, rank 1 or 3 (whose channels are concatenated).
      num_frames: how many observations.

    Raises:
      JaxrlError: for another observation space or number.
    """
    checks.integer("frame_stack", frame_stack=num_frames)
    space = _observed(env)
    if not isinstance(space, Box) or len(space.shape) not in (1, 3):
        raise checks.JaxrlError(
            f"frame_stack: {env.spec.id} observes {_describe(space)}; it must be a Box of rank 1 or 3 "
            "(flatten_observations makes it one)"
        )

    def repeat(frame: Array) -> Array:
        return jnp.concatenate([frame] * num_frames, axis=-1)

    def reset(key: Key) -> tuple[FrameStackState, Array]:
        state, obs = env.reset(key)
        frames = repeat(obs)
        return FrameStackState(state, frames), frames

    def step(key: Key, state: FrameStackState, action: Array) -> tuple[FrameStackState, Outcome]:
        inner, outcome = env.step(key, state.env, action)
        frames = jnp.concatenate([state.frames[..., space.shape[-1] :], outcome.obs], axis=-1)
        return FrameStackState(inner, frames), outcome._replace(obs=frames)

    low, high = (np.concatenate([bound] * num_frames, axis=-1) for bound in (space.low, space.high))
    spec = env.spec._replace(obs_space=Box(low, high, space.dtype), goal=None)
    return Env(reset, step, spec, draw=_inner_draw(env))


def flatten_observations(env: Env) -> Env:
    """Observes vectors: an array in row-major order, an integer as its one-hot vector (float32).

    Args:
      env: any environment. One that observes vectors stays as it is.
    """
    space = _observed(env)
    if isinstance(space, Box) and len(space.shape) == 1:
        return env
    if isinstance(space, Discrete):
        flat_space = box(0, 1, (space.n,))
    else:
        flat_space = Box(space.low.reshape(-1), space.high.reshape(-1), space.dtype)

    def flat(obs: Array) -> Array:
        return jax.nn.one_hot(obs, space.n) if isinstance(space, Discrete) else obs.reshape(-1)

    return _with_observations(env, flat_space, flat)


def observe(env: Env, indices: Sequence[int]) -> Env:
    """Observes only these entries of a vector, in this order; CartPole without its velocities is `(0, 2)`.

    Args:
      env: an environment that observes a vector.
      indices: a tuple or list of entries, from 0, each once.

    Raises:
      JaxrlError: for another observation space, and for indices that are none, not whole numbers, twice there or out of
        range.
    """
    space = _observed(env)
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise checks.JaxrlError(
            f"observe: {env.spec.id} observes {_describe(space)}; it must be a Box of rank 1 "
            "(flatten_observations makes it one)"
        )
    refused = f"observe: observe={indices!r} is not accepted for {env.spec.id}; it must "
    if not isinstance(indices, (tuple, list)) or not indices:
        raise checks.JaxrlError(f"{refused}be a tuple or list of one entry or more, such as (0, 2)")
    for index in indices:
        checks.integer("observe", low=0, index=index)
        if index >= space.shape[0]:
            raise checks.JaxrlError(f"{refused}have entries from 0 to {space.shape[0] - 1}, and {index} is not")
        if indices.count(index) > 1:
            raise checks.JaxrlError(f"{refused}have each entry once, and {index} is there more often")
    kept = np.asarray(indices)
    return _with_observations(env, Box(space.low[kept], space.high[kept], space.dtype), lambda obs: obs[kept])


def reset_pool(env: Env, size: int) -> Env:
    """Begins each episode in one of `size` initial states, drawn once from a fixed key.

    The loop draws an initial state for each environment at every step, since any may end, and uses it where one did.
    Of a pool that is a gather, and no physics: a step of Brax's inverted_pendulum costs 39 % more with fresh states,
    and 12 % more with a pool of 256 (springs, 32 environments, two CPU cores).

    Args:
      env: any environment, none of whose parameters are traced: the pool is drawn before anything runs. Episodes that
        are evaluated begin in it, too.
      size: how many states; 0 leaves the environment as it is, which draws a new state for every episode.

    Raises:
      JaxrlError: where `size` is not a whole number of at least 0; when an episode begins, where a parameter is traced.
    """
    checks.integer("reset_pool", 0, reset_pool=size)
    if not size:
        return env

    @functools.cache
    def pool() -> PyTree:
        # A compiled function without arguments runs at once, even where this is called under a trace.
        draw = jax.jit(lambda: prng.as_numbers(jax.vmap(env.reset)(jax.random.split(jax.random.key(0), size))))
        compiled = draw.lower().compile()
        try:
            # NumPy arrays belong to no device. What all the states share (inertia, zeros) is kept, and read, only once.
            states = jax.device_get(compiled())
        except TypeError as error:  # what is traced is an input of it
            raise checks.JaxrlError(
                f"reset_pool: reset_pool={size} is not accepted for {env.spec.id}, where a parameter is traced, since "
                "its states would depend on it; it must be 0"
            ) from error
        return jax.tree.map(lambda x: x[:1] if np.array_equal(x, np.broadcast_to(x[:1], x.shape)) else x, states)

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        index, like = jax.random.randint(key, (), 0, size), jax.eval_shape(env.reset, key)
        picked = jax.tree.map(lambda x: jnp.asarray(x)[index if len(x) > 1 else 0], pool())
        return jax.tree.map(prng.from_numbers, picked, like)

    return env._replace(reset=reset)


def _with_actions(env: Env, space: Space, translate: Callable[[Array], Array]) -> Env:
    """The environment with another action space, whose actions `translate` turns into the old one's."""

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        return env.step(key, state, translate(action))

    return Env(env.reset, step, env.spec._replace(action_space=space), draw=env.draw)


def _with_observations(env: Env, space: Space, translate: Callable[[Array], Array]) -> Env:
    """The environment with other observations, which `translate` makes of the old ones.

    What `model` and `spec.goal` say of the old ones does not hold for them, so both are left out.
    """

    def reset(key: Key) -> tuple[PyTree, Array]:
        state, obs = env.reset(key)
        return state, translate(obs)

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        state, outcome = env.step(key, state, action)
        return state, outcome._replace(obs=translate(outcome.obs))

    return Env(reset, step, env.spec._replace(obs_space=space, goal=None), draw=env.draw)


def _inner_draw(env: Env) -> Callable[[PyTree, Any], None] | None:
    """The environment's drawing, of a state that holds its own as `env`."""
    draw = env.draw
    return None if draw is None else lambda state, axes: draw(state.env, axes)


def _bounded(owner: str, env: Env) -> Box:
    space = as_space(env.spec.id, "actions", env.spec.action_space)
    if not isinstance(space, Box) or not space.bounded:
        text = f"{owner}: {env.spec.id} takes {_describe(space)} actions; they must be a bounded Box"
        raise checks.JaxrlError(f"{text}, with bounds of at most {space.limit}" if isinstance(space, Box) else text)
    return space


def _observed(env: Env) -> Space:
    return as_space(env.spec.id, "observations", env.spec.obs_space)


def _describe(space: Space) -> str:
    if isinstance(space, Discrete):
        return f"Discrete({space.n})"
    return f"{'bounded' if space.bounded else 'unbounded'} Box of shape {space.shape}"
