"""The agents. Their names are in `jaxrl.agents.table`."""

from __future__ import annotations

from collections.abc import Callable

from jaxrl.agents import table
from jaxrl.agents.table import *  # noqa: F403
from jaxrl.checks import unknown_name
from jaxrl.types import Agent

AGENTS: dict[str, Callable[..., Agent]] = {name: x for name, x in vars(table).items() if not name.startswith("_")}


def constructor(name: str) -> Callable[..., Agent]:
    """The constructor of an agent by its name, such as `constructor("ppo")`.

    Raises:
      JaxrlError: if there is no such agent; it names the closest.
    """
    if name not in AGENTS:
        raise unknown_name("agent", name, AGENTS, see="jaxrl list")
    return AGENTS[name]
