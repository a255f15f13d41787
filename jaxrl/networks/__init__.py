"""Networks in flax.linen: torsos, which turn observations into features, and what stands on them."""

from jaxrl.networks.actor_critic import ActorCritic, Policy, PolicyHead, Value, make_actor_critic, make_policy
from jaxrl.networks.noisy import NoisyDense
from jaxrl.networks.off_policy import (
    SquashedGaussian,
    TanhPolicy,
    greedy,
    make_critics,
    make_discrete_critics,
    squashed_gaussian,
)
from jaxrl.networks.q_network import DUELING, QNetwork, make_q_network
from jaxrl.networks.recurrent import Recurrent, RecurrentQNetwork, make_recurrent_q_network
from jaxrl.networks.torsos import ACTIVATIONS, CNN, MLP, NatureCNN, make_torso, orthogonal

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "DUELING",
    "MLP",
    "ActorCritic",
    "NatureCNN",
    "NoisyDense",
    "Policy",
    "PolicyHead",
    "QNetwork",
    "Recurrent",
    "RecurrentQNetwork",
    "SquashedGaussian",
    "TanhPolicy",
    "Value",
    "greedy",
    "make_actor_critic",
    "make_critics",
    "make_discrete_critics",
    "make_policy",
    "make_q_network",
    "make_recurrent_q_network",
    "make_torso",
    "orthogonal",
    "squashed_gaussian",
]
