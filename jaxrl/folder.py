"""A run's folder: who may write into it, what its `config.json` says, and the way back from that to the run.

Like the command line, it imports what takes time only where that is needed.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from jaxrl.checks import JaxrlError

if TYPE_CHECKING:
    from jaxrl.results import Results
    from jaxrl.run import Job, Listener, Ready

# What a run writes into its folder; its paths are listed at the end, and `--overwrite` deletes nothing else.
RUN_FILES = ("config.json", "metrics.npz", "summary.json", "curve.png", "checkpoints", "tensorboard")


def claim(out: pathlib.Path, overwrite: bool):
    """Makes the folder of a new run, or says why not."""
    if _look(out, "--out"):
        if not overwrite:
            raise JaxrlError(
                f"--out {out} holds a run already; choose another, delete it with --overwrite, "
                f"or go on with it: jaxrl resume {out}"
            )
        for name in RUN_FILES:
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)


def enter(out: pathlib.Path, job: Job) -> bool:
    """Makes the folder of a run, or finds it with the same run in it, or says why not; whether that is complete."""
    from jaxrl.checkpoint import check_same_run
    from jaxrl.files import read_json
    from jaxrl.run import in_json

    now = in_json(job)
    if not _look(out, "sweep: out ="):
        return False
    before = read_json(out / "config.json")
    check_same_run(f"sweep: out = {out}: what it holds", {name: before.get(name) for name in now}, now)
    return (out / "summary.json").exists()


def _look(out: pathlib.Path, argument: str) -> bool:
    """Makes a folder, if it is not there; whether a run is in it already.

    Raises:
      JaxrlError: naming the argument that it comes from, if something else is there.
    """
    from jaxrl.checkpoint import check_folder

    check_folder(out)
    if out.exists() and not out.is_dir():
        raise JaxrlError(f"{argument} {out} is a file; it must be a folder, or not there yet")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxrlError(f"{argument} {out} cannot be made: {error.strerror}") from error
    if any(out.iterdir()) and not holds_run(out):
        raise JaxrlError(f"{argument} {out} is a folder with other things in it; choose another")
    return any(out.iterdir())


def holds_run(folder: pathlib.Path) -> bool:
    """Whether a folder's config.json is one of ours: others' programs have files of that name, too."""
    from jaxrl.files import read_json

    try:
        return {"agent", "env", "num_steps", "hyper_parameters"} <= read_json(folder / "config.json").keys()
    except JaxrlError:
        return False


def config_of(job: Job, num_threads: int, tensorboard: bool) -> dict[str, Any]:
    """What `config.json` holds: the job, and how it runs on this machine."""
    import jax

    placed = {"num_devices": len(jax.devices()), "num_threads": num_threads}
    return dataclasses.asdict(job) | placed | {"tensorboard": tensorboard}


def train(
    ready: Ready,
    out: pathlib.Path,
    config: dict[str, Any],
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Results:
    """Trains a run in its folder, from its newest checkpoint on if there is one, and writes its results.

    Args:
      ready: the run, from `prepare`.
      out: its folder.
      config: what `config.json` is to hold, from `config_of`.
      listeners: as of `execute`, which raises the errors.
      should_stop: likewise.
    """
    from jaxrl.files import write_json
    from jaxrl.plot import plot_curve
    from jaxrl.run import execute

    write_json(out / "config.json", config, "config")
    results = dataclasses.replace(execute(ready, out, listeners, should_stop), config=config)
    results.save(out)
    plot_curve(results, out / "curve.png")
    return results


def read_run(out: pathlib.Path) -> tuple[Ready, dict[str, Any]]:
    """A run's job, checked, and its whole configuration; JAX gets as many devices and threads as it had."""
    from jaxrl.agents import constructor
    from jaxrl.devices import ask_for
    from jaxrl.files import read_json

    path = out / "config.json"
    if not path.is_file():
        reason = "it has no config.json" if out.is_dir() else "there is no such folder"
        raise JaxrlError(f"{out} is not a run's folder: {reason}")
    config = {"env_axes": {}} | read_json(path)  # older runs have none
    from jaxrl.run import Job, prepare

    kinds = get_type_hints(Job)
    for name, kind in (kinds | {"num_devices": int, "num_threads": int, "tensorboard": bool}).items():
        if not isinstance(config.get(name), get_origin(kind) or kind):
            raise JaxrlError(f"{path} is not the configuration of a run: {name} is {config.get(name, 'missing')}")
    ask_for(config["num_devices"], config["num_threads"])
    job = Job(**{name: config[name] for name in kinds})
    make_agent = constructor(job.agent)
    parameters = inspect.signature(make_agent).parameters
    tuples = {k for k in job.hyper_parameters if k in parameters and isinstance(parameters[k].default, tuple)}
    hyper_parameters = {k: tuple(v) if k in tuples else v for k, v in job.hyper_parameters.items()}
    return prepare(dataclasses.replace(job, hyper_parameters=hyper_parameters), make_agent), config
