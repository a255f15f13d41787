"""What an environment must keep to, said in words where it does not.

`checked` looks at types alone, where an environment is traced: training and evaluation see every environment through
it. `check_env` also plays one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks, prng
from jaxrl.checks import JaxrlError
from jaxrl.envs import host
from jaxrl.numerics import standard_numbers
from jaxrl.types import Array, Box, Discrete, Env, HostEnv, Key, Outcome, PyTree, Space, Spec, box

NUM_ENVS = 8  # that `check_env` plays side by side
TOLERANCE = 1e-5  # of a bound, that rounding may pass it by


def require_env(owner: str, env: Any, on_host: bool = False) -> Any:
    """The environment, `checked` unless the host steps it.

    Args:
      owner: whose argument this is.
      env: what was given.
      on_host: whether an environment that the host steps is accepted.

    Raises:
      JaxrlError: saying how to make one, if it is none, such as an id.
    """
    if isinstance(env, HostEnv) and not on_host:
        raise JaxrlError(
            f"{owner}: {env.spec.id} is stepped on the host, outside of what JAX compiles; jaxrl.sweep trains in it, "
            "and so does the command line, jaxrl train"
        )
    if not isinstance(env, (Env, HostEnv)):
        made = f"jaxrl.make({env!r})" if isinstance(env, str) else "jaxrl.make('CartPole-v1')"
        raise JaxrlError(f"{owner}: env={checks.shown(env)} is not accepted; it must be an Env, as {made} returns")
    return env if isinstance(env, HostEnv) else checked(env)


def checked(env: Env) -> Env:
    """The environment, of which what `reset` and `step` return is checked where they are traced.

    Python's numbers become arrays, and spaces of Gymnasium or gymnax ours. Nothing is added to what is compiled.

    Raises:
      JaxrlError: for spaces that are neither; where the functions are traced, for what does not fit: shapes and dtypes
        of observations, rewards and ends, a state that changes its shape, another order or number of what is returned.
    """
    spec = _with_our_spaces(env.spec)

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        made = env.reset(key)
        if not isinstance(made, tuple) or len(made) != 2:
            raise JaxrlError(f"{spec.id}: reset returns {_kind(made)}; it must be a pair, (state, obs)")
        state, obs = jax.tree.map(_array, made)
        _check_obs(spec, "reset", obs)
        return state, obs

    def step(key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Outcome]:
        made = env.step(key, state, action)
        if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], Outcome):
            raise JaxrlError(
                f"{spec.id}: step returns {_kind(made)}; it must be a pair, (state, jaxrl.Outcome(obs, reward, "
                "terminated, truncated)): an environment does not reset itself"
            )
        if not isinstance(made[1].extras, dict):
            raise JaxrlError(f"{spec.id}: Outcome.extras is {_kind(made[1].extras)}; it must be a dictionary of arrays")
        new, outcome = jax.tree.map(_array, made)
        _check_state(spec, state, new)
        _check_obs(spec, "step", outcome.obs)
        _check_outcome(spec, outcome)
        return new, outcome

    return env._replace(reset=reset, step=step, spec=spec)


def _array(x: Any) -> Array:
    return x if prng.is_key(x) else jnp.asarray(x, jnp.result_type(x))  # with the dtype, for it must not be a weak type


def _check_state(spec: Spec, before: PyTree, after: PyTree):
    structures = jax.tree.structure(before), jax.tree.structure(after)
    if structures[0] != structures[1]:
        raise JaxrlError(f"{spec.id}: step changes the state's structure, from {structures[0]} to {structures[1]}")
    for (path, old), new in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise JaxrlError(
                f"{spec.id}: step changes the state{jax.tree_util.keystr(path)}, from {_kind(old)} to {_kind(new)}; "
                "a state's shapes and dtypes must stay as reset makes them"
            )


def _check_obs(spec: Spec, function: str, obs: PyTree):
    for name, num_agents, space in _spaces(spec, "obs_space"):
        where = f"the observation that {function} returns"
        if spec.roles:
            roles = [role.name for role in spec.roles]
            if not isinstance(obs, dict) or sorted(obs) != sorted(roles):
                raise JaxrlError(f"{spec.id}: {where} is {_kind(obs)}; it must be a dictionary of {', '.join(roles)}")
            where, x = f"{where} for {name}", obs[name]
        else:
            x = obs
        shape = (*num_agents, *space.shape)
        if not isinstance(x, jax.Array) or (x.shape, x.dtype) != (shape, space.dtype):
            order = "" if isinstance(x, jax.Array) or function == "step" else "; reset returns (state, obs)"
            raise JaxrlError(f"{spec.id}: {where} is {_kind(x)}; its space says {space.dtype} of shape {shape}{order}")


def _check_outcome(spec: Spec, outcome: Outcome):
    rewards = {"": (outcome.reward, ())}
    if spec.roles:
        known = outcome.reward if isinstance(outcome.reward, dict) else {}
        rewards = {f" for {role.name}": (known.get(role.name), (role.num_agents,)) for role in spec.roles}
    for whose, (x, shape) in rewards.items():
        if not isinstance(x, jax.Array) or x.shape != shape or x.dtype != jnp.float32:
            raise JaxrlError(f"{spec.id}: the reward{whose} is {_kind(x)}; it must be float32 of shape {shape}")
    for name in ("terminated", "truncated"):
        x = getattr(outcome, name)
        if not isinstance(x, jax.Array) or x.shape != () or x.dtype != jnp.bool:
            raise JaxrlError(f"{spec.id}: {name} is {_kind(x)}; it must be bool of shape ()")


def _kind(x: Any) -> str:
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype} of shape {tuple(x.shape)}"
    if isinstance(x, (tuple, list)):
        names = [type(entry).__name__ for entry in x]
        return f"a {type(x).__name__} of {len(x)}" + f" ({', '.join(names)})" * (type(x) is tuple)
    return f"a dictionary of {', '.join(map(str, x))}" if isinstance(x, dict) else checks.shown(x)


# ---------------------------------------------------------------- spaces


def as_space(owner: str, what: str, space: Any) -> Space:
    """One of our spaces; of Gymnasium's and gymnax's `Discrete` and `Box` ours that is like it, with 32-bit numbers.

    Args:
      owner: the environment's id, for messages.
      what: what it is the space of, such as "observations".
      space: any of these.

    Raises:
      JaxrlError: for any other.
    """
    if isinstance(space, (Discrete, Box)):
        return space
    if hasattr(space, "n") and getattr(space, "shape", None) == () and getattr(space, "start", 0) == 0:
        return Discrete(int(space.n))
    if all(hasattr(space, name) for name in ("low", "high", "shape", "dtype")):
        dtype = np.dtype(space.dtype)
        if dtype.kind in "fiub":
            dtype = np.float32 if dtype.kind == "f" else np.int32 if dtype.itemsize > 4 else dtype
            return box(space.low, space.high, tuple(space.shape), dtype)
    hint = "; flatten_observations=True turns most into vectors" if what == "observations" else ""
    raise JaxrlError(f"{owner}: {what} of {checks.shown(space)} are not supported; they must be Discrete or Box{hint}")


def _with_our_spaces(spec: Any) -> Spec:
    if not isinstance(spec, Spec):
        raise JaxrlError(f"spec={checks.shown(spec)} is not accepted; it must be a jaxrl.Spec")

    def ours(of: Any, whose: str) -> Any:
        obs_space = as_space(spec.id, f"observations{whose}", of.obs_space)
        return of._replace(obs_space=obs_space, action_space=as_space(spec.id, f"actions{whose}", of.action_space))

    if not spec.roles:
        return ours(spec, "")
    return spec._replace(roles=tuple(ours(role, f" for {role.name}") for role in spec.roles))


def _spaces(spec: Spec, of: str) -> list[tuple[str, tuple[int, ...], Space]]:
    """The roles, or the one agent, by name, with the axis of its agents, and one of its spaces."""
    if not spec.roles:
        return [("", (), getattr(spec, of))]
    return [(role.name, (role.num_agents,), getattr(role, of)) for role in spec.roles]


# ---------------------------------------------------------------- playing


@standard_numbers
def check_env(env: Env | HostEnv, num_steps: int = 1000, key: Key | None = None):
    """Plays an environment with random actions, and says what is wrong with it.

    Besides what training refuses by itself (spaces, and the shapes and dtypes of what `reset` and `step` return) it
    finds numbers that are not finite or leave their spaces' bounds, both ends at once, episodes that do not keep to
    `spec.max_steps` and `spec.truncates_early`, and outputs that differ for the same key, as of what draws from NumPy's
    generator.

    Args:
      env: any environment; one that the host steps is played for a hundredth of the steps.
      num_steps: steps to take in each of 8 environments side by side.
      key: what is drawn with; `jax.random.key(0)` unless given.

    Raises:
      JaxrlError: with a line for each fault; it returns where there is none.

    >>> from jaxrl import make
    >>> check_env(make("jaxrl/Point-v0"))
    """
    checks.integer("check_env", num_steps=num_steps)
    env = require_env("check_env", env, on_host=True)
    key = jax.random.key(0) if key is None else key
    checks.random_key("check_env", key)
    if isinstance(env, HostEnv):
        return _play_on_host(env, -(-num_steps // 100), key)
    impure = _impure(env, key)
    played = jax.jit(lambda key: _play(env, key, num_steps))
    (first, outputs), (_, again) = (jax.tree.map(np.asarray, played(key)) for _ in range(2))
    if not impure and not _equal(outputs, again):
        impure = ["step" if _equal(outputs[:, 0], again[:, 0]) else "reset"]
    text = "differs for the same key; what it draws must come from its key, by jax.random"
    faults = [f"{name} {text}" for name in impure]
    first = {fault: int(np.argmax(seen)) for fault, seen in first.items() if seen.any()}
    faults += [f"{fault}, first {f'in step {at}' if at else 'after reset'}" for fault, at in first.items()]
    if faults:
        raise JaxrlError("\n".join(f"{env.spec.id}: {fault}" for fault in faults))


def _impure(env: Env, key: Key) -> list[str]:
    """Which functions are traced to another program the second time: constants in them were drawn while tracing."""
    state, _ = jax.eval_shape(env.reset, key)
    action = jax.eval_shape(lambda key: _actions(env.spec, key), key)

    def program(function: Callable, *arguments: Any) -> tuple[str, list]:
        traced = jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments)
        return re.sub("0x[0-9a-f]+", "", str(traced)), traced.consts

    found = []
    for name, function, arguments in (("reset", env.reset, (key,)), ("step", env.step, (key, state, action))):
        first, again = (program(function, *arguments) for _ in range(2))
        if first[0] != again[0] or not _equal(first[1], again[1]):
            found.append(name)
    return found


def _equal(a: PyTree, b: PyTree) -> bool:
    a, b = ([*map(np.asarray, jax.tree.leaves(prng.as_numbers(tree)))] for tree in (a, b))
    return len(a) == len(b) and all(
        np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(a, b, strict=True)
    )


def _actions(spec: Spec, key: Key) -> PyTree:
    """Random actions of one environment; where bounds are not finite, from [-1, 1] within them."""

    def sample(space: Space, key: Key) -> Array:
        if isinstance(space, Box) and not space.bounded:
            space = Box(np.clip(-1, space.low, space.high), np.clip(1, space.low, space.high), space.dtype)
        return space.sample(key)

    chosen = {}
    for i, (name, num_agents, space) in enumerate(_spaces(spec, "action_space")):
        keys = jax.random.split(jax.random.fold_in(key, i), num_agents)
        chosen[name] = jax.vmap(lambda key: sample(space, key))(keys) if num_agents else sample(space, keys)
    return chosen if spec.roles else chosen[""]


def _play(env: Env, key: Key, num_steps: int) -> tuple[dict[str, Array], Array]:
    """Faults, and after how many steps each is seen in any of the environments: bool `[1 + num_steps]`.

    And for each environment the sum of all that `reset` and each step returned, float32 `[NUM_ENVS, 1 + num_steps]`.
    """
    spec = env.spec
    limit = np.inf if spec.max_steps is None else spec.max_steps

    def of_obs(obs: PyTree) -> dict[str, Array]:
        finite = _all(jnp.isfinite, obs)
        inside = [_inside(space, obs[name] if spec.roles else obs) for name, _, space in _spaces(spec, "obs_space")]
        outside = finite & ~jnp.stack(inside).all()
        return {"the observation is not finite": ~finite, "the observation is out of its space's bounds": outside}

    def one(carry: tuple, key: Key) -> tuple[tuple, tuple[dict[str, Array], Array]]:
        state, time = carry
        act_key, step_key, reset_key = jax.random.split(key, 3)
        new, outcome = env.step(step_key, state, _actions(spec, act_key))
        time, ended = time + 1, outcome.terminated | outcome.truncated
        seen = {
            "the reward is not finite": ~_all(jnp.isfinite, outcome.reward),
            "the state is NaN somewhere": ~_all(_is_number, new) & ~ended,
            "terminated and truncated are both true; a terminal state is not truncated": (
                outcome.terminated & outcome.truncated
            ),
            f"an episode goes on after spec.max_steps={spec.max_steps} steps": (time >= limit) & ~ended,
            f"an episode is truncated before {spec.truncation_gap} steps, the fewest that spec.max_steps and "
            "spec.truncates_early allow": outcome.truncated & (time < spec.truncation_gap),
        }
        begun = env.reset(reset_key)[0], jnp.int32(0)
        carry = jax.tree.map(lambda x, y: jnp.where(ended, x, y), begun, (new, time))
        return carry, (of_obs(outcome.obs) | seen, _sum((new, outcome)))

    def play(key: Key) -> tuple[dict[str, Array], Array]:
        keys = jax.random.split(key, 1 + num_steps)
        state, obs = env.reset(keys[0])
        seen, sums = jax.lax.scan(one, (state, jnp.int32(0)), keys[1:])[1]
        first = of_obs(obs) | {"the state is NaN somewhere": ~_all(_is_number, state)}
        faults = {text: jnp.append(first.get(text, False), x) for text, x in seen.items()}
        return faults, jnp.append(_sum((state, obs)), sums)

    faults, sums = jax.vmap(play)(jax.random.split(key, NUM_ENVS))
    return {text: x.any(axis=0) for text, x in faults.items()}, sums


def _inside(space: Space, x: Array) -> Array:
    low, high = (0, space.n - 1) if isinstance(space, Discrete) else (space.low, space.high)
    with np.errstate(over="ignore"):  # to infinity
        low, high = low - TOLERANCE * np.maximum(1, np.abs(low)), high + TOLERANCE * np.maximum(1, np.abs(high))
    return jnp.all((x >= low) & (x <= high))


def _sum(tree: PyTree) -> Array:
    """The sum of all finite numbers of a tree, keys as numbers; float32 `()`."""
    leaves = [x.astype(jnp.float32) for x in jax.tree.leaves(prng.as_numbers(tree))]
    return sum((jnp.sum(x, where=jnp.isfinite(x)) for x in leaves), jnp.float32(0))


def _is_number(x: Array) -> Array:
    return ~jnp.isnan(x)


def _all(test: Callable[[Array], Array], tree: PyTree) -> Array:
    """Whether all floats of a tree pass a test."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.bool(True), *(test(x).all() for x in floats)]).all()


def _play_on_host(env: HostEnv, num_steps: int, key: Key):
    first, *keys = jax.random.split(key, 1 + num_steps)
    try:
        with contextlib.closing(env.make_vector(1)) as vector:
            vector.reset(np.asarray(host.draw_seeds(first, 1)).tolist())
            for key in keys:
                vector.step(np.asarray(_actions(env.spec, key))[None])
    except checks.StepError as error:
        raise JaxrlError(f"{env.spec.id}: {error.text}") from error
