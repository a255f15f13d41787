"""The agents, and the one table of them."""

from __future__ import annotations

from collections.abc import Callable

from jaxrl.agents.a2c import a2c, one_step_actor_critic
from jaxrl.agents.dqn import dqn, qr_dqn, rainbow
from jaxrl.agents.naf import naf
from jaxrl.agents.nfq import nfq
from jaxrl.agents.ppo import ppo
from jaxrl.agents.pqn import pqn
from jaxrl.agents.r2d2 import r2d2
from jaxrl.agents.tabular import (
    double_q_learning,
    expected_sarsa,
    monte_carlo,
    n_step_sarsa,
    n_step_td,
    q_learning,
    sarsa,
    sarsa_lambda,
    td,
)
from jaxrl.checks import unknown_name
from jaxrl.types import Agent

AGENTS: dict[str, Callable[..., Agent]] = {
    "dqn": dqn,
    "rainbow": rainbow,
    "qr_dqn": qr_dqn,
    "pqn": pqn,
    "r2d2": r2d2,
    "nfq": nfq,
    "naf": naf,
    "a2c": a2c,
    "one_step_actor_critic": one_step_actor_critic,
    "ppo": ppo,
    "q_learning": q_learning,
    "double_q_learning": double_q_learning,
    "sarsa": sarsa,
    "expected_sarsa": expected_sarsa,
    "n_step_sarsa": n_step_sarsa,
    "sarsa_lambda": sarsa_lambda,
    "monte_carlo": monte_carlo,
    "td": td,
    "n_step_td": n_step_td,
}


def constructor(name: str) -> Callable[..., Agent]:
    """The constructor of an agent by its name, such as `constructor("ppo")`.

    Raises:
      JaxrlError: if there is no such agent; it names the closest.
    """
    if name not in AGENTS:
        raise unknown_name("agent", name, AGENTS, see="jaxrl list")
    return AGENTS[name]


__all__ = [
    "AGENTS",
    "a2c",
    "constructor",
    "double_q_learning",
    "dqn",
    "expected_sarsa",
    "monte_carlo",
    "n_step_sarsa",
    "n_step_td",
    "naf",
    "nfq",
    "one_step_actor_critic",
    "ppo",
    "pqn",
    "q_learning",
    "qr_dqn",
    "r2d2",
    "rainbow",
    "sarsa",
    "sarsa_lambda",
    "td",
]
