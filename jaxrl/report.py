"""What a person sees while a run goes on: a progress bar, TensorBoard files, tables."""

from __future__ import annotations

import contextlib
import inspect
import pathlib
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxrl.program import Program
from jaxrl.results import format_number
from jaxrl.run import Listener, Ready, steps_after
from jaxrl.statistics import interquartile_mean


def format_bytes(number: int) -> str:
    """A size in memory, such as "29 MiB"."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Listener]:
    """A listener that says what will be done, and then draws a progress bar until the block is left."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"), TimeRemainingColumn(), TextColumn("{task.fields[returns]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        bars: dict[int, tuple] = {}

        def compiled(ready: Ready, index: int, program: Program, done: int):
            _announce(console, ready, index, program, done)
            rows = program.num_rows
            total, start = (rows * steps_after(ready, i) for i in (ready.num_intervals, done))
            bars[index] = bar.add_task("steps", total=total, completed=start, speed="", returns=""), rows, start

        def interval(ready: Ready, index: int, interval: int, steps: int, metrics: dict[str, np.ndarray]):
            task, rows, start = bars[index]
            returns = metrics["episode_return"]
            known = returns[np.isfinite(returns)]
            spread = f"return {format_number(known.mean())} ± {format_number(known.std())}" if known.size else ""
            # Since the start: rich's own speed, of the last updates, leaps where two intervals are reported at once.
            elapsed = bar.tasks[bar.task_ids.index(task)].elapsed
            speed = f"{(rows * steps - start) / elapsed:,.0f} steps/s" if elapsed else ""
            bar.update(task, completed=rows * steps, returns=spread, speed=speed)

        yield Listener(compiled, interval)


def _announce(console: Console, ready: Ready, index: int, program: Program, done: int):
    job, configs = ready.job, len(ready.plan.groups[index].indices)
    devices = program.mesh.size
    each = -(-program.num_rows // devices)
    platform = program.mesh.devices.flat[0].platform
    grid = f"{configs} configurations x " if configs > 1 else ""
    number = f"program {index + 1} of {len(ready.plan.groups)}: " if len(ready.plan.groups) > 1 else ""
    console.print(
        f"{number}[bold]{job.agent}[/] on [bold]{job.env}[/], {grid}{job.seeds} seed{'s' * (job.seeds > 1)}, "
        f"{job.num_steps:,} steps each\n"
        f"{devices} {platform} device{'s' * (devices > 1)}, {each} run{'s' * (each > 1)} on each; "
        f"compiled in {program.compile_seconds:.1f} s; needs about {format_bytes(program.memory_bytes)}",
        highlight=False,
    )
    if done:
        console.print(f"goes on from step {steps_after(ready, done):,}", highlight=False)


@contextlib.contextmanager
def tensorboard(folder: pathlib.Path) -> Iterator[Listener]:
    """A listener that writes every metric's interquartile mean over the seeds, and each seed's return."""
    import tensorboardX

    with contextlib.ExitStack() as stack:
        writers: dict[str, tensorboardX.SummaryWriter] = {}

        def writer(name: str) -> tensorboardX.SummaryWriter:
            if name not in writers:
                writers[name] = stack.enter_context(tensorboardX.SummaryWriter(str(folder / name)))
            return writers[name]

        def interval(ready: Ready, index: int, interval: int, steps: int, metrics: dict[str, np.ndarray]):
            for row, config in enumerate(ready.plan.groups[index].indices):
                home = f"config_{config}/" if len(ready.plan.configs) > 1 else ""
                for name, values in metrics.items():
                    known = values[row][np.isfinite(values[row])]
                    if known.size:
                        writer(f"{home}iqm").add_scalar(name, float(interquartile_mean(known)), steps)
                for seed, value in enumerate(metrics["episode_return"][row]):
                    if np.isfinite(value):
                        writer(f"{home}seed_{seed}").add_scalar("episode_return", float(value), steps)

        yield Listener(interval=interval)


def overview(console: Console):
    """All agents and environments."""
    from jaxrl.agents import AGENTS
    from jaxrl.envs import list_ids

    agents = Table("agent", "", title="agents (jaxrl train AGENT --help)", title_justify="left", box=None)
    for name, constructor in AGENTS.items():
        agents.add_row(name, inspect.getdoc(constructor).splitlines()[0])
    environments = Table("", "environment", title="environments (--env ID)", title_justify="left", box=None)
    for group, ids in list_ids().items():
        environments.add_row(group, "  ".join(ids) or f"none; pip install 'jaxrl[{group}]' adds them")
    console.print(agents, "", environments)
