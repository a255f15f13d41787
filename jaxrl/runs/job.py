"""What a run is: the job that determines its numbers, its form in JSON, and the checks before anything compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxrl import checks
from jaxrl.envs.axes import make_grid
from jaxrl.loop import init_train, num_updates, steps_per_update
from jaxrl.numerics import CONFIG
from jaxrl.prng import by_threefry
from jaxrl.record import decode, encode, plain
from jaxrl.runs.program import ENV, Constructor, Plan, axis_values, group_agent, is_axis, plan
from jaxrl.types import Env, HostEnv

NUM_INTERVALS = 100  # log intervals of a run, unless `log_every` says otherwise
NUM_EVALUATIONS = 10
NUM_CHECKPOINTS = 10


@dataclasses.dataclass(frozen=True)
class Job:
    """All that determines a run's numbers; all periods are in environment steps of one seed. See `in_json`.

    Attributes:
      agent: the agent's name.
      env: the environment's id.
      num_steps: environment steps of each seed.
      seeds: how many seeds of each configuration.
      hyper_parameters: arguments of the agent's constructor; a list is an axis of the sweep.
      env_params: arguments of `make`.
      env_axes: more of them, each a list of values: axes of the sweep, the last ones of the grid.
      seed: what the run's key is made from.
      log_every: the log interval; 0 is a hundredth of the run.
      eval_every: the period of greedy evaluations; 0 is a tenth of the run.
      eval_episodes: episodes of each.
      checkpoint_every: the period of checkpoints; 0 is a tenth of the run.
      constructor: where the agent's constructor is imported from, `module:name`; empty for one of jaxrl's own.
    """

    agent: str
    env: str
    num_steps: int
    seeds: int
    hyper_parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    env_params: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    log_every: int = 0
    eval_every: int = 0
    eval_episodes: int = 10
    checkpoint_every: int = 0
    env_axes: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    constructor: str = ""


def in_json(job: Job, strict: bool = True) -> dict[str, Any]:
    """All that two runs must have in common to be the same one, in JSON's types; see `jaxrl.record`.

    Besides the job's own entries there are `axes`, which hyper-parameters and environment's parameters are axes, in the
    order of the grid. The number of devices and JAX's settings are not among them: by those at most the last digits
    differ.

    Args:
      job: the run.
      strict: whether to raise for what cannot be recorded.

    Raises:
      JaxrlError: naming the entry that cannot be recorded.
    """
    fields = {field.name: plain(getattr(job, field.name)) for field in dataclasses.fields(job)}

    def entry(of: str, name: str, value: Any) -> Any:
        where = f"config[{of!r}][{name!r}]"
        axis = of == "env_axes" or (of == "hyper_parameters" and is_axis(value))
        return encode(tuple(axis_values(value)) if axis else value, where, strict)

    for of, values in fields.items():
        if isinstance(values, dict):
            fields[of] = {name: entry(of, name, value) for name, value in values.items()}
    axes = [name for name, value in job.hyper_parameters.items() if is_axis(value)]
    axes += [ENV + name for name in job.env_axes]
    return fields | {"axes": axes}


def from_json(config: Mapping[str, Any]) -> Job:
    """The job that `in_json` was given.

    Raises:
      JaxrlError: if something in it cannot be imported.
    """
    job = Job(**{field.name: config[field.name] for field in dataclasses.fields(Job)})
    given = {k: decode(v) for k, v in job.hyper_parameters.items()}
    return dataclasses.replace(
        job,
        hyper_parameters={k: list(v) if k in config["axes"] else v for k, v in given.items()},
        env_params={k: decode(v) for k, v in job.env_params.items()},
        env_axes={k: list(decode(v)) for k, v in job.env_axes.items()},
    )


class Ready(NamedTuple):
    """A job whose every argument was checked, before anything compiles; `envs` are of the plan's configurations."""

    job: Job
    constructor: Constructor
    envs: list[Env | HostEnv]
    plan: Plan
    log_every: int
    eval_every: int
    checkpoint_every: int
    num_intervals: int


@by_threefry
def prepare(job: Job, constructor: Constructor) -> Ready:
    """Checks a job as a whole.

    Raises:
      JaxrlError: naming the argument, or the setting of JAX's, that is not accepted.
    """
    _check_settings()
    checks.integer("run", num_steps=job.num_steps, seeds=job.seeds, eval_episodes=job.eval_episodes)
    periods = {"log_every": job.log_every, "eval_every": job.eval_every, "checkpoint_every": job.checkpoint_every}
    checks.integer("run", 0, seed=job.seed, **periods)
    plan(constructor, job.hyper_parameters)  # before the environments, which take longer
    made = make_grid(job.env, job.env_params, job.env_axes)
    grid = plan(constructor, job.hyper_parameters, job.env_axes, made.shared)
    envs = [made.envs[i % len(made.envs)] for i in range(len(grid.configs))]
    agents = [group_agent(constructor, group) for group in grid.groups]
    for agent, group in zip(agents, grid.groups, strict=True):
        env = envs[group.indices[0]]
        num_updates(agent, job.num_steps)
        jax.eval_shape(lambda key, agent=agent, env=env: init_train(key, agent, env), jax.random.key(0))
    longest = max(map(steps_per_update, agents))
    if job.log_every and job.log_every < longest:
        raise checks.JaxrlError(
            f"run: log_every={job.log_every} is not accepted; it must be at least the {longest} steps of one update"
        )
    updates_each = -(-job.num_steps // (NUM_INTERVALS * longest))  # whole updates, so that `step` is exact
    log_every = min(job.log_every or updates_each * longest, job.num_steps)
    num_intervals, rest = divmod(job.num_steps, log_every)
    return Ready(
        job, constructor, envs, grid, log_every,
        eval_every=job.eval_every or -(-job.num_steps // NUM_EVALUATIONS),
        checkpoint_every=job.checkpoint_every or -(-job.num_steps // NUM_CHECKPOINTS),
        num_intervals=num_intervals + (rest >= longest),  # a shorter rest might hold no update: the last one takes it
    )  # fmt: skip


def _check_settings():
    if CONFIG.jax_disable_jit:
        raise checks.JaxrlError(
            "run: JAX_DISABLE_JIT is set, but a run is compiled as a whole; unset it, or call jaxrl.train in Python, "
            "which then goes operation by operation"
        )
    if CONFIG.jax_debug_key_reuse:
        raise checks.JaxrlError(
            "run: JAX_DEBUG_KEY_REUSE is set, but this check of JAX's does not follow keys through vmap over seeds; "
            "unset it, or check one seed in Python: jax.jit(lambda key: jaxrl.train(key, agent, env, num_steps))(key)"
        )


def steps_after(ready: Ready, intervals: int) -> int:
    """Environment steps of each seed at the end of that many log intervals."""
    return ready.job.num_steps if intervals >= ready.num_intervals else intervals * ready.log_every
