"""Agents that are another one with other defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxrl.types import Agent


def preset(constructor: Callable[..., Agent], name: str, summary: str, **defaults: Any) -> Callable[..., Agent]:
    """A constructor like another one, of which some arguments have other defaults.

    Args:
      constructor: such as `dqn`.
      name: what it is called, here and on the command line.
      summary: its docstring's first line; the arguments' descriptions are those of the constructor.
      **defaults: the arguments that differ; all can still be given.
    """

    @functools.wraps(constructor)
    def make(**arguments: Any) -> Agent:
        return constructor(**(defaults | arguments))._replace(name=name)

    signature = inspect.signature(constructor)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    make.__signature__ = signature.replace(parameters=parameters)
    make.__name__ = make.__qualname__ = name
    changed = ", ".join(f"{key}={value!r}" for key, value in defaults.items())
    _, arguments = inspect.getdoc(constructor).split("\n\nArgs:\n", 1)
    arguments = arguments.split("\n\nExample:")[0]
    make.__doc__ = f"{summary}\n\nIt is `{constructor.__name__}({changed})`.\n\nArgs:\n{arguments}"
    return make
