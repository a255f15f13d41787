"""A run's folder: who may write into it, what its `config.json` says, and the way back from that to the run.

Like the command line, which it serves, it imports what takes time only where that is needed.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import shutil
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from jaxrl.checks import JaxrlError

if TYPE_CHECKING:
    from jaxrl.run import Job, Ready

# What a run writes into its folder; its paths are listed at the end, and `--overwrite` deletes nothing else.
RUN_FILES = ("config.json", "metrics.npz", "summary.json", "curve.png", "checkpoints", "tensorboard")


def claim(out: pathlib.Path, overwrite: bool):
    """Makes the run's folder, or says why not."""
    from jaxrl.checkpoint import check_folder

    check_folder(out)
    if out.exists() and not out.is_dir():
        raise JaxrlError(f"--out {out} is a file; it must be a folder, or not there yet")
    if out.exists() and any(out.iterdir()):
        if not holds_run(out):
            raise JaxrlError(f"--out {out} is a folder with other things in it; choose another")
        if not overwrite:
            raise JaxrlError(
                f"--out {out} holds a run already; choose another, delete it with --overwrite, "
                f"or go on with it: jaxrl resume {out}"
            )
        for name in RUN_FILES:
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxrlError(f"--out {out} cannot be made: {error.strerror}") from error


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
