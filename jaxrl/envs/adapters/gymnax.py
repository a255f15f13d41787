"""gymnax's environments (Lange, 2022) as ours.

gymnax is imported where it is needed, as that takes seconds. The import and the construction run under
`jax.ensure_compile_time_eval`, so that `make` may be called inside a traced function and leaks no tracer into gymnax.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxrl import checks
from jaxrl.envs import drawing
from jaxrl.envs.own import grid
from jaxrl.types import Array, Discrete, Env, Key, Outcome, PyTree, Space, Spec, box

FAILING = {
    "MNISTBandit-bsuite": "MNISTBandit-bsuite: it downloads the MNIST data set when it is constructed, which jaxrl "
    "does not support; SimpleBandit-bsuite and BernoulliBandit-misc are bandits without a download"
}

# Parameters that gymnax stores beside those that they follow from. Who changes a mass means the consistent physics.
DERIVED: dict[str, dict[str, Callable[[Any], Any]]] = {
    "CartPole-v1": {
        "total_mass": lambda params: params.masscart + params.masspole,
        "polemass_length": lambda params: params.masspole * params.length,
    }
}


def list_ids() -> list[str]:
    """The ids of gymnax's environments, without those that do not run."""
    with jax.ensure_compile_time_eval():
        import gymnax
    return [env_id for env_id in gymnax.registered_envs if env_id not in FAILING]


def parameters(env_id: str) -> list[str]:
    """The names of an environment's parameters: the fields of its `EnvParams`, then its constructor's arguments."""
    with jax.ensure_compile_time_eval():
        import gymnax

        env, defaults = gymnax.make(env_id)
    return [*(field.name for field in dataclasses.fields(defaults)), *_constructor_arguments(env)]


def float_parameters(env_id: str) -> list[str]:
    """Those of an environment's parameters that are floats, and may be traced."""
    with jax.ensure_compile_time_eval():
        import gymnax

        _, defaults = gymnax.make(env_id)
    floats = [field.name for field in dataclasses.fields(defaults) if isinstance(getattr(defaults, field.name), float)]
    return [name for name in floats if name != "max_steps_in_episode"]  # a bandit has it as a float


def gymnax_env(env_id: str, **params: Any) -> Env:
    """Adapts one of gymnax's environments.

    Args:
      env_id: as gymnax names it, such as `CartPole-v1`.
      **params: fields of the environment's `EnvParams`, of which numbers may be traced, and arguments of its
        constructor; see `parameters`.

    Returns:
      The environment. A traced parameter leaves the observation bounds that depend on it infinite, and
      `spec.max_steps` None.

    Raises:
      JaxrlError: for a value that is not accepted, and for a traced parameter that action bounds depend on.
    """
    with jax.ensure_compile_time_eval():
        import gymnax

        arguments = _constructor_arguments(gymnax.make(env_id)[0])
        try:
            base, defaults = gymnax.make(env_id, **{k: v for k, v in params.items() if k in arguments})
        except (TypeError, ValueError, AssertionError) as error:
            raise checks.JaxrlError(f"{env_id}: {error}") from error
        env_params = _replace(env_id, defaults, {k: v for k, v in params.items() if k not in arguments})
        action_space, obs_space = base.action_space(env_params), base.observation_space(env_params)
    # Outside: under compile-time evaluation, tracing the functions below would run them, operation by operation.
    env = _adapt(env_id, base, env_params, action_space, obs_space)
    return _with_model(env, base) if env_id == "FrozenLake-misc" else env


def _with_model(env: Env, lake: Any) -> Env:
    """The frozen lake with its model, layout and the names of its actions."""
    names = ("left", "down", "right", "up")
    rows = tuple("".join("S.#T"[tile] for tile in row) for row in np.asarray(lake.desc))
    success_rate = lake.success_rate if lake.is_slippery else 1.0
    rewards = tuple(np.asarray(lake.reward_schedule).tolist())
    model = grid.frozen_lake_model(rows, success_rate, rewards, tuple(grid.MOVES[name] for name in names))
    spec = env.spec._replace(layout=rows, action_names=names)
    return env._replace(spec=spec, model=model, draw=lambda state, axes: drawing.cells(rows, state.position, axes))


def _adapt(env_id: str, base: Any, params: Any, action_space: Any, obs_space: Any) -> Env:
    """The two functions, with fixed dtypes: in gymnax a state's `time` starts as a Python integer."""
    action_space = _space(action_space)
    if action_space is None:
        raise checks.JaxrlError(f"{env_id}: a traced parameter would make the action space traced; it must be a number")

    key = jax.random.key(0)
    start = jax.eval_shape(lambda: base.reset_env(key, params))
    action = jax.eval_shape(lambda: action_space.sample(key))
    after = jax.eval_shape(lambda state, action: base.step_env(key, state, action, params)[:2], start[1], action)
    obs_dtype, state_dtypes = jax.tree.map(
        lambda x, y: jnp.promote_types(x.dtype, y.dtype) if x.dtype != y.dtype else x.dtype, start, after
    )
    if env_id.endswith("-MinAtar"):  # bits, which gymnax hands out as floats: a replay of them is a quarter as long
        obs_dtype = jnp.dtype(bool)
    dtypes = (obs_dtype, state_dtypes)

    def typed(obs_and_state: PyTree) -> PyTree:
        return jax.tree.map(lambda x, dtype: jnp.asarray(x, dtype), obs_and_state, dtypes)

    def reset(key: Key) -> tuple[PyTree, Array]:
        obs, state = typed(base.reset_env(key, params))
        return state, obs

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        obs, state, reward, terminated, _ = base.step_env(key, state, action, params)
        obs, state = typed((obs, state))
        terminated = jnp.asarray(terminated, bool).reshape(())
        # Some environments report both ends at once (DeepSea): a terminal state's value is 0, so termination wins.
        truncated = jnp.asarray(base.is_truncated(state, params), bool).reshape(()) & ~terminated
        return state, Outcome(obs, jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)

    limit = params.max_steps_in_episode
    max_steps = None if isinstance(limit, Tracer) else int(limit)
    observed: Any = _space(obs_space, like=start[0].update(dtype=obs_dtype))
    spec = Spec(env_id, observed, action_space, max_steps)
    return Env(reset, step, spec, draw=_drawing(base, params, spec))


def _drawing(base: Any, params: Any, spec: Spec) -> Callable[[PyTree, Any], None] | None:
    """How a state is drawn: classic control by hand, an environment that observes a picture as that picture."""
    if spec.id in drawing.CLASSIC:
        return functools.partial(drawing.CLASSIC[spec.id], params=params)
    if len(spec.obs_space.shape) in (2, 3) and min(spec.obs_space.shape[:2]) > 1:
        observe = jax.jit(base.get_obs)
        return lambda state, axes: drawing.pixels(observe(state, params), axes)
    return None


def _constructor_arguments(env: Any) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(type(env)).parameters.values() if p.kind in named]


def _replace(env_id: str, defaults: Any, params: dict[str, Any]) -> Any:
    """An environment's `EnvParams` with some of them replaced, and those derived from them.

    A number becomes one of its default's type: gymnax computes with it, and is particular about types.
    """
    params = dict(params)
    for name, value in params.items():
        default = getattr(defaults, name)
        shape = np.shape(default)
        if np.shape(value) != shape:
            wanted = f"numbers of shape {shape}" if shape else "a number"
            raise checks.JaxrlError(f"{env_id}: {name}={value} is not accepted; it must be {wanted}")
        if not shape:
            limit = name == "max_steps_in_episode"
            checks.number(env_id, low=1 if limit else -np.inf, **{name: value})
            if isinstance(value, Tracer):
                continue
            if isinstance(default, bool):
                checks.one_of(env_id, (True, False), **{name: value})
            elif (isinstance(default, int) or limit) and not float(value).is_integer():
                raise checks.JaxrlError(f"{env_id}: {name}={value} is not accepted; it must be a whole number")
            if isinstance(default, (bool, int, float)):
                params[name] = type(default)(value)
    replaced = defaults.replace(**params)
    derived = {k: f(replaced) for k, f in DERIVED.get(env_id, {}).items() if k not in params}
    return replaced.replace(**derived)


def _space(space: Any, like: jax.ShapeDtypeStruct | None = None) -> Space | None:
    """One of gymnax's spaces as ours, or None where its bounds are traced and nothing stands in for them.

    Args:
      space: gymnax's `Discrete` or `Box`.
      like: the real shape and dtype, which win over those declared (`Catch-bsuite` declares integers, and observes
        floats); None to believe the declaration.
    """
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    shape, dtype = (tuple(space.shape), space.dtype) if like is None else (like.shape, like.dtype)
    if any(isinstance(bound, Tracer) for bound in (space.low, space.high)):
        return None if like is None else box(-np.inf, np.inf, shape, dtype)
    low, high = np.asarray(space.low), np.asarray(space.high)
    if any(bound.shape not in ((), shape) for bound in (low, high)):
        low, high = low.min(), high.max()
    return box(low, high, shape, dtype)
