"""Checkpoints of a group of runs: the whole training state and the metrics so far, by orbax.

They are written in the background and appear under their final name only when complete, so a process may be killed at
any moment. Each of the state's leaves is stored under its path in the tree, and comes back bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.checks import JaxrlError, RunError
from jaxrl.files import system_reason
from jaxrl.types import PyTree


class Checkpoint(NamedTuple):
    """What one checkpoint holds.

    Attributes:
      point: how many log intervals are done.
      state: the training state, arrays of NumPy that nothing else writes to.
      metrics: what was recorded so far, arrays `[config, seed, time]`.
      facts: what else is known, in JSON's types.
      job: what was asked for, in JSON's types.
    """

    point: int
    state: PyTree
    metrics: dict[str, np.ndarray]
    facts: dict[str, Any]
    job: dict[str, Any]


def check_folder(directory: pathlib.Path):
    """Checks that checkpoints can be kept under a folder.

    Raises:
      JaxrlError: if its path has square brackets: orbax takes them for a pattern, and loses what it writes there.
    """
    if set("[]") & set(str(directory.absolute())):
        raise JaxrlError(f"{directory.absolute()} is not accepted; a path of checkpoints must not hold [ or ]")


@contextlib.contextmanager
def manager(directory: pathlib.Path, read_only: bool = False) -> Iterator[Any]:
    """An orbax manager of a folder's checkpoints that keeps the newest; on leaving, what it writes is complete.

    Args:
      directory: the folder.
      read_only: whether to leave the folder as it is. Else what an interrupted process had begun to write is removed.

    Raises:
      JaxrlError: as `check_folder` does; a RunError if a checkpoint cannot be written.
    """
    import orbax.checkpoint as ocp

    check_folder(directory)
    # What went wrong is said once, by the error: not for each thread, and each read that a failed one took along.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"read_only": True} if read_only else {"max_to_keep": 1, "cleanup_tmp_directories": True}
    with _without_echoes():
        with _saving(directory, "read" if read_only else "written"):
            opened = ocp.CheckpointManager(directory.absolute(), options=ocp.CheckpointManagerOptions(**options))
        try:
            yield opened
        except BaseException:
            with contextlib.suppress(Exception):  # its own error says less
                opened.close()
            raise
        with _saving(directory):
            opened.close()


@contextlib.contextmanager
def _saving(directory: pathlib.Path, verb: str = "written") -> Iterator[None]:
    """Whatever is raised within is said to be a checkpoint that could not be written.

    Raises:
      RunError: naming the folder, and what the operating system said.
    """
    try:
        yield
    except Exception as error:  # orbax and tensorstore each raise their own
        reason = system_reason(error) or _first_line(error)
        raise RunError(f"{directory}: the checkpoint cannot be {verb}: {reason}") from error


def check(opened: Any):
    """Raises a RunError if what was being written has failed."""
    with _saving(pathlib.Path(str(opened.directory))):
        opened.check_for_errors()


def finish(opened: Any):
    """Waits until what is being written is complete; raises a RunError if that has failed."""
    with _saving(pathlib.Path(str(opened.directory))):
        opened.wait_until_finished()
        opened.check_for_errors()


def save(opened: Any, checkpoint: Checkpoint):
    """Starts to write a checkpoint; returns while it is being written.

    Raises:
      RunError: if it cannot be written, or the one before it could not.
    """
    import orbax.checkpoint as ocp

    args = ocp.args.Composite(
        state=ocp.args.StandardSave(dict(_paths(checkpoint.state))),
        history=ocp.args.StandardSave(checkpoint.metrics),
        facts=ocp.args.JsonSave({"facts": checkpoint.facts, "job": checkpoint.job}),
    )
    with _saving(pathlib.Path(str(opened.directory))):
        opened.save(checkpoint.point, args=args)


def restore(opened: Any, like: PyTree, job: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint of a folder; None where there is none.

    Args:
      opened: the folder's manager.
      like: the state that is expected, leaves with shape and dtype.
      job: what is asked for now; the checkpoint's must be the same.

    Raises:
      JaxrlError: naming the folder, if the checkpoint is damaged, or of another job or program.
    """
    import orbax.checkpoint as ocp

    point = opened.latest_step()
    if point is None:
        return None
    folder = pathlib.Path(str(opened.directory)) / str(point)
    try:
        items = opened.restore(
            point,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(), history=ocp.args.StandardRestore(), facts=ocp.args.JsonRestore()
            ),
        )
        stored = {path: np.asarray(leaf) for path, leaf in items.state.items()}
        metrics = {name: np.array(values) for name, values in items.history.items()}
        facts, stored_job = items.facts["facts"], dict(items.facts["job"])
    except Exception as error:  # orbax, tensorstore, zarr and JSON each raise their own
        raise JaxrlError(f"{folder}: the checkpoint is damaged or not one of jaxrl's ({_first_line(error)})") from error
    check_same_run(f"{folder}: the checkpoint", stored_job, job)
    expected = dict(_paths(like))
    for path in expected.keys() | stored.keys():
        if path not in stored or path not in expected:
            raise JaxrlError(f"{folder}: the checkpoint is of another program: {path} is {_where(path, stored)}")
        found, wanted = stored[path], expected[path]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise JaxrlError(
                f"{folder}: the checkpoint is of another program: {path} is {found.dtype}{list(found.shape)}, where "
                f"{wanted.dtype}{list(wanted.shape)} is needed"
            )
    state = jax.tree.unflatten(jax.tree.structure(like), [stored[path] for path in expected])
    return Checkpoint(point, state, metrics, facts, job)


def newest(directory: pathlib.Path, like: PyTree, job: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint of a folder, also while a run that is going on puts others in its place; see `restore`."""

    def points() -> list[str]:
        return sorted(path.name for path in directory.glob("*") if path.name.isdigit())

    while True:
        before = points()
        try:
            with manager(directory, read_only=True) as opened:
                found = restore(opened, like, job)
            if found or points() == before:
                return found
        except (JaxrlError, OSError):
            if points() == before:
                raise


def check_same_run(what: str, before: dict[str, Any], now: dict[str, Any]):
    """Checks that what was stored is of the job that is asked for now; both in JSON's types.

    Raises:
      JaxrlError: naming what was stored, and the first entry that is not the same.
    """
    was, is_ = dict(_entries(before)), dict(_entries(now))
    for name in was | is_:
        if was.get(name) != is_.get(name):
            raise JaxrlError(f"{what} is of another run: {name} was {was.get(name)!r}, and now is {is_.get(name)!r}")


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
    """Where one of many reads or writes fails, the others fail after it, in threads that only stderr is left for."""
    hook = sys.unraisablehook

    def without_echoes(unraisable: Any):
        if not (isinstance(unraisable.exc_value, RuntimeError) and "loop is closed" in str(unraisable.exc_value)):
            hook(unraisable)

    sys.unraisablehook = without_echoes
    try:
        yield
    except Exception:
        time.sleep(0.2)  # nothing says when the last of them has failed
        raise
    finally:
        sys.unraisablehook = hook


def _entries(job: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job's entries, with the entries of its dictionaries one by one."""
    for name, value in job.items():
        if isinstance(value, dict):
            yield from _entries({f"{name}[{key!r}]": entry for key, entry in value.items()})
        else:
            yield name, value


def _where(path: str, stored: dict[str, np.ndarray]) -> str:
    return "not needed" if path in stored else "missing"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _paths(tree: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
