"""Domain randomisation: in every episode other physics (Tobin et al. 2017; Peng et al. 2018).

An environment's float parameters may be traced, so each of many environments under one `vmap` may have its own. Here
they are drawn where an episode begins, and carried in the environment's state until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.types import Array, Box, Env, Key, Outcome, PyTree, Spec


class RandomizedState(NamedTuple):
    """The environment's own state, and `values`, this episode's parameters in the order of their names; float32."""

    env: PyTree
    values: Array


def randomize(
    id: str,
    make_env: Callable[..., Env],
    ranges: Mapping[str, Sequence[float]],
    *,
    floats: Collection[str],
    fixed: Collection[str] = (),
    observed: bool = False,
) -> Env:
    """An environment that draws some of its parameters anew for each episode, uniformly and independently.

    A step's dynamics, and where its episode began, are those of the values drawn for the episode.

    Args:
      id: the environment's id, for messages.
      make_env: `make_env(**values) -> Env`, whose float arguments may be traced.
      ranges: for each parameter `(low, high)`, drawn from `[low, high)`; equal bounds are that value.
      floats: the names of the parameters that are floats.
      fixed: the names of those that have been given a value, and so cannot be drawn.
      observed: whether observations, which must then be vectors, end with the episode's values, in the order of
        `ranges`.

    Returns:
      The environment. Observation bounds that depend on a drawn parameter are infinite.

    Raises:
      JaxrlError: for a parameter that is not known, not a float, or that cannot be traced, for a range that is not two
        finite numbers in their order, or whose ends the environment refuses, and for observations that are no vectors.
    """
    low, high = _bounds(id, ranges, floats, fixed)

    def env_of(values: Array) -> Env:
        return make_env(**dict(zip(ranges, values, strict=True)))

    at_low, _ = env_of(low.tolist()), env_of(high.tolist())  # either raises where the environment refuses a value
    try:
        spec = traced_spec(make_env, dict(zip(ranges, low.tolist(), strict=True)))
    except checks.JaxrlError as error:
        raise checks.JaxrlError(f"{id}: randomize={dict(ranges)} is not accepted; {error}") from error

    def observe(obs: PyTree, values: Array) -> PyTree:
        return jnp.concatenate([obs, values]) if observed else obs

    def reset(key: Key) -> tuple[RandomizedState, PyTree]:
        values_key, env_key = jax.random.split(key)
        values = jax.random.uniform(values_key, low.shape, minval=low, maxval=high)
        state, obs = env_of(values).reset(env_key)
        return RandomizedState(state, values), observe(obs, values)

    def step(key: Key, state: RandomizedState, action: Array) -> tuple[RandomizedState, Outcome]:
        inner, outcome = env_of(state.values).step(key, state.env, action)
        return state._replace(env=inner), outcome._replace(obs=observe(outcome.obs, state.values))

    def draw(state: RandomizedState, axes: Any):
        if drawn := env_of(np.asarray(state.values).tolist()).draw:
            drawn(state.env, axes)

    if observed:
        spec = _with_values(spec, low, high)
    return Env(reset, step, spec, draw=None if at_low.draw is None else draw)


def traced_spec(make_env: Callable[..., Any], values: Mapping[str, float]) -> Spec:
    """The spec that an environment has where some of its parameters are traced, and it can be stepped.

    Args:
      make_env: `make_env(**values) -> Env`.
      values: numbers in place of those that will be traced.

    Raises:
      JaxrlError: if it must know their values when it is made.
    """
    specs = []

    def one_step(values: dict[str, Array], key: Key) -> PyTree:
        env = make_env(**values)
        specs.append(env.spec)
        state, _ = env.reset(key)
        return env.step(key, state, jnp.zeros(env.spec.action_space.shape, env.spec.action_space.dtype))[1]

    floats = {name: jnp.float32(value) for name, value in values.items()}
    try:
        jax.eval_shape(one_step, floats, jax.random.key(0))
    except jax.errors.JAXTypeError as error:
        raise checks.JaxrlError(
            f"the values of {', '.join(values)} must be known where the environment is made, so they cannot be traced"
        ) from error
    return specs[0]


def _bounds(
    id: str, ranges: Mapping[str, Sequence[float]], floats: Collection[str], fixed: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The ranges' lower and upper ends, float32 `[n]`, checked."""
    refused = f"{id}: randomize={ranges!r} is not accepted; it must "
    if not isinstance(ranges, Mapping) or not ranges:
        example = "{'length': (0.3, 0.7)}"
        raise checks.JaxrlError(f"{refused}be a dictionary from a parameter's name to (low, high), such as {example}")
    for name, ends in ranges.items():
        if not floats:
            raise checks.JaxrlError(f"{refused}be left out, since the environment has no float parameters")
        if name not in floats:
            raise checks.unknown_name(f"float parameter of {id} in randomize", str(name), floats)
        if name in fixed:
            raise checks.JaxrlError(f"{refused}not have {name}, which is given a value as well")
        if not isinstance(ends, (tuple, list)) or len(ends) != 2:
            raise checks.JaxrlError(f"{refused}have a pair (low, high) for {name}, and {ends!r} is not")
        for end in ends:
            checks.number(f"{id}: randomize", **dict[str, Any]({name: end}))
        if ends[0] > ends[1]:
            raise checks.JaxrlError(f"{refused}have the lower bound first, and {name}={ends!r} has not")
    with np.errstate(over="ignore"):
        low, high = np.array(list(ranges.values()), np.float32).T
        too_wide = ~np.isfinite(high - low)
    if too_wide.any():
        name = list(ranges)[int(np.argmax(too_wide))]
        raise checks.JaxrlError(f"{refused}have numbers, and between them a distance, that float32 holds for {name}")
    return low, high


def _with_values(spec: Spec, low: np.ndarray, high: np.ndarray) -> Spec:
    """The spec of observations that end with the values; a goal's functions would not know them, so it is left out."""
    space = spec.obs_space
    if not isinstance(space, Box) or len(space.shape) != 1 or space.dtype != np.float32:
        raise checks.JaxrlError(
            f"{spec.id}: observe_randomized=True is not accepted; the environment's observations must be vectors of "
            "floats"
        )
    low, high = (np.concatenate([a, b]) for a, b in ((space.low, low), (space.high, high)))
    return spec._replace(obs_space=Box(low, high), goal=None)
