"""Reinforcement learning as pure functions on JAX.

The public API. Names are imported when they are first used, so that the command line answers before JAX is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxrl import agents, envs, losses, networks, planning, replay, returns, transforms
    from jaxrl.agents import (
        a2c,
        a3c,
        acer,
        cem,
        ddpg,
        diayn,
        discrete_sac,
        double_q_learning,
        dppo,
        dqn,
        droq,
        expected_sarsa,
        hill_climbing,
        monte_carlo,
        n_step_sarsa,
        n_step_td,
        naf,
        nfq,
        npg,
        one_step_actor_critic,
        ppo,
        pqn,
        q_learning,
        qr_dqn,
        r2d2,
        rainbow,
        redq,
        reinforce,
        sac,
        sac_v1,
        sarsa,
        sarsa_lambda,
        td,
        td3,
        trpo,
    )
    from jaxrl.analysis.results import Results
    from jaxrl.checks import JaxrlError
    from jaxrl.envs import make
    from jaxrl.evaluation import evaluate
    from jaxrl.loop import TrainState, init_train, train, train_interval, train_step
    from jaxrl.runs.sweep import sweep
    from jaxrl.types import Agent, Box, Discrete, Env, Outcome, Spec, Transition

_HOMES = {
    "jaxrl.agents": (
        "a2c",
        "a3c",
        "acer",
        "cem",
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
    ),
    "jaxrl.checks": ("JaxrlError",),
    "jaxrl.envs": ("check_env", "make"),
    "jaxrl.evaluation": ("evaluate",),
    "jaxrl.loop": ("TrainState", "init_train", "train", "train_interval", "train_step"),
    "jaxrl.analysis.results": ("Results",),
    "jaxrl.runs.sweep": ("sweep",),
    "jaxrl.types": ("Agent", "Box", "Discrete", "Env", "Outcome", "Spec", "Transition", "box"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    "agents",
    "envs",
    "losses",
    "networks",
    "transforms",
    "planning",
    "replay",
    "returns",
)

__all__ = [
    "Agent",
    "Box",
    "Discrete",
    "Env",
    "JaxrlError",
    "Outcome",
    "Results",
    "Spec",
    "TrainState",
    "Transition",
    "a2c",
    "a3c",
    "acer",
    "agents",
    "cem",
    "ddpg",
    "diayn",
    "discrete_sac",
    "double_q_learning",
    "dppo",
    "dqn",
    "droq",
    "envs",
    "evaluate",
    "expected_sarsa",
    "hill_climbing",
    "init_train",
    "losses",
    "make",
    "monte_carlo",
    "n_step_sarsa",
    "n_step_td",
    "naf",
    "networks",
    "nfq",
    "npg",
    "one_step_actor_critic",
    "planning",
    "ppo",
    "pqn",
    "q_learning",
    "qr_dqn",
    "r2d2",
    "rainbow",
    "redq",
    "reinforce",
    "replay",
    "returns",
    "sac",
    "sac_v1",
    "sarsa",
    "sarsa_lambda",
    "sweep",
    "td",
    "td3",
    "train",
    "train_interval",
    "train_step",
    "transforms",
    "trpo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxrl.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'jaxrl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
