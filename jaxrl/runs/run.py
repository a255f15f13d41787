"""The host's side of training: chunks, metrics, evaluation, checkpoints, resuming, and what is written at the end.

The device computes a chunk, one log interval, in which metrics are reduced; the host records those of the chunk before
meanwhile. A run without a folder keeps all of it in memory and writes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl import checks
from jaxrl.analysis.results import Results, diverged_seeds
from jaxrl.analysis.statistics import final_return
from jaxrl.constructors import parameters
from jaxrl.envs import make
from jaxrl.envs.axes import make_grid
from jaxrl.loop import TrainState, init_train, none_yet, num_updates, steps_per_update
from jaxrl.prng import by_threefry
from jaxrl.record import decode, encode, plain, reference
from jaxrl.runs import checkpoint, folder
from jaxrl.runs.devices import num_threads
from jaxrl.runs.host import HostError, compile_host_group
from jaxrl.runs.program import (
    ENV,
    ROW_AXES,
    Constructor,
    Group,
    Plan,
    Program,
    axis_values,
    compile_group,
    group_agent,
    is_axis,
    name_of,
    placed,
    plan,
    split_axes,
    stored,
    stored_shapes,
    unwrapped,
    with_defaults,
)
from jaxrl.types import Agent, Env, HostEnv

NUM_INTERVALS = 100  # log intervals of a run, unless `log_every` says otherwise
NUM_EVALUATIONS = 10
NUM_CHECKPOINTS = 10
PACKAGES = (
    "jaxrl", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "orbax-checkpoint", "numpy",
    "gymnasium", "ale-py", "mujoco", "mujoco-mjx", "playground",  # these last need not be installed
)  # fmt: skip


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


class Listener(NamedTuple):
    """Who wants to know how a run goes on; each function may be left out.

    Attributes:
      compiled: `compiled(ready, group_index, program, intervals_done)`, before a group's first chunk.
      interval: `interval(ready, group_index, interval, steps, metrics)`; `metrics` are arrays `[config, seed]`.
      restored: `restored(ready, group_index, intervals_done, metrics)`, after `compiled`, where a group resumes from a
        checkpoint; `metrics` are arrays `[config, seed, time]`, known up to there.
    """

    compiled: Callable[..., None] = lambda *_: None
    interval: Callable[..., None] = lambda *_: None
    restored: Callable[..., None] = lambda *_: None


class Interrupted(Exception):
    """A run was asked to stop, and has: its checkpoint is complete."""


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
    if jax.config.jax_disable_jit:
        raise checks.JaxrlError(
            "run: JAX_DISABLE_JIT is set, but a run is compiled as a whole; unset it, or call jaxrl.train in Python, "
            "which then goes operation by operation"
        )
    if jax.config.jax_debug_key_reuse:
        raise checks.JaxrlError(
            "run: JAX_DEBUG_KEY_REUSE is set, but this check of JAX's does not follow keys through vmap over seeds; "
            "unset it, or check one seed in Python: jax.jit(lambda key: jaxrl.train(key, agent, env, num_steps))(key)"
        )


def steps_after(ready: Ready, intervals: int) -> int:
    """Environment steps of each seed at the end of that many log intervals."""
    return ready.job.num_steps if intervals >= ready.num_intervals else intervals * ready.log_every


def _due(ready: Ready, interval: int, every: int) -> bool:
    """Whether a multiple of the period, or the run's end, falls into a log interval."""
    start, end = steps_after(ready, interval), steps_after(ready, interval + 1)
    return end // every > start // every or interval + 1 == ready.num_intervals


@by_threefry
def compile_for(ready: Ready, group: Group, **options: Any) -> Program:
    """The group's program; see `compile_group` for the options."""
    job, env = ready.job, ready.envs[group.indices[0]]
    compile_any = compile_host_group if isinstance(env, HostEnv) else compile_group
    return compile_any(
        ready.constructor,
        group,
        functools.partial(make, job.env, **job.env_params, **group.env_static) if group.env_traced else env,
        run_key=jax.random.key(ready.job.seed),
        num_seeds=ready.job.seeds,
        **{"num_eval_episodes": ready.job.eval_episodes} | options,
    )


class Record(NamedTuple):
    """What a trained group leaves: metrics `[config, seed, time]`, and facts about how it ran."""

    metrics: dict[str, np.ndarray]
    facts: dict[str, Any]


def execute(
    ready: Ready,
    out: pathlib.Path | None = None,
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Results:
    """Trains all groups, one after the other, from their last checkpoints where there are any.

    Args:
      ready: from `prepare`.
      out: the run's folder, for its checkpoints; None writes nothing.
      listeners: told of each step.
      should_stop: asked after each chunk.

    Returns:
      the results.

    Raises:
      Interrupted: if it was asked to stop; with a folder, after a checkpoint.
      JaxrlError: if a checkpoint is damaged or of another program.
    """
    records, programs = [], []
    for index, group in enumerate(ready.plan.groups):
        program = compile_for(ready, group)
        with contextlib.closing(program):
            records.append(_train_group(ready, index, program, _checkpoints(out, index), listeners, should_stop))
        programs.append(program)
    return _assemble(ready, records, programs)


def _checkpoints(out: pathlib.Path | None, index: int) -> pathlib.Path | None:
    return None if out is None else out / "checkpoints" / f"group_{index}"


def _train_group(
    ready: Ready,
    index: int,
    program: Program,
    checkpoints: pathlib.Path | None,
    listeners: Sequence[Listener],
    should_stop: Callable[[], bool],
) -> Record:
    group, per_update = ready.plan.groups[index], steps_per_update(program.agent)
    job = {} if checkpoints is None else in_json(ready.job)
    shape = (len(group.indices), ready.job.seeds)
    with contextlib.nullcontext() if checkpoints is None else checkpoint.manager(checkpoints) as opened:
        found = checkpoint.restore(opened, stored_shapes(program), job) if opened else None
        nothing = {"episode_return": np.full((*shape, ready.num_intervals), np.nan, np.float32)}
        start, _, metrics, facts, _ = found or (0, None, nothing, {"run_seconds": 0.0}, job)
        state = placed(program, found.state) if found else program.init()
        for listener in listeners:
            listener.compiled(ready, index, program, start)
            if found:
                listener.restored(ready, index, start, metrics)
        began, before = time.perf_counter(), facts["run_seconds"]
        pending = None

        def record(interval: int, computed: dict[str, Any]):
            for name, values in computed.items():
                values = np.asarray(values)[: program.num_rows].reshape(*shape, -1).mean(axis=-1)  # [R, ...] -> [C, S]
                if jax.config.jax_debug_nans and name.startswith("episode_"):
                    values = np.where(values == np.asarray(none_yet()), np.nan, values)
                metrics.setdefault(name, np.full((*shape, ready.num_intervals), np.nan, np.float32))
                metrics[name][:, :, interval] = values
            for listener in listeners:
                now = {name: values[:, :, interval] for name, values in metrics.items()}
                listener.interval(ready, index, interval, steps_after(ready, interval + 1), now)

        def save(intervals_done: int, state: TrainState):
            facts.update(
                run_seconds=before + time.perf_counter() - began,
                first_bad_step=np.asarray(state.first_bad_step)[: program.num_rows].reshape(shape).tolist(),
            )
            if opened:
                kept = stored(program, state), {name: values.copy() for name, values in metrics.items()}
                checkpoint.save(opened, checkpoint.Checkpoint(intervals_done, *kept, facts, job))

        taken = int(state.step) // per_update
        for interval in range(start, ready.num_intervals):
            computed, updates = {}, steps_after(ready, interval + 1) // per_update - taken
            taken += updates
            try:
                if updates:  # none where a run resumes in whose evaluation an environment on the host failed
                    state, computed = program.train(state, updates)
                if _due(ready, interval, ready.eval_every):
                    computed = computed | {"eval_return": program.evaluate(state)}
            except HostError as error:
                for known in filter(None, (pending, (interval, computed))):
                    record(*known)
                if opened and opened.latest_step() != interval:
                    try:
                        save(interval, error.state)
                        checkpoint.finish(opened)
                    except checks.RunError as unsaved:
                        raise checks.RunError(f"{error}; and {unsaved}") from error
                raise
            if pending:
                record(*pending)  # the chunk before, while the device computes this one
            pending = (interval, computed)
            if opened:
                checkpoint.check(opened)
            stopping, last = should_stop(), interval + 1 == ready.num_intervals
            if stopping or last or (opened and _due(ready, interval, ready.checkpoint_every)):
                record(*pending)
                pending = None
                save(interval + 1, state)
                if stopping and not last:
                    raise Interrupted
    return Record(metrics, facts)


def _assemble(ready: Ready, records: list[Record], programs: list[Program]) -> Results:
    """One `Results` of all groups, configurations in the plan's order."""
    job, grid = ready.job, ready.plan
    order = np.argsort([i for group in grid.groups for i in group.indices])
    swept = bool(job.env_axes) or any(map(is_axis, job.hyper_parameters.values()))

    def joined(parts: list[np.ndarray]) -> np.ndarray:
        whole = np.concatenate(parts)[order]
        return whole if swept else whole[0]

    metrics = {name: joined([record.metrics[name] for record in records]) for name in records[0].metrics}
    steps = np.array([steps_after(ready, i + 1) for i in range(ready.num_intervals)])
    bad = joined([np.array(record.facts["first_bad_step"]) for record in records])
    run_seconds = sum(record.facts["run_seconds"] for record in records)
    taken = sum(
        program.num_rows * num_updates(program.agent, job.num_steps) * steps_per_update(program.agent)
        for program in programs
    )
    summary = {
        "agent": job.agent,
        "env": job.env,
        "num_steps": job.num_steps,
        "seeds": job.seeds,
        "diverged_seeds": diverged_seeds(bad),
        "steps_per_second": taken / run_seconds,
        "compile_seconds": sum(program.compile_seconds for program in programs),
        "run_seconds": run_seconds,
        "peak_memory_bytes": max(map(_peak_memory, programs)),
        "device": programs[0].mesh.devices.flat[0].device_kind,
        "num_devices": programs[0].mesh.size,
        "versions": versions(),
    }
    config = in_json(job, strict=False)
    configs = grid.configs if swept else []
    results = Results(config, {"step": steps} | metrics, summary, configs)
    return dataclasses.replace(results, summary=summary | {"final_return": final_return(results.final())})


def versions() -> dict[str, str]:
    """The versions of jaxrl, and of the packages that its numbers come from, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _peak_memory(program: Program) -> int:
    """What the devices say that was in use at most; a CPU does not, so there it is the compiler's own analysis."""
    statistics = [device.memory_stats() or {} for device in program.mesh.devices.flat]
    measured = sum(s.get("peak_bytes_in_use", 0) for s in statistics)
    return measured or program.memory_bytes


def sweep(
    constructor: Constructor,
    env_id: str,
    *,
    num_steps: int,
    seeds: int,
    env_params: Mapping[str, Any] | None = None,
    run_seed: int = 0,
    log_every: int = 0,
    eval_every: int = 0,
    eval_episodes: int = 10,
    out: str | os.PathLike | None = None,
    progress: bool = False,
    **hyper_parameters: Any,
) -> Results:
    """Trains seeds times hyper-parameters, each group of like shapes as one compiled program, over all devices.

    Args:
      constructor: of the agent, such as `jaxrl.ppo`.
      env_id: as `make` takes it.
      num_steps: environment steps of each seed.
      seeds: how many seeds of each configuration.
      env_params: further arguments of `make`. A list or an array makes one an axis, too, called `env.NAME` in the
        results' configurations; one value that is a sequence is a tuple, such as `observe=(0, 2)`.
      run_seed: what the run's key is made from.
      log_every: environment steps between recorded metrics; 0 is a hundredth of the run.
      eval_every: environment steps between greedy evaluations; 0 is a tenth of the run.
      eval_episodes: episodes of each evaluation.
      out: a folder for the run, as the command line writes it, with checkpoints while it trains. The same call again
        resumes from the newest, or loads what is complete. All that determines the run must then be possible to record,
        see `jaxrl.record`: the constructor, too, must have a name in a module. None writes nothing.
      progress: whether to say on stderr what is trained, and draw a progress bar.
      **hyper_parameters: the agent's; a list or an array makes one an axis, and all combinations are trained. Float
        ones share a compiled program, the environment's as well unless its spaces depend on them or it must know their
        values where it is made; each other combination has its own.

    Returns:
      `Results`, whose metrics are `[seed, time]`, or `[config, seed, time]` where anything is an axis.

    Raises:
      JaxrlError: for an argument that is not accepted, before anything compiles; so for a folder that holds anything
        but this run.

    Example::

        results = jaxrl.sweep(jaxrl.ppo, "CartPole-v1", num_steps=100_000, seeds=32, learning_rate=[3e-4, 1e-3])
        results.table()
    """
    if not callable(constructor):
        raise checks.JaxrlError(f"sweep: constructor={constructor!r} is not accepted; one is jaxrl.ppo, without a call")
    checks.arguments("sweep", sweep, {"env_id": env_id, "env_params": env_params, "progress": progress})
    constructor, hyper_parameters = unwrapped(constructor, hyper_parameters)
    hyper_parameters = with_defaults(constructor, hyper_parameters)
    hyper_parameters = {k: axis_values(v) if is_axis(v) else plain(v) for k, v in hyper_parameters.items()}
    env_params, env_axes = split_axes(env_params or {})
    job = Job(
        name_of(constructor), env_id, num_steps, seeds, hyper_parameters, plain(env_params), run_seed, log_every,
        eval_every, eval_episodes, env_axes=env_axes, constructor="" if out is None else _home(constructor),
    )  # fmt: skip
    ready = prepare(job, constructor)
    with contextlib.ExitStack() as stack:
        listeners = []
        if out is not None:
            out = pathlib.Path(out)
            if folder.enter(out, job) and folder.is_complete(out):
                return Results.load(out)
            stack.enter_context(folder.locked(out, "sweep: out ="))
            config = folder.enter(out, job) or folder.config_of(job, num_threads(), tensorboard=False)
            if folder.is_complete(out):  # another process was faster
                return Results.load(out)
        if progress:
            from rich.console import Console

            from jaxrl.runs import report  # which imports this module

            listeners.append(stack.enter_context(report.progress(Console(stderr=True))))
        if out is None:
            return execute(ready, listeners=listeners)
        if config["tensorboard"]:  # as the command line was asked for, which began the run
            from jaxrl.runs import report

            listeners.append(stack.enter_context(report.tensorboard(out / "tensorboard", ready)))
        try:
            return folder.train(ready, out, config, listeners)
        except checks.RunError as error:
            raise checks.RunError(f"{error}; the same call resumes from the newest checkpoint") from error


def _home(constructor: Constructor) -> str:
    """Where a constructor is imported from; empty for one of jaxrl's own.

    Raises:
      JaxrlError: if it cannot be imported, or a default of it is a list, which among hyper-parameters is an axis.
    """
    from jaxrl.agents import AGENTS

    if AGENTS.get(name_of(constructor)) is constructor:
        return ""
    for name, parameter in parameters(constructor).items():
        if is_axis(parameter.default):
            raise checks.JaxrlError(
                f"sweep: {name_of(constructor)} has the default {name}={parameter.default}, which a run in a folder "
                f"cannot record, for in a sweep it is an axis; make it a tuple"
            )
    try:
        return reference(constructor)
    except ValueError as error:
        raise checks.JaxrlError(
            f"sweep: constructor={constructor!r} cannot be recorded, as all of a run in a folder must be; define it at "
            f"the top level of a module, or leave `out` away"
        ) from error


def evaluations(ready: Ready, out: pathlib.Path, num_episodes: int, draw: int) -> Iterator[tuple[Group, np.ndarray]]:
    """Evaluates the newest checkpoint of each group of a run.

    Args:
      ready: from `prepare`.
      out: the run's folder.
      num_episodes: greedy episodes of each seed.
      draw: another number draws other episodes.

    Yields:
      each group, and its returns `[config, seed, num_episodes]`.

    Raises:
      JaxrlError: if there is no checkpoint, or it is damaged or of another program.
    """
    for index, group in enumerate(ready.plan.groups):
        program = compile_for(ready, group, num_eval_episodes=num_episodes, parts=("evaluate",))
        returns = np.asarray(program.evaluate(_newest(ready, out, index, program), draw))[: program.num_rows]
        yield group, returns.reshape(len(group.indices), ready.job.seeds, num_episodes)


def trained(ready: Ready, out: pathlib.Path, config: int, seed: int) -> tuple[Agent, TrainState]:
    """The agent of one seed of a run, and its training state from the newest checkpoint, on one device.

    Args:
      ready: from `prepare`.
      out: the run's folder.
      config: the configuration's place in `ready.plan.configs`.
      seed: the seed's number, from 0.

    Raises:
      JaxrlError: if there is no checkpoint, or it is damaged or of another program.
    """
    index, group = next((i, group) for i, group in enumerate(ready.plan.groups) if config in group.indices)
    place = group.indices.index(config)
    state = _newest(ready, out, index, compile_for(ready, group, parts=()))
    device, row = jax.devices()[0], place * ready.job.seeds + seed
    one = TrainState(
        *(
            jax.device_put(x if axis is None else jax.tree.map(lambda leaf: leaf[row], x), device)
            for x, axis in zip(state, ROW_AXES, strict=True)
        )
    )
    return group_agent(ready.constructor, group, place), one


def _newest(ready: Ready, out: pathlib.Path, index: int, program: Program) -> TrainState:
    """The training state in the newest checkpoint of a group, or an error that says how to get one."""
    folder = _checkpoints(out, index)
    found = checkpoint.newest(folder, stored_shapes(program), in_json(ready.job))
    if found is None:
        raise checks.JaxrlError(f"{folder}: there is no checkpoint yet; jaxrl resume {out} resumes the run")
    return placed(program, found.state)
