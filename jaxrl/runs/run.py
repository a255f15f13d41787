"""A run as it goes on: chunks, metrics, evaluations, checkpoints, resuming, and the results at the end.

The device computes a chunk, one log interval, in which metrics are reduced; the host records those of the chunk before
meanwhile. A run without a folder keeps all of it in memory and writes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl import checks
from jaxrl.analysis.results import Results, diverged_seeds
from jaxrl.analysis.statistics import final_return
from jaxrl.envs import make
from jaxrl.loop import TrainState, none_yet, num_updates, steps_per_update
from jaxrl.numerics import CONFIG
from jaxrl.prng import by_threefry
from jaxrl.runs import checkpoint
from jaxrl.runs.host import HostError, compile_host_group
from jaxrl.runs.job import Ready, in_json, steps_after
from jaxrl.runs.program import Group, Program, compile_group, is_axis, placed, stored, stored_shapes
from jaxrl.types import HostEnv

PACKAGES = (
    "jaxrl", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "orbax-checkpoint", "numpy",
    "gymnasium", "ale-py", "mujoco", "mujoco-mjx", "playground",  # these last need not be installed
)  # fmt: skip


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


def _due(ready: Ready, interval: int, every: int) -> bool:
    """Whether a multiple of the period, or the run's end, falls into a log interval."""
    start, end = steps_after(ready, interval), steps_after(ready, interval + 1)
    return end // every > start // every or interval + 1 == ready.num_intervals


@by_threefry
def compile_for(ready: Ready, group: Group, **options: Any) -> Program:
    """The group's program; see `compile_group` for the options."""
    job, env = ready.job, ready.envs[group.indices[0]]
    compile_any: Callable[..., Program] = compile_host_group if isinstance(env, HostEnv) else compile_group
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
        with contextlib.ExitStack() as stack:
            stack.callback(program.close)
            records.append(_train_group(ready, index, program, out and checkpoints(out, index), listeners, should_stop))
        programs.append(program)
    return _assemble(ready, records, programs)


def checkpoints(out: pathlib.Path, index: int) -> pathlib.Path:
    """The folder of a group's checkpoints."""
    return out / "checkpoints" / f"group_{index}"


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
        start, _, metrics, facts, _ = found or (0, None, nothing, dict[str, Any](run_seconds=0.0), job)
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
                if CONFIG.jax_debug_nans and name.startswith("episode_"):
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
