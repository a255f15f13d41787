"""What a person sees while a run goes on: a progress bar, and TensorBoard files."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxrl.analysis.results import format_number
from jaxrl.analysis.statistics import interquartile_mean
from jaxrl.checks import JaxrlError, RunError
from jaxrl.runs.job import Ready, steps_after
from jaxrl.runs.program import Program
from jaxrl.runs.run import Listener

OTHER_FILES = 256  # that a process has open at once: libraries, sockets, checkpoints


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
            # Since the start: rich's own speed, of the last updates, leaps where two intervals are reported at once.
            elapsed = bar.tasks[bar.task_ids.index(task)].elapsed
            speed = f"{(rows * steps - start) / elapsed:,.0f} steps/s" if elapsed else ""
            bar.update(task, completed=rows * steps, returns=_spread(metrics["episode_return"]), speed=speed)

        def restored(ready: Ready, index: int, done: int, metrics: dict[str, np.ndarray]):
            bar.update(bars[index][0], returns=_spread(metrics["episode_return"][:, :, done - 1]))

        yield Listener(compiled, interval, restored)


def _spread(returns: np.ndarray) -> str:
    known = returns[np.isfinite(returns)]
    return f"return {format_number(known.mean())} ± {format_number(known.std())}" if known.size else ""


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
        console.print(f"resumes from step {steps_after(ready, done):,}", highlight=False)


@contextlib.contextmanager
def tensorboard(folder: pathlib.Path, ready: Ready) -> Iterator[Listener]:
    """A listener that writes every metric's interquartile mean over the seeds, and each seed's return.

    It begins the folder anew: what a run recorded before it was interrupted is written again, for the files of that
    process may lack what it had not written yet, and have what came after its last checkpoint.

    Raises:
      JaxrlError: if the system does not let a process have so many files open.
      RunError: while the run goes on, if the files cannot be written.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # made on import
    from tensorboardX.summary import scalar

    _allow_open_files(len(ready.plan.configs), ready.job.seeds)
    writers: dict[str, EventsWriter] = {}  # which write when they are told to, and in no thread of their own

    def add(home: str, name: str, value: float, steps: int):
        if home not in writers:
            (folder / home).mkdir(parents=True, exist_ok=True)
            writers[home] = EventsWriter(str(folder / home / "events"))
        writers[home].write_event(Event(step=steps, wall_time=time.time(), summary=scalar(name, value)))

    def compiled(ready: Ready, index: int, program: Program, done: int):
        if not writers:
            with _writing(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def restored(ready: Ready, index: int, done: int, metrics: dict[str, np.ndarray]):
        for point in range(done):
            now = {name: values[:, :, point] for name, values in metrics.items()}
            interval(ready, index, point, steps_after(ready, point + 1), now)

    def interval(ready: Ready, index: int, interval: int, steps: int, metrics: dict[str, np.ndarray]):
        with _writing(folder):
            for row, config in enumerate(ready.plan.groups[index].indices):
                home = f"config_{config}/" if len(ready.plan.configs) > 1 else ""
                for name, values in metrics.items():
                    known = values[row][np.isfinite(values[row])]
                    if known.size:
                        add(f"{home}iqm", name, float(interquartile_mean(known)), steps)
                for seed, value in enumerate(metrics["episode_return"][row]):
                    if np.isfinite(value):
                        add(f"{home}seed_{seed}", "episode_return", float(value), steps)
            for writer in writers.values():
                writer.flush()

    try:
        yield Listener(compiled, interval, restored)
    finally:
        for writer in writers.values():
            with contextlib.suppress(OSError):  # all was written by `flush`, or it has been said that it was not
                writer.close()


def _allow_open_files(configs: int, seeds: int):
    """Lets this process have a file open for each seed, and one for the means of each configuration."""
    try:
        import resource
    except ImportError:  # Windows
        return
    files = configs * (seeds + 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files + OTHER_FILES:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files + OTHER_FILES, hard))
    except (ValueError, OSError) as error:
        raise JaxrlError(
            f"tensorboard: {configs * seeds} seeds need {files} open files, and the system allows {hard} (ulimit -n); "
            f"train fewer seeds, or leave TensorBoard's files away"
        ) from error


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}") from error
