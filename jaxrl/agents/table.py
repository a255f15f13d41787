"""The one table of agents: a line for each file, in the order in which they are listed.

From it come the names of the package, `jaxrl.agents.AGENTS`, and so the command line's.
"""

# ruff: noqa: I001  # in the order in which one reads about them

from jaxrl.agents.value_based.dqn import dqn as dqn, rainbow as rainbow, qr_dqn as qr_dqn
from jaxrl.agents.value_based.pqn import pqn as pqn
from jaxrl.agents.value_based.r2d2 import r2d2 as r2d2
from jaxrl.agents.value_based.nfq import nfq as nfq
from jaxrl.agents.value_based.naf import naf as naf

from jaxrl.agents.policy_gradient.reinforce import reinforce as reinforce
from jaxrl.agents.policy_gradient.a2c import one_step_actor_critic as one_step_actor_critic, a2c as a2c
from jaxrl.agents.policy_gradient.a3c import a3c as a3c
from jaxrl.agents.policy_gradient.acer import acer as acer
from jaxrl.agents.policy_gradient.trpo import npg as npg, trpo as trpo
from jaxrl.agents.policy_gradient.ppo import ppo as ppo
from jaxrl.agents.policy_gradient.dppo import dppo as dppo

from jaxrl.agents.off_policy.ddpg import ddpg as ddpg
from jaxrl.agents.off_policy.td3 import td3 as td3
from jaxrl.agents.off_policy.sac import sac as sac
from jaxrl.agents.off_policy.redq import redq as redq, droq as droq
from jaxrl.agents.off_policy.sac_v1 import sac_v1 as sac_v1
from jaxrl.agents.off_policy.discrete_sac import discrete_sac as discrete_sac
from jaxrl.agents.off_policy.diayn import diayn as diayn

from jaxrl.agents.search.cem import cem as cem
from jaxrl.agents.search.hill_climbing import hill_climbing as hill_climbing

from jaxrl.agents.tabular.q_learning import q_learning as q_learning
from jaxrl.agents.tabular.double_q_learning import double_q_learning as double_q_learning
from jaxrl.agents.tabular.sarsa import sarsa as sarsa
from jaxrl.agents.tabular.expected_sarsa import expected_sarsa as expected_sarsa
from jaxrl.agents.tabular.n_step_sarsa import n_step_sarsa as n_step_sarsa
from jaxrl.agents.tabular.sarsa_lambda import sarsa_lambda as sarsa_lambda
from jaxrl.agents.tabular.monte_carlo import monte_carlo as monte_carlo
from jaxrl.agents.tabular.td import td as td
from jaxrl.agents.tabular.n_step_td import n_step_td as n_step_td
