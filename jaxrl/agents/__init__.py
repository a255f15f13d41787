"""The agents, and the one table of them."""

from __future__ import annotations

from collections.abc import Callable

from jaxrl.agents.dqn import dqn
from jaxrl.agents.ppo import ppo
from jaxrl.checks import unknown_name
from jaxrl.types import Agent

AGENTS: dict[str, Callable[..., Agent]] = {"dqn": dqn, "ppo": ppo}


def constructor(name: str) -> Callable[..., Agent]:
    """The constructor of an agent by its name, such as `constructor("ppo")`.

    Raises:
      JaxrlError: if there is no such agent; it names the closest.
    """
    if name not in AGENTS:
        raise unknown_name("agent", name, AGENTS, see="jaxrl list")
    return AGENTS[name]


__all__ = ["AGENTS", "constructor", "dqn", "ppo"]
