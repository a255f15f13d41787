"""Errors that say what is wrong, and the argument checks that raise them.

A value under a JAX trace cannot be looked at, so every check lets tracers pass: `sweep` and the command line check the
concrete values before they trace.
"""

from __future__ import annotations

import difflib
import math
import multiprocessing
from collections.abc import Iterable
from typing import Any

import numpy as np


class JaxrlError(ValueError):
    """An error that its message explains in full: a user needs no traceback to act on it."""


class RunError(JaxrlError):
    """What went wrong while a run was going on, and not in what was asked for."""


class StepError(Exception):
    """What went wrong in one of several environments on the host; what trains in it knows at which step that was.

    Attributes:
      index: which environment.
      text: what went wrong.
    """

    def __init__(self, index: int | StepError, text: str = ""):
        if isinstance(index, StepError):  # who hands on another process's exception may make one of it
            index, text = index.index, index.text
        super().__init__(index, text)  # all of the arguments, so that it can be pickled
        self.index, self.text = index, text


def unknown_name(kind: str, name: str, names: Iterable[str], see: str = "") -> JaxrlError:
    """The error for a name that is not in a table: it offers the closest ones.

    Args:
      kind: what was looked for, such as "agent".
      name: what was asked for.
      names: what there is.
      see: how to list them all, such as "jaxrl list".
    """
    names = list(names)
    lower = {n.lower(): n for n in names}
    close = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(sorted(names))}"
    return JaxrlError(f"unknown {kind} {name!r}: {hint}" + (f" ({see} shows all)" if see else ""))


def _values(value: Any) -> np.ndarray | None:
    """The concrete numbers of an argument, or None under a trace."""
    import jax  # here, for the command line's help need not wait for it

    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def number(owner: str, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, **arguments: Any):
    """Checks that each argument is a number in `[low, high]`, or in `(low, high]` with `open_low`; NaN never is.

    Args:
      owner: whose arguments these are, such as "ppo".
      low: lower bound.
      high: upper bound.
      open_low: whether the lower bound itself is left out.
      **arguments: name and value of each.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    bracket = "(" if open_low or low == -math.inf else "["
    accepted = f"a number in {bracket}{low:g}, {high:g}{')' if high == math.inf else ']'}"
    for name, value in arguments.items():
        try:
            numbers = _values(value)
            wrong = numbers is not None and not np.all(
                (numbers > low if open_low else numbers >= low) & (numbers <= high)
            )
            wrong = wrong or (numbers is not None and not np.all(np.isfinite(numbers)))
        except TypeError:
            wrong = True
        if wrong:
            raise JaxrlError(f"{owner}: {name}={value} is not accepted; it must be {accepted}")


def integer(owner: str, low: int = 1, **arguments: Any):
    """Checks that each argument is a whole number, at least `low`, and that an int32 holds it.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    for name, value in arguments.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < low:
            raise JaxrlError(f"{owner}: {name}={value} is not accepted; it must be a whole number, at least {low}")
        if value >= 2**31:
            raise JaxrlError(f"{owner}: {name}={value} is not accepted; it must be less than 2**31")


def increasing(owner: str, **arguments: Any):
    """Checks that two arguments are numbers, the second above the first.

    Raises:
      JaxrlError: naming both, their values and what is accepted.
    """
    number(owner, **arguments)
    (low_name, low), (high_name, high) = arguments.items()
    values = _values(low), _values(high)
    if all(value is not None for value in values) and not np.all(values[0] < values[1]):
        raise JaxrlError(f"{owner}: {low_name}={low} is not accepted; it must be less than {high_name}={high}")


def one_of(owner: str, accepted: Iterable[Any], **arguments: Any):
    """Checks that each argument is one of the accepted values.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    accepted = tuple(accepted)
    for name, value in arguments.items():
        if value not in accepted:
            raise JaxrlError(
                f"{owner}: {name}={value!r} is not accepted; it must be one of {', '.join(map(str, accepted))}"
            )


def not_where_imported():
    """Ends the process of an environment that imports the script which trains, before it trains, too.

    There nobody looks for an error's text. The process that started it says what to do.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit('training on the host must begin below `if __name__ == "__main__":`')
