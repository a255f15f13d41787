"""Agents that are another one with other defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxrl.checks import JaxrlError
from jaxrl.types import Agent


def preset(constructor: Callable[..., Agent], name: str, summary: str, **defaults: Any) -> Callable[..., Agent]:
    """A constructor like another one, of which some arguments have other defaults. Errors call it by its own name.

    Args:
      constructor: such as `dqn`.
      name: what it is called, here and on the command line.
      summary: its docstring's first line; the arguments' descriptions are those of the constructor.
      **defaults: the arguments that differ; all can still be given.
    """

    def renaming(function: Callable) -> Callable:
        """The function, with errors that begin with this agent's name in place of the other one's."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except JaxrlError as error:
                owner, colon, rest = str(error).partition(": ")
                if owner != constructor.__name__:
                    raise
                raise type(error)(f"{name}{colon}{rest}") from None

        return call

    @renaming
    @functools.wraps(constructor)
    def make(**arguments: Any) -> Agent:
        for argument in arguments:
            if argument not in signature.parameters:  # Python would say it of the other constructor
                raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}")
        agent = constructor(**(defaults | arguments))
        return agent._replace(name=name, init=renaming(agent.init))

    signature = inspect.signature(constructor)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    make.__signature__ = signature.replace(parameters=parameters)
    make.__name__ = make.__qualname__ = name
    changed = ", ".join(f"{key}={value!r}" for key, value in defaults.items())
    _, arguments = inspect.getdoc(constructor).split("\n\nArgs:\n", 1)
    arguments = arguments.split("\n\nExample:")[0]
    make.__doc__ = f"{summary}\n\nIt is `{constructor.__name__}({changed})`.\n\nArgs:\n{arguments}"
    return make
