"""What the studies share: all seeds as one program, the cores of the CPU, and where figures go."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from matplotlib.figure import Figure
from rich.table import Table

import jaxrl
from jaxrl import Results, checks
from jaxrl.analysis.compare import comparison_table, plot_environments
from jaxrl.runs.program import seed_keys
from jaxrl.types import Agent, Env, Key, Metrics, PyTree

FIGURES = pathlib.Path(__file__).parent / "figures"


def train_seeds(
    agent: Agent, env: Env, *, num_steps: int, seeds: int, names: tuple[str, ...]
) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Trains all seeds of an agent in one compiled program, spread over as many devices as divide them.

    Args:
      agent: is trained.
      env: where.
      num_steps: environment steps of each seed.
      seeds: how many seeds, at least 2.
      names: the metrics to keep, besides `episode_count`.

    Returns:
      the final agent states, leaves `[S, ...]`, and the metrics, `[S, updates]`.

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.integer("train_seeds", 2, seeds=seeds)

    def train(key: Key) -> tuple[PyTree, Metrics]:
        state, metrics = jaxrl.train(key, agent, env, num_steps)
        return state.agent, {name: metrics[name] for name in ("episode_count", *names)}

    devices = jax.devices()[: math.gcd(seeds, jax.device_count())]
    mesh, split = Mesh(np.array(devices), ("seed",)), P("seed")
    sharded = jax.shard_map(jax.jit(jax.vmap(train)), mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return jax.device_get(jax.jit(sharded)(seed_keys(jax.random.key(0), jnp.arange(seeds))))


def folder_of(runs: pathlib.Path | None, name: str) -> pathlib.Path | None:
    """Where a study keeps one of its runs, so that the same command goes on after an interruption; None keeps none."""
    return None if runs is None else runs / name.replace("/", "-")


def show(table: Table, figure: Figure, path: pathlib.Path):
    """Prints the table, writes the figure, and says where."""
    rich.print(table)
    save(figure, path)


def show_comparison(title: str, runs: Mapping[str, Mapping[str, Results]], path: pathlib.Path, by_time: bool = False):
    """Shows runs by environment and agent, and returns their final greedy returns, `[S]` each."""
    table = comparison_table(f"{title}: IQM (95 % interval)", runs)
    show(table, plot_environments(f"{title}: IQM and 95 % interval", runs, by_time=by_time), path)
    return {env: {name: run.final("eval_return") for name, run in named.items()} for env, named in runs.items()}


def by_name(results: Results, names: Sequence[str], *metrics: str) -> dict[str, dict[str, np.ndarray]]:
    """Of each configuration of a sweep its metrics, `[S, intervals]`, and its `eval_return` at the end, `[S]`."""
    final = results.final("eval_return")
    return {
        name: {metric: results.metrics[metric][i] for metric in metrics} | {"eval_return": final[i]}
        for i, name in enumerate(names)
    }


def save(figure: Figure, path: pathlib.Path):
    """Writes the figure, and says where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure: {path}")


def on_all_cores(main: Callable):
    """A study's command line; each core of the CPU is a device, over which the seeds are spread."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    tyro.cli(main)
