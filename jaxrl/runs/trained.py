"""What the newest checkpoints of a run are good for: the trained agents, evaluations and episodes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.analysis.render import episode
from jaxrl.loop import TrainState
from jaxrl.runs import checkpoint
from jaxrl.runs.job import Ready, in_json
from jaxrl.runs.program import EVALUATION, Group, Program, by_field, group_agent, placed, stored_shapes
from jaxrl.runs.run import checkpoints, compile_for
from jaxrl.types import Agent, PyTree


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
    one = by_field(lambda leaf: leaf[row], lambda leaf: leaf, state)
    return group_agent(ready.constructor, group, place), jax.device_put(one, device)


def episode_of_run(ready: Ready, out: pathlib.Path, config: int, seed: int, draw: int = 0) -> PyTree:
    """A greedy episode of one seed of a run, from its newest checkpoint; see `trained`.

    Args:
      ready: from `prepare`.
      out: the run's folder.
      config: the configuration's place in `ready.plan.configs`.
      seed: the seed's number, from 0.
      draw: another number, 0 to 2**31 - 1, draws another episode; none is one that the run evaluates itself by.
    """
    env: Any = ready.envs[config]  # not on the host: `jaxrl.analysis.render.check` refuses these
    agent, state = trained(ready, out, config, seed)
    key = jax.random.fold_in(state.key, EVALUATION + state.step.astype(jnp.uint32))
    # An evaluation folds its draw, which is less than 2**31, into this key: the numbers from there on are free.
    return episode(jax.random.fold_in(key, EVALUATION + np.uint32(draw)), agent, state.agent, env)


def _newest(ready: Ready, out: pathlib.Path, index: int, program: Program) -> TrainState:
    """The training state in the newest checkpoint of a group, or an error that says how to get one."""
    folder = checkpoints(out, index)
    found = checkpoint.newest(folder, stored_shapes(program), in_json(ready.job))
    if found is None:
        raise checks.JaxrlError(f"{folder}: there is no checkpoint yet; jaxrl resume {out} resumes the run")
    return placed(program, found.state)
