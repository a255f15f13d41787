"""A run's folder: who may write into it, what its `config.json` says, and the way back from that to the run."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_origin, get_type_hints

import jax

from jaxrl.agents import constructor
from jaxrl.analysis.results import Results
from jaxrl.checks import JaxrlError
from jaxrl.files import is_temporary, read_json, write_json
from jaxrl.record import imported
from jaxrl.runs.checkpoint import check_folder, check_same_run
from jaxrl.runs.devices import ask_for
from jaxrl.runs.job import Job, Ready, from_json, in_json, prepare
from jaxrl.runs.run import Listener, execute, versions

# What a run writes into its folder; its paths are listed at the end, and `--overwrite` deletes nothing else.
RUN_FILES = ("config.json", "metrics.npz", "summary.json", "curve.png", "checkpoints", "tensorboard")
LOCK = ".lock"  # is there while a process writes a run


@contextlib.contextmanager
def claimed(out: pathlib.Path, overwrite: bool) -> Iterator[None]:
    """Makes the folder of a new run, and holds it while the block lasts; or says why not."""

    def check():
        if _look(out, "--out") and not overwrite:
            raise JaxrlError(
                f"--out {out} holds a run already; choose another, delete it with --overwrite, "
                f"or resume it: jaxrl resume {out}"
            )

    check()  # before a lock is put into a folder that is someone else's
    with locked(out, "--out"):
        check()
        for name in reversed(RUN_FILES):  # config.json last: until then the folder is known to hold a run
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
        yield


def enter(out: pathlib.Path, job: Job) -> dict[str, Any] | None:
    """Makes the folder of a run, and returns None; or finds the same run in it, and returns its `config.json`.

    Raises:
      JaxrlError: if anything else is in it.
    """
    now = in_json(job)
    if not _look(out, "sweep: out ="):
        return None
    before = read_json(out / "config.json")
    check_same_run(f"sweep: out = {out}: what it holds", {name: before.get(name) for name in now}, now)
    return {name: entry for name, entry in before.items() if name != "configs"}


def is_complete(out: pathlib.Path) -> bool:
    """Whether the run in a folder is over."""
    return (out / "summary.json").exists()


@contextlib.contextmanager
def locked(out: pathlib.Path, argument: str) -> Iterator[None]:
    """Holds a folder while the block lasts, so that no other process writes a run into it.

    The lock is the operating system's, and ends with the process, however that ends. On a network disk it holds among
    machines if the disk has locks (NFS has); where there are none, a warning says so.

    Args:
      out: the folder.
      argument: what an error calls it by.

    Raises:
      JaxrlError: saying who holds it.
    """
    path = out / LOCK
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise JaxrlError(f"{argument} {out} cannot be written to: {error.strerror}") from error
        try:
            if not _lock(file, out):
                raise JaxrlError(f"{argument} {out} is in use by {_holder(file)}; it must end first, or be stopped")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    break
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # who held it has ended meanwhile, and removed the file: there is another one, or none
    try:
        now = datetime.datetime.now().isoformat(" ", "minutes")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.truncate(file, 0)
            os.write(file, holder.encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove a file that is open
            path.unlink()  # while it is held
        os.close(file)


def _lock(file: int, out: pathlib.Path) -> bool:
    """Takes a file's lock, if no one has it; whether that is so."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError) as error:
        warnings.warn(f"{out} cannot be locked ({error}): see to it that no other process trains in it", stacklevel=3)
    return True


def _holder(file: int) -> str:
    return os.read(file, 1000).decode(errors="replace") or "another process"


def _look(out: pathlib.Path, argument: str) -> bool:
    """Makes a folder, if it is not there; whether a run is in it already.

    Raises:
      JaxrlError: naming the argument that it comes from, if something else is there.
    """
    check_folder(out)
    if out.exists() and not out.is_dir():
        raise JaxrlError(f"{argument} {out} is a file; it must be a folder, or not there yet")
    try:
        out.mkdir(parents=True, exist_ok=True)
        inside = [path.name for path in out.iterdir()]
    except OSError as error:
        raise JaxrlError(f"{argument} {out} cannot be made: {error.strerror}") from error
    # A process that was killed may have left its lock and a file that it had not written to the end.
    inside = [name for name in inside if name != LOCK and not is_temporary(name, RUN_FILES)]
    if inside and not holds_run(out):
        raise JaxrlError(f"{argument} {out} is a folder with other things in it; choose another")
    return bool(inside)


def holds_run(folder: pathlib.Path) -> bool:
    """Whether a folder's config.json is one of ours: others' programs have files of that name, too."""
    try:
        return {"agent", "env", "num_steps", "hyper_parameters"} <= read_json(folder / "config.json").keys()
    except JaxrlError:
        return False


def config_of(job: Job, num_threads: int, tensorboard: bool) -> dict[str, Any]:
    """What `config.json` holds: `in_json(job)`, and what is only noted, on which machine and with what it began."""
    placed = {"num_devices": len(jax.devices()), "num_threads": num_threads}
    return in_json(job) | placed | {"tensorboard": tensorboard, "versions": versions()}


def train(
    ready: Ready,
    out: pathlib.Path,
    config: dict[str, Any],
    listeners: Sequence[Listener] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Results:
    """Trains a run in its folder, which is held, from its newest checkpoint on if there is one; writes its results.

    Args:
      ready: the run, from `prepare`.
      out: its folder.
      config: what `config.json` is to hold, from `config_of`.
      listeners: as of `execute`, which raises the errors.
      should_stop: likewise.
    """
    from jaxrl.analysis.plot import plot_curve  # here, for a sweep in memory need not wait for matplotlib

    write_json(out / "config.json", config, "config")
    results = dataclasses.replace(execute(ready, out, listeners, should_stop), config=config)
    results.save(out)
    plot_curve(results, out / "curve.png")
    return results


def read_run(out: pathlib.Path) -> tuple[Ready, dict[str, Any]]:
    """A run's job, checked, and its whole configuration; JAX gets as many devices and threads as it had."""
    path = out / "config.json"
    if not path.is_file():
        reason = "it has no config.json" if out.is_dir() else "there is no such folder"
        raise JaxrlError(f"{out} is not a run's folder: {reason}")
    config = read_json(path)
    kinds = get_type_hints(Job) | {"axes": list}
    for name, kind in (kinds | {"num_devices": int, "num_threads": int, "tensorboard": bool}).items():
        if not isinstance(config.get(name), get_origin(kind) or kind):
            raise JaxrlError(f"{path} is not the configuration of a run: {name} is {config.get(name, 'missing')}")
    ask_for(config["num_devices"], config["num_threads"])
    make_agent = imported(config["constructor"]) if config["constructor"] else constructor(config["agent"])
    return prepare(from_json(config), make_agent), config
