"""A run from Python: seeds times hyper-parameters in one call, in memory or in a folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from jaxrl import checks
from jaxrl.agents import AGENTS
from jaxrl.analysis.results import Results
from jaxrl.constructors import parameters
from jaxrl.record import plain, reference
from jaxrl.runs import folder, report
from jaxrl.runs.devices import num_threads
from jaxrl.runs.job import Job, prepare
from jaxrl.runs.program import Constructor, axis_values, is_axis, name_of, split_axes, unwrapped, with_defaults
from jaxrl.runs.run import execute


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
            listeners.append(stack.enter_context(report.progress(Console(stderr=True))))
        if out is None:
            return execute(ready, listeners=listeners)
        if config["tensorboard"]:  # as the command line was asked for, which began the run
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
