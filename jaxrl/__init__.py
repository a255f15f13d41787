"""Reinforcement learning as pure functions on JAX."""

from jaxrl import replay, returns
from jaxrl.agents import dqn, ppo
from jaxrl.checks import JaxrlError
from jaxrl.envs import make
from jaxrl.evaluate import evaluate
from jaxrl.loop import TrainState, init_train, train, train_interval, train_step
from jaxrl.types import Agent, Box, Discrete, Env, Outcome, Spec, Transition

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Box",
    "Discrete",
    "Env",
    "JaxrlError",
    "Outcome",
    "Spec",
    "TrainState",
    "Transition",
    "dqn",
    "evaluate",
    "init_train",
    "make",
    "ppo",
    "replay",
    "returns",
    "train",
    "train_interval",
    "train_step",
]
