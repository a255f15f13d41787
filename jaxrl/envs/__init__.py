"""Environments: `make` finds one by its id, and the wrappers change one into another."""

from jaxrl.envs.check import check_env
from jaxrl.envs.own.grid import draw, grid_world
from jaxrl.envs.own.tabular import model_env
from jaxrl.envs.registry import list_ids, make
from jaxrl.envs.wrappers import (
    clip_actions,
    discretize_actions,
    flatten_observations,
    frame_stack,
    observe,
    rescale_actions,
    reset_pool,
    scale_rewards,
    time_limit,
)

__all__ = [
    "check_env",
    "clip_actions",
    "discretize_actions",
    "draw",
    "flatten_observations",
    "frame_stack",
    "grid_world",
    "list_ids",
    "make",
    "model_env",
    "observe",
    "rescale_actions",
    "reset_pool",
    "scale_rewards",
    "time_limit",
]
