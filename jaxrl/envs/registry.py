"""`make`: from an environment's id and parameters to the environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from jax.core import Tracer

from jaxrl import checks
from jaxrl.envs import wrappers
from jaxrl.envs.adapters import brax as brax_adapter
from jaxrl.envs.adapters import gymnasium as gymnasium_adapter
from jaxrl.envs.adapters import gymnax as gymnax_adapter
from jaxrl.envs.adapters import physics
from jaxrl.envs.adapters import playground as playground_adapter
from jaxrl.envs.own import arm, bit_flip, grid, maximization_bias, point, point_reach, probes, random_walk
from jaxrl.envs.randomize import randomize
from jaxrl.numerics import standard_numbers
from jaxrl.types import Env, HostEnv

# Our own environments: id -> constructor, whose keyword arguments are the environment's parameters.
OWN: dict[str, Callable[..., Env]] = {
    "jaxrl/Corridor-v0": grid.corridor,
    "jaxrl/Maze-v0": grid.maze,
    "jaxrl/Cliff-v0": grid.cliff,
    "jaxrl/WindyGrid-v0": grid.windy_grid,
    "jaxrl/RandomWalk-v0": random_walk.random_walk,
    "jaxrl/MaximizationBias-v0": maximization_bias.maximization_bias,
    "jaxrl/BitFlip-v0": bit_flip.bit_flip,
    "jaxrl/PointReach-v0": point_reach.point_reach,
    "jaxrl/Point-v0": point.point,
    "jaxrl/Arm-easy-v0": arm.arm_easy,
    "jaxrl/Arm-hard-v0": arm.arm_hard,
    "jaxrl/ArmReach-v0": arm.arm_reach,
    **probes.PROBES,
}

NOT_SUPPORTED = ("jaxmarl",)

HOST = f"{gymnasium_adapter.GROUP}/"  # what the ids begin with of environments that are stepped on the host

# The parameters of `make` that are wrappers, in the order in which they are applied.
WRAPPERS: dict[str, Callable[..., Env]] = {
    "time_limit": wrappers.time_limit,
    "discretize_actions": wrappers.discretize_actions,
    "rescale_actions": wrappers.rescale_actions,
    "clip_actions": wrappers.clip_actions,
    "scale_rewards": wrappers.scale_rewards,
    "flatten_observations": wrappers.flatten_observations,
    "observe": wrappers.observe,
    "frame_stack": wrappers.frame_stack,
    "reset_pool": wrappers.reset_pool,
}
SWITCHES = ("rescale_actions", "clip_actions", "flatten_observations")
RANDOMIZATION = ("randomize", "observe_randomized")


@standard_numbers
def make(env_id: str, **params: Any) -> Env | HostEnv:
    """Makes an environment.

    Example:
      >>> env = make("jaxrl/Probe-action-v0", continuous=True)
      >>> env.spec.action_space.shape
      (1,)
      >>> make("jaxrl/Probe-action-v0", continuous=True, discretize_actions=5).spec.action_space
      Discrete(n=5)

    Args:
      env_id: `CartPole-v1` and every other gymnax id as it is, `brax/ant`, `playground/CheetahRun`,
        `gymnasium/LunarLander-v3`, or one of ours, `jaxrl/Probe-value-v0`; `list_ids` has them all.
      **params: the environment's own parameters, and wrappers, which are applied in this order:
        `time_limit` (int, environment steps), `discretize_actions` (int, levels per dimension), `rescale_actions`,
        `clip_actions` (each True or False), `scale_rewards` (a factor), `flatten_observations` (True or False),
        `observe` (a tuple or list of the entries of a vector to keep), `frame_stack` (int, observations) and
        `reset_pool` (int, initial states to begin episodes in; see `wrappers.reset_pool`). Before all of them comes
        `randomize`, a dictionary of float parameters of the environment to the `(low, high)` that each episode draws
        them from, such as `{"length": (0.3, 0.7)}`; `observe_randomized=True` appends them to the
        observation. For gymnax the environment's parameters are the fields of its `EnvParams`, of which the float ones
        may be traced, and its constructor's arguments; for brax they are the constructor's arguments, `episode_length`
        and factors on the physics, `gravity_scale`, `friction_scale` and `mass_scale`; the last four are playground's
        as well, with `ctrl_dt` and `sim_dt`. For gymnasium they are the constructor's arguments and those
        of `gymnasium_adapter.gymnasium_env`, such as `vectorization="async"`; the wrappers are Gymnasium's own.

    Returns:
      The environment, of one instance: the training loop vmaps it. Of gymnasium's a `HostEnv`, which the host steps.

    Raises:
      JaxrlError: for an unknown id or parameter, and for a value that is not accepted.
    """
    checks.arguments("make", make, {"env_id": env_id})
    ranges, observed = params.pop("randomize", None), params.pop("observe_randomized", False)
    if not isinstance(observed, bool) or (observed and ranges is None):
        wanted = "True or False" if ranges is not None else "left out without randomize"
        raise checks.JaxrlError(f"{env_id}: observe_randomized={observed!r} is not accepted; it must be {wanted}")
    chosen = {name: params.pop(name) for name in WRAPPERS if name in params}
    for name in SWITCHES:
        if not isinstance(chosen.get(name, False), bool):
            raise checks.JaxrlError(f"{env_id}: {name}={chosen[name]!r} is not accepted; it must be True or False")
    if env_id.startswith(HOST):
        for name, value in {"randomize": ranges, "reset_pool": chosen.get("reset_pool")}.items():
            if value is not None:
                raise checks.JaxrlError(f"{env_id}: {name}={value} is not accepted on the host; leave it out")
        return gymnasium_adapter.gymnasium_env(env_id.removeprefix(HOST), chosen, **params)
    for name, value in params.items():
        if chosen.get("reset_pool") and isinstance(value, Tracer):
            raise checks.JaxrlError(
                f"{env_id}: reset_pool={chosen['reset_pool']} is not accepted where {name} is traced, since its states "
                "would depend on it; it must be 0"
            )
    env = _construct(env_id, params)
    if ranges is not None:
        floats = [name for name in float_parameters(env_id) if name not in WRAPPERS]
        make_env = lambda **values: _construct(env_id, params | values)  # noqa: E731
        env = randomize(env_id, make_env, ranges, floats=floats, fixed=params, observed=observed)
    for name, value in chosen.items():
        if name in SWITCHES:
            env = WRAPPERS[name](env) if value else env
        elif value is not None:
            env = WRAPPERS[name](env, value)
    return env


def list_ids() -> dict[str, list[str]]:
    """The ids that `make` accepts, by group; imports gymnax (a few seconds) and gymnasium, and not brax."""
    return {
        "jaxrl": list(OWN),
        "gymnax": gymnax_adapter.list_ids(),
        "brax": brax_adapter.list_ids(),
        "playground": playground_adapter.list_ids(),
        "gymnasium": gymnasium_adapter.list_ids(),
    }


def float_parameters(env_id: str) -> list[str]:
    """The names of an environment's parameters, and its wrappers', that are floats; most of them may be traced.

    Args:
      env_id: one that `make` accepts.
    """
    group, _, name = env_id.partition("/")
    if env_id.startswith(HOST):
        return []
    if env_id in OWN:
        parameters = inspect.signature(OWN[env_id]).parameters.values()
        own = [p.name for p in parameters if p.annotation in ("float", float)]
    elif group == "brax":
        own = brax_adapter.float_parameters(name)
    elif group == "playground":
        own = list(physics.SCALES)
    else:
        own = gymnax_adapter.float_parameters(env_id) if not name else []
    return [*own, "scale_rewards"]


def check_params(env_id: str, params: Iterable[str], accepted: Iterable[str]):
    """Checks that an environment's parameters are among those accepted.

    Raises:
      JaxrlError: naming the first that is not, and listing those accepted, wrappers last.
    """
    accepted = (*accepted, *WRAPPERS, *RANDOMIZATION)
    for name in params:
        if name not in accepted:
            raise checks.JaxrlError(f"{env_id}: unknown parameter {name!r}; there are: {', '.join(accepted)}")


def _construct(env_id: str, params: dict[str, Any]) -> Env:
    group, _, name = env_id.partition("/")
    if name and group in NOT_SUPPORTED:
        raise checks.JaxrlError(
            f"{env_id}: environments of {group} are not supported yet (jaxrl list shows those that are)"
        )
    failing = brax_adapter.FAILING | playground_adapter.FAILING | gymnax_adapter.FAILING
    if env_id in failing:
        raise checks.JaxrlError(failing[env_id])
    if env_id in OWN:
        constructor, named, accepted = OWN[env_id], (), inspect.signature(OWN[env_id]).parameters
    elif env_id in brax_adapter.list_ids():
        constructor, named, accepted = brax_adapter.brax_env, (name,), brax_adapter.parameters(name)
    elif env_id in playground_adapter.IDS:
        constructor, named, accepted = playground_adapter.playground_env, (name,), playground_adapter.PARAMETERS
    elif not name and env_id in gymnax_adapter.list_ids():
        constructor, named, accepted = gymnax_adapter.gymnax_env, (env_id,), gymnax_adapter.parameters(env_id)
    else:
        known = {*playground_adapter.IDS, *(known_id for ids in list_ids().values() for known_id in ids)}
        raise checks.unknown_name("environment", env_id, known, see="jaxrl list")
    check_params(env_id, params, accepted)
    checks.arguments(env_id, constructor, params)
    return constructor(*named, **params)
