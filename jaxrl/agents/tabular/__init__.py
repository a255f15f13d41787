"""Agents that keep a table, or a linear function of features, and the textbook's algorithms to learn it."""

from jaxrl.agents.tabular.double_q_learning import double_q_learning
from jaxrl.agents.tabular.expected_sarsa import expected_sarsa
from jaxrl.agents.tabular.monte_carlo import monte_carlo
from jaxrl.agents.tabular.n_step_sarsa import n_step_sarsa
from jaxrl.agents.tabular.n_step_td import n_step_td
from jaxrl.agents.tabular.q_learning import q_learning
from jaxrl.agents.tabular.sarsa import sarsa
from jaxrl.agents.tabular.sarsa_lambda import sarsa_lambda
from jaxrl.agents.tabular.td import td

__all__ = [
    "double_q_learning",
    "expected_sarsa",
    "monte_carlo",
    "n_step_sarsa",
    "n_step_td",
    "q_learning",
    "sarsa",
    "sarsa_lambda",
    "td",
]
