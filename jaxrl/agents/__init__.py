"""The agents, and the one table of them."""

from __future__ import annotations

from collections.abc import Callable

from jaxrl.agents.off_policy.ddpg import ddpg
from jaxrl.agents.off_policy.diayn import diayn
from jaxrl.agents.off_policy.discrete_sac import discrete_sac
from jaxrl.agents.off_policy.redq import droq, redq
from jaxrl.agents.off_policy.sac import sac
from jaxrl.agents.off_policy.sac_v1 import sac_v1
from jaxrl.agents.off_policy.td3 import td3
from jaxrl.agents.policy_gradient.a2c import a2c, one_step_actor_critic
from jaxrl.agents.policy_gradient.a3c import a3c
from jaxrl.agents.policy_gradient.acer import acer
from jaxrl.agents.policy_gradient.dppo import dppo
from jaxrl.agents.policy_gradient.ppo import ppo
from jaxrl.agents.policy_gradient.reinforce import reinforce
from jaxrl.agents.policy_gradient.trpo import npg, trpo
from jaxrl.agents.search.cem import cem
from jaxrl.agents.search.hill_climbing import hill_climbing
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
from jaxrl.agents.value_based.dqn import dqn, qr_dqn, rainbow
from jaxrl.agents.value_based.naf import naf
from jaxrl.agents.value_based.nfq import nfq
from jaxrl.agents.value_based.pqn import pqn
from jaxrl.agents.value_based.r2d2 import r2d2
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
    "reinforce": reinforce,
    "one_step_actor_critic": one_step_actor_critic,
    "a2c": a2c,
    "a3c": a3c,
    "acer": acer,
    "npg": npg,
    "trpo": trpo,
    "ppo": ppo,
    "dppo": dppo,
    "ddpg": ddpg,
    "td3": td3,
    "sac": sac,
    "redq": redq,
    "droq": droq,
    "sac_v1": sac_v1,
    "discrete_sac": discrete_sac,
    "diayn": diayn,
    "cem": cem,
    "hill_climbing": hill_climbing,
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
    "a3c",
    "acer",
    "cem",
    "constructor",
    "ddpg",
    "diayn",
    "discrete_sac",
    "double_q_learning",
    "dppo",
    "dqn",
    "droq",
    "expected_sarsa",
    "hill_climbing",
    "monte_carlo",
    "n_step_sarsa",
    "n_step_td",
    "naf",
    "nfq",
    "npg",
    "one_step_actor_critic",
    "ppo",
    "pqn",
    "q_learning",
    "qr_dqn",
    "r2d2",
    "rainbow",
    "redq",
    "reinforce",
    "sac",
    "sac_v1",
    "sarsa",
    "sarsa_lambda",
    "td",
    "td3",
    "trpo",
]
