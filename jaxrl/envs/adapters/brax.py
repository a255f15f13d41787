"""brax's environments (Freeman et al., 2021) as ours, without brax's wrappers.

brax is imported where it is needed, as that takes seconds, and under `jax.ensure_compile_time_eval`, so that `make`
may be called inside a traced function and leaks no tracer into brax.

`spring` is the default backend because it is the fastest, by 3 times on inverted_pendulum (positional 65k,
generalized 62k, mjx 46k steps/s), and it compiles in half the time.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax

from jaxrl import checks
from jaxrl.envs.adapters import physics
from jaxrl.types import Array, Env

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
WITHOUT_PHYSICS = ("fast",)
BACKENDS = ("spring", "positional", "generalized", "mjx")
FAILING = {
    "brax/swimmer": "brax/swimmer: brax's own code for it calls jnp.clip with an argument that jax no longer has; "
    "Swimmer-misc (gymnax) is a swimmer that runs"
}


def list_ids() -> list[str]:
    """The ids of brax's environments, without those that do not run; does not import brax."""
    return [f"brax/{name}" for name in NAMES]


def parameters(name: str) -> list[str]:
    """The names of an environment's parameters: ours, then those of brax's constructor."""
    own = inspect.signature(_brax_envs()._envs[name]).parameters.values()
    named = [parameter.name for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    scales = () if name in WITHOUT_PHYSICS else physics.SCALES
    return list(dict.fromkeys(("episode_length", *scales, "backend", "n_frames", "debug", *named)))


def float_parameters(name: str) -> list[str]:
    """Those of an environment's parameters that are floats, and may be traced."""
    own = inspect.signature(_brax_envs()._envs[name]).parameters.values()
    scales = () if name in WITHOUT_PHYSICS else physics.SCALES
    return [*scales, *(parameter.name for parameter in own if isinstance(parameter.default, float))]


def brax_env(name: str, *, backend: str = "spring", episode_length: int = 1000, **params: Any) -> Env:
    """Adapts one of brax's environments.

    Args:
      name: as brax names it, such as `ant`.
      backend: the physics, one of `BACKENDS`.
      episode_length: the time limit in environment steps; reaching it truncates.
      **params: `gravity_scale`, `friction_scale` and `mass_scale`, factors on the physics, where they change anything,
        and brax's constructor's arguments; see `parameters`. Those that are floats may be traced.

    Returns:
      The environment; its actions are in `[-1, 1]`. Physics that stops being finite terminates, and what is not finite
      then counts as 0.

    Raises:
      JaxrlError: for a value that is not accepted.
    """
    owner = f"brax/{name}"
    checks.one_of(owner, BACKENDS, backend=backend)
    checks.integer(owner, episode_length=episode_length)
    envs = _brax_envs()
    with jax.ensure_compile_time_eval(), physics.quiet():
        try:
            own = {k: v for k, v in params.items() if k not in physics.SCALES}
            base = envs.get_environment(name, backend=backend, **own)
        except (TypeError, ValueError) as error:
            raise checks.JaxrlError(f"{owner}: {error}") from error
        scales = {k: v for k, v in params.items() if k in physics.SCALES}
        if scales:
            system = base.sys
            if "mass_scale" in scales and backend in physics.MASSES_TO_A_POWER:
                system = physics.with_masses_in_use(system)
            physics.refuse_inert(owner, system, system.mj_model, scales)
            base.sys = physics.scale_physics(owner, system, scales)

    if not isinstance(jax.eval_shape(base.reset, jax.random.key(0)).obs, jax.ShapeDtypeStruct):
        raise checks.JaxrlError(f"{owner}: observations that are dictionaries are not supported (obs_mode)")

    def moved(state: Any) -> tuple[Array, Array]:
        return state.pipeline_state.q, state.pipeline_state.qd

    return physics.adapt(owner, base, base.reset, moved, lambda state: state.obs, episode_length)


def _brax_envs() -> Any:
    with jax.ensure_compile_time_eval(), physics.quiet():
        import brax.envs
    return brax.envs
