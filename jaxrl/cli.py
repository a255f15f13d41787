"""The command line. Each command imports what it needs when it runs, so that help is there at once.

Modules that are needed before JAX is (`checks`, `runs.devices`, `runs.bench`) import it in their functions as well.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import math
import pathlib
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Annotated, Any

from jaxrl import checks
from jaxrl.checks import JaxrlError, unknown_name
from jaxrl.constructors import lineage, parameters

if TYPE_CHECKING:
    from jaxrl.runs.job import Ready

DESCRIPTION = "Reinforcement learning as pure functions on JAX: many seeds of an agent in one compiled program."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: the words after `jaxrl`; the process's own unless given.

    Returns:
      the exit status: 0, 1 where something failed, 2 where the arguments were wrong, 130 after an interruption.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            _help()
            return 0 if words else 2
        if words[0] == "--version":
            from jaxrl import __version__

            print(f"jaxrl {__version__}")
            return 0
        if words[0] not in COMMANDS:
            raise unknown_name("command", words[0], COMMANDS, see="jaxrl --help")
        return COMMANDS[words[0]](words[1:]) or 0
    except JaxrlError as error:
        print(f"jaxrl: {error}", file=sys.stderr)
        return 1 if isinstance(error, checks.RunError) else 2
    except SystemExit as exit:  # tyro's: it has printed help, or which option was wrong
        return int(exit.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the message has all there is to say
        print(f"jaxrl: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if type(error).__name__ == "InternalFloatingPointError":  # what a compiled program raises for jax_debug_nans
            found = " computed ".join(map(str, error.args))  # such as "jit(train)", "nan"
            print(f"jaxrl: JAX_DEBUG_NANS is set, and {found}", file=sys.stderr)
            return 1
        if not _is_out_of_memory(error):
            raise
        print(f"jaxrl: out of memory; fewer seeds, smaller networks or replays need less ({error})", file=sys.stderr)
        return 1


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _help():
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{DESCRIPTION}\n\nusage: jaxrl COMMAND ...\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(name, str(inspect.getdoc(command)).splitlines()[0])
    console.print(table)
    console.print("\njaxrl COMMAND --help says more; jaxrl train AGENT --help lists the agent's hyper-parameters.")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What to run, and where to keep it.

    Attributes:
      env: environment id; `jaxrl list` shows all.
      num_steps: environment steps of each seed.
      out: the run's folder, made if it is not there; runs/AGENT-ENV unless given.
      seeds: how many seeds are trained side by side.
      seed: number that the run's random key is made from.
      env_params: parameters of the environment and its wrappers, such as max_steps_in_episode=200 or backend=spring;
        for sweep a list is an axis, g=[8.0,10.0,12.0], and a tuple one value, observe=(0,2).
      log_every: environment steps between recorded metrics; 0 is a hundredth of the run.
      eval_every: environment steps between greedy evaluations; 0 is a tenth of the run.
      eval_episodes: episodes of each evaluation, for each seed.
      checkpoint_every: environment steps between checkpoints; 0 is a tenth of the run.
      devices: CPU devices to spread the seeds over; 0 is one for each core, if there are as many runs. Of accelerators
        all are used.
      threads: CPU threads that the devices share; 0 is one for each device where the networks are so small that
        splitting their products costs more than it gains, else one for each core.
      tensorboard: whether to write TensorBoard files into the run's folder, too.
      overwrite: whether to delete a run that is already in the folder; other files stay.
    """

    env: str
    num_steps: int = 100_000
    out: pathlib.Path | None = None
    seeds: int = 8
    seed: int = 0
    env_params: tuple[str, ...] = ()
    log_every: int = 0
    eval_every: int = 0
    eval_episodes: int = 10
    checkpoint_every: int = 0
    devices: int = 0
    threads: int = 0
    tensorboard: bool = False
    overwrite: bool = False


def train(words: list[str]) -> int:
    """Train many seeds of an agent: jaxrl train AGENT --env ID --num-steps N --seeds K --out DIR."""
    return _start(words, "train", axes=False)


def sweep(words: list[str]) -> int:
    """Train seeds times hyper-parameters: like train, but options take several values, and all combinations run."""
    return _start(words, "sweep", axes=True)


def _start(words: list[str], command: str, axes: bool) -> int:
    from jaxrl.agents import constructor

    if not words or words[0].startswith("-"):
        asked = bool(words) and words[0] in ("-h", "--help")
        _usage_of_train(command, sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, make_agent = words[0], constructor(words[0])
    options = _parse(words[1:], make_agent, f"jaxrl {command} {name}", axes)
    run_names = {field.name for field in dataclasses.fields(RunOptions)}
    run = RunOptions(**{k: v for k, v in vars(options).items() if k in run_names})
    chosen = {k: v for k, v in vars(options).items() if k not in run_names}
    if axes:
        chosen = {k: _axis(v, k, make_agent) for k, v in chosen.items()}
    from jaxrl.runs import folder
    from jaxrl.runs.devices import use_devices
    from jaxrl.runs.job import Job, prepare
    from jaxrl.runs.program import split_axes, with_defaults

    env_params = _parameters(run.env_params)
    env_params, env_axes = split_axes(env_params) if axes else (env_params, {})
    lengths = [len(values) for values in (*chosen.values(), *env_axes.values()) if isinstance(values, list)]
    _, num_threads = use_devices(make_agent, chosen, math.prod(lengths) * run.seeds, run.devices, run.threads)
    chosen = with_defaults(make_agent, chosen)
    job = Job(
        name, run.env, run.num_steps, run.seeds, chosen, env_params, run.seed, run.log_every, run.eval_every,
        run.eval_episodes, run.checkpoint_every, env_axes,
    )  # fmt: skip
    ready = prepare(job, make_agent)
    out = run.out or pathlib.Path("runs", f"{name}-{run.env.replace('/', '-')}")
    config = folder.config_of(job, num_threads, run.tensorboard)
    with folder.claimed(out, run.overwrite):
        return _execute(ready, out, config)


def _usage_of_train(command: str, file: IO[str]):
    from rich.console import Console

    from jaxrl.agents import AGENTS

    Console(file=file).print(
        f"usage: jaxrl {command} AGENT --env ID --num-steps N --seeds K --out DIR ...\n\n"
        f"AGENT is one of: {', '.join(AGENTS)}\njaxrl {command} AGENT --help lists all options.",
        markup=False,
    )


def _parse(words: list[str], make_agent: Callable, program: str, axes: bool) -> Any:
    """The run's options and the agent's hyper-parameters, as one flat set of options."""
    import docstring_parser
    import tyro

    documented = [docstring_parser.parse(inspect.getdoc(function)) for function in lineage(make_agent)]
    texts = {p.arg_name: p.description for parsed in reversed(documented) for p in parsed.params}
    fields = []
    for p in parameters(make_agent).values():
        kind, default = p.annotation, p.default
        if "Callable" in str(kind):  # a function, which has no place on a command line
            continue
        if isinstance(kind, types.UnionType):  # a name, or what it names: here it is the name; else a number
            kind = str if str in kind.__args__ else float
        if kind is bool:
            kind = Annotated[bool, tyro.conf.FlagConversionOff]
        if axes and not isinstance(default, tuple):
            kind, default = tuple[kind, ...], (default,)
        option = tyro.conf.arg(name=p.name.rstrip("_").replace("_", "-"), help=texts.get(p.name, ""))
        fields.append((p.name, Annotated[kind, option], default))
    options = dataclasses.make_dataclass("Options", fields, bases=(RunOptions,), frozen=True)
    options.__doc__ = RunOptions.__doc__
    return tyro.cli(
        options,
        args=words,
        prog=program,
        description=documented[0].short_description,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _axis(value: Any, name: str, make_agent: Callable) -> Any:
    """A sweep's option: several values are an axis, one is itself."""
    if isinstance(parameters(make_agent)[name].default, tuple):
        return value
    return list(value) if len(value) != 1 else value[0]


def _parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` pairs; a value is a Python literal, or else text."""
    parameters = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise JaxrlError(f"--env-params {pair} is not accepted; it must be name=value")
        try:
            parameters[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parameters[name] = text
    return parameters


def _execute(ready: Ready, out: pathlib.Path, config: dict[str, Any]) -> int:
    from rich.console import Console

    from jaxrl.runs import folder, report
    from jaxrl.runs.run import Interrupted

    console = Console()
    try:
        with _stop_signal() as should_stop, report.progress(console) as shown, contextlib.ExitStack() as stack:
            listeners = [shown]
            if config["tensorboard"]:
                listeners.append(stack.enter_context(report.tensorboard(out / "tensorboard", ready)))
            results = folder.train(ready, out, config, listeners, should_stop)
    except checks.RunError as error:
        raise checks.RunError(f"{error}; jaxrl resume {out} resumes from the newest checkpoint") from error
    except Interrupted:
        text = f"stopped, and saved; resume with: jaxrl resume {out}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return 130
    console.print(results.table())
    for path in (out / name for name in folder.RUN_FILES):
        if path.exists():
            console.print(f"  {path}", markup=False, highlight=False, soft_wrap=True)
    return 0


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C, or a SIGTERM, into a request to stop; a second one ends the process at once."""
    asked = []

    def ask(number: int, frame: Any):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this chunk, with a checkpoint (once more to stop now)", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume(words: list[str]) -> int:
    """Go on with a run that was stopped: jaxrl resume DIR."""

    def options(directory: Annotated[pathlib.Path, _positional()], /):
        """Go on with a run that was stopped, from its last checkpoint; the final numbers are the same.

        Args:
          directory: the run's folder.
        """
        from jaxrl.runs import folder

        if folder.is_complete(directory):
            print(f"{directory} is complete; jaxrl plot {directory} draws it")
            return 0
        ready, config = folder.read_run(directory)
        with folder.locked(directory, "resume:"):
            return _execute(ready, directory, config)

    return _call(options, words, "jaxrl resume")


def evaluate(words: list[str]) -> int:
    """Greedy episodes of a trained run: jaxrl evaluate DIR."""

    def options(
        directory: Annotated[pathlib.Path, _positional()],
        /,
        episodes: int = 100,
        draw: int = 1,
        render: pathlib.Path | None = None,
    ):
        """Run greedy episodes of each seed of a run, from its newest checkpoint.

        Args:
          directory: the run's folder.
          episodes: how many of each seed.
          draw: another number draws other episodes.
          render: file (gif for an animation, png for a picture) for another episode of the seed that came out best.
        """
        import numpy as np
        from rich.console import Console

        from jaxrl.analysis import render as drawing
        from jaxrl.analysis.results import Results
        from jaxrl.runs import folder
        from jaxrl.runs.trained import episode_of_run, evaluations

        checks.integer("evaluate", episodes=episodes)
        checks.integer("evaluate", 0, draw=draw)
        ready, _ = folder.read_run(directory)
        if render is not None:
            drawing.check(ready.envs[0], render)  # before anything compiles
        configs = ready.plan.configs
        returns = np.zeros((len(configs), ready.job.seeds, 1))
        for group, values in evaluations(ready, directory, episodes, draw):
            returns[list(group.indices), :, 0] = values.mean(axis=-1)
        metrics = {"step": np.array([ready.job.num_steps]), "eval_return": returns}
        results = Results(dataclasses.asdict(ready.job), metrics, {}, configs)
        Console().print(results.table())
        if render is not None:
            finite = np.where(np.isnan(returns), -np.inf, returns)
            config, seed, _ = (int(i) for i in np.unravel_index(np.argmax(finite), finite.shape))
            drawing.render(ready.envs[config], episode_of_run(ready, directory, config, seed, draw), render)
            print(f"{render}: " + ", ".join(part for part in (results.label(config), f"seed {seed}") if part))
        return 0

    return _call(options, words, "jaxrl evaluate")


def plot(words: list[str]) -> int:
    """Draw the curve of a run, or several in one figure: jaxrl plot DIR..."""

    def options(
        directories: Annotated[tuple[pathlib.Path, ...], _positional()],
        /,
        out: pathlib.Path | None = None,
        metric: str | None = None,
    ):
        """Draw the learning curve of one run, or a comparison of several, with 95 % bootstrap intervals.

        Args:
          directories: the runs' folders.
          out: the figure's file (png, pdf, svg or jpg); curve.png in the run's folder, or comparison.png.
          metric: what to draw; training return and evaluation unless given.
        """
        from jaxrl.analysis.plot import plot_comparison, plot_curve
        from jaxrl.analysis.results import Results

        if not directories:
            raise JaxrlError("plot: name one run's folder at least")
        runs = [Results.load(directory) for directory in directories]
        if len(runs) == 1:
            path = out or directories[0] / "curve.png"
            plot_curve(runs[0], path, metric)
        else:
            path = out or pathlib.Path("comparison.png")
            plot_comparison(runs, path=path, metric=metric or "auto")
        print(path)
        return 0

    return _call(options, words, "jaxrl plot")


def list_all(words: list[str]) -> int:
    """Show all agents and environments."""

    def options():
        """Show all agents and environments."""
        from rich.console import Console
        from rich.table import Table

        from jaxrl.agents import AGENTS
        from jaxrl.envs import list_ids

        agents = Table("agent", "", title="agents (jaxrl train AGENT --help)", title_justify="left", box=None)
        for name, constructor in AGENTS.items():
            agents.add_row(name, str(inspect.getdoc(constructor)).splitlines()[0])
        environments = Table("", "environment", title="environments (--env ID)", title_justify="left", box=None)
        for group, ids in list_ids().items():
            environments.add_row(group, "  ".join(ids) or f"none; pip install 'jaxrl[{group}]' adds them")
        Console().print(agents, "", environments)
        return 0

    return _call(options, words, "jaxrl list")


def bench(words: list[str]) -> int:
    """Measure speed, compile time and memory on this machine, beside another framework's if asked."""
    from jaxrl.runs import bench as benchmark

    return _call(benchmark.bench, words, "jaxrl bench")


def _positional() -> Any:
    import tyro

    return tyro.conf.Positional


def _call(function: Callable, words: list[str], program: str) -> int:
    import tyro

    return tyro.cli(function, args=words, prog=program) or 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "sweep": sweep,
    "resume": resume,
    "evaluate": evaluate,
    "plot": plot,
    "list": list_all,
    "bench": bench,
}

if __name__ == "__main__":
    sys.exit(main())
