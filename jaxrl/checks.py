"""Errors that say what is wrong, and the argument checks that raise them.

A value under a JAX trace cannot be looked at, so every check lets tracers pass: `sweep` and the command line check the
concrete values before they trace.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import multiprocessing
import numbers
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_origin

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

    index: int
    text: str

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


def arguments(owner: str, function: Callable, given: Mapping[str, Any]):
    """Checks that each argument is of the kind that the function's annotation says, as far as that is one of these.

    `bool` is True or False, `int` a whole number, `float` a single number (or a tracer of one), `str` text, `tuple` a
    tuple, whose entries are checked, too; a function is called, another class's instance is one, and `|` is either.
    NumPy's scalars count as Python's. A bool is no number.

    Args:
      owner: whose arguments these are, such as "ppo".
      function: whose annotations count.
      given: the arguments by name; those that the function does not have are left to Python.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    kinds = _kinds(function)
    for name, value in given.items():
        if name in kinds and not _fits(value, kinds[name]):
            text = f"{owner}: {name}={shown(value)} is not accepted; it must be {_described(kinds[name])}"
            if _is_traced(value):
                raise JaxrlError(f"{text}, and not traced")
            if _has_axes(value) and get_origin(kinds[name]) is not tuple:
                floats = ", and jax.vmap trains one of each float" * (kinds[name] is float)
                raise JaxrlError(f"{text}. jaxrl.sweep takes a list or an array and trains one of each value{floats}")
            raise JaxrlError(text)


@functools.cache
def _kinds(function: Callable) -> dict[str, Any]:
    return inspect.get_annotations(function, eval_str=True)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        number_of_the_program = set(get_args(kind)) == {int, float}  # what may be traced is annotated `float`
        return any(_fits(value, each) for each in get_args(kind)) and not (number_of_the_program and _is_traced(value))
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if kind is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if kind is float:
        if isinstance(value, numbers.Real):
            return not isinstance(value, bool)
        return getattr(value, "shape", None) == () and _is_real(value.dtype)
    if get_origin(kind) is tuple:
        entry = get_args(kind)[0]  # of `tuple[int, ...]`, the only form that is used
        return isinstance(value, tuple) and all(_fits(each, entry) for each in value)
    known = get_origin(kind) or kind
    return isinstance(value, known) if isinstance(known, type) else True


def _is_real(dtype: Any) -> bool:
    import jax.numpy as jnp  # here, for the command line's help need not wait for it

    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _is_traced(value: Any) -> bool:
    from jax.core import Tracer  # here, for the command line's help need not wait for it

    return isinstance(value, Tracer)


def shown(value: Any) -> str:
    """A value for the text of an error: one line, at most 100 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _has_axes(value: Any) -> bool:
    return isinstance(value, list) or getattr(value, "ndim", 0) > 0


def _described(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        if set(get_args(kind)) == {int, float}:
            return "a number"
        return " or ".join(_described(each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        what, example = {int: ("whole numbers", (64, 64)), str: ("names", ("a", "b"))}[get_args(kind)[0]]
        return f"a tuple of {what}, such as {example}"
    known = {bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "None"}
    known |= {Callable: "a function", Mapping: "a dictionary"}
    kind = get_origin(kind) or kind
    return known.get(kind) or f"a {kind.__name__}"


def _values(value: Any) -> np.ndarray | None:
    """The concrete numbers of an argument, or None under a trace."""
    return None if _is_traced(value) else np.asarray(value)


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
    least, most = _values(low), _values(high)
    if least is not None and most is not None and not np.all(least < most):
        raise JaxrlError(f"{owner}: {low_name}={low} is not accepted; it must be less than {high_name}={high}")


def random_key(owner: str, key: Any):
    """Checks that `key` is one random key, typed or old-style.

    Raises:
      JaxrlError: saying how to get one, or how many are used.
    """
    import jax

    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype == np.uint32:
        expected = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    else:
        expected = () if dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key) else None
    if expected is None:
        raise JaxrlError(
            f"{owner}: key={shown(key)} is not accepted; it must be a random key, such as jax.random.key(0)"
        )
    if shape != expected:
        raise JaxrlError(
            f"{owner}: a key of shape {shape} is not accepted; it must be one key, of shape {expected}. jax.vmap over "
            "the keys trains many seeds"
        )


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
