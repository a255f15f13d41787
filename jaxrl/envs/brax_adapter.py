"""brax's environments (Freeman et al., 2021) as ours, without brax's wrappers.

brax is imported where it is needed, as that takes seconds, and under `jax.ensure_compile_time_eval`, so that `make`
may be called inside a traced function and leaks no tracer into brax.

Where an episode ends, the next one starts from a freshly drawn initial state. Under `vmap` it has to be computed at
*every* step of every environment; where that is too dear, `reset_pool` draws from a pool of independent initial states
instead. What each adds to a step, measured on two CPU cores (32 environments, 100 steps in one compiled scan, random
actions, best of 9, steps/s without any reset):

| environment       | backend | steps/s | fresh at each step | pool   |
|-------------------|---------|---------|--------------------|--------|
| inverted_pendulum | spring  | 161k    | +36 %              | +9 %   |
| hopper            | spring  | 97k     | +43 %              | +5 %   |
| ant               | spring  | 15k     | +16 %              | +4 %   |
| ant               | mjx     | 15k     | +35 %              | +11 %  |

`spring` is the default backend because it is the fastest, by 3 times on inverted_pendulum (positional 65k,
generalized 62k, mjx 46k steps/s), and it compiles in half the time. The pool of 256 states of ant takes about 3 s to
compile and draw, once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.types import Array, Env, Key, Outcome, PyTree, Spec, box

NAMES = (
    "ant",
    "fast",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "walker2d",
)
BACKENDS = ("spring", "positional", "generalized", "mjx")
FAILING = {
    "brax/swimmer": "brax/swimmer: brax's own code for it calls jnp.clip with an argument that jax no longer has; "
    "Swimmer-misc (gymnax) is a swimmer that runs"
}


class BraxState(NamedTuple):
    """An environment's state: brax's own, and `time`, the steps taken in this episode (int32)."""

    base: PyTree
    time: Array


def list_ids() -> list[str]:
    """The ids of brax's environments, without those that do not run; does not import brax."""
    return [f"brax/{name}" for name in NAMES]


def parameters(name: str) -> list[str]:
    """The names of an environment's parameters: our two, then those of brax's constructor."""
    own = inspect.signature(_brax_envs()._envs[name]).parameters.values()
    named = [parameter.name for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    return list(dict.fromkeys(("episode_length", "reset_pool", "backend", "n_frames", "debug", *named)))


def brax_env(
    name: str, *, backend: str = "spring", episode_length: int = 1000, reset_pool: int = 0, **params: Any
) -> Env:
    """Adapts one of brax's environments.

    Args:
      name: as brax names it, such as `ant`.
      backend: the physics, one of `BACKENDS`.
      episode_length: the time limit in environment steps; reaching it truncates.
      reset_pool: 0 draws a new initial state for every episode, at the cost that the module's table shows. Another
        number is how many there are for the episodes after the first, drawn once, from a fixed key, when `step` is
        first traced.
      **params: brax's constructor's arguments; see `parameters`.

    Returns:
      The environment; its actions are in `[-1, 1]`.

    Raises:
      JaxrlError: for a value that is not accepted.
    """
    owner = f"brax/{name}"
    checks.one_of(owner, BACKENDS, backend=backend)
    checks.integer(owner, episode_length=episode_length)
    checks.integer(owner, low=0, reset_pool=reset_pool)
    envs = _brax_envs()
    with jax.ensure_compile_time_eval(), _quiet():
        try:
            base = envs.get_environment(name, backend=backend, **params)
        except (TypeError, ValueError) as error:
            raise checks.JaxrlError(f"{owner}: {error}") from error

    # brax mixes Python numbers and weak types into its states; a scan's carry wants the dtypes of the first one.
    like = jax.eval_shape(base.reset, jax.random.key(0))
    if not isinstance(like.obs, jax.ShapeDtypeStruct):
        raise checks.JaxrlError(f"{owner}: observations that are dictionaries are not supported (obs_mode)")

    def typed(state: PyTree) -> PyTree:
        return jax.tree.map(lambda x, aval: jnp.asarray(x, aval.dtype), state, like)

    def draw(key: Key) -> PyTree:
        return typed(base.reset(key))

    restart = _from_pool(draw, reset_pool) if reset_pool else draw

    def reset(key: Key) -> tuple[BraxState, Array]:
        state = draw(key)
        return BraxState(state, jnp.int32(0)), state.obs

    def step(key: Key, state: BraxState, action: Array) -> tuple[BraxState, Array, Outcome]:
        successor = typed(base.step(state.base, action))
        time = state.time + 1
        terminated = successor.done > 0
        truncated = (time >= episode_length) & ~terminated
        ended = terminated | truncated
        new, time = jax.tree.map(lambda x, y: jnp.where(ended, x, y), (restart(key), jnp.int32(0)), (successor, time))
        outcome = Outcome(successor.reward.astype(jnp.float32), terminated, truncated, successor.obs, {})
        return BraxState(new, time), new.obs, outcome

    obs_space = box(-np.inf, np.inf, like.obs.shape, like.obs.dtype)
    return Env(reset, step, Spec(owner, obs_space, box(-1, 1, (base.action_size,)), episode_length))


def _from_pool(draw: Callable[[Key], PyTree], size: int) -> Callable[[Key], PyTree]:
    """A function like `draw` that picks one of `size` states drawn before, which is a gather and no physics."""

    @functools.cache
    def pool() -> PyTree:
        # A compiled function without arguments runs at once, even where this is called under a trace.
        compiled = jax.jit(lambda: jax.vmap(draw)(jax.random.split(jax.random.key(0), size))).lower().compile()
        # NumPy arrays belong to no device. What all the states share (inertia, zeros) is kept, and read, only once.
        states = jax.device_get(compiled())
        return jax.tree.map(lambda x: x[:1] if np.array_equal(x, np.broadcast_to(x[:1], x.shape)) else x, states)

    def pick(key: Key) -> PyTree:
        index = jax.random.randint(key, (), 0, size)
        return jax.tree.map(lambda x: jnp.asarray(x)[index] if len(x) > 1 else jnp.asarray(x[0]), pool())

    return pick


def _brax_envs() -> Any:
    with jax.ensure_compile_time_eval(), _quiet():
        import brax.envs
    return brax.envs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what brax prints and warns of by itself: that `warp`, which nothing here uses, is missing, and its age."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
