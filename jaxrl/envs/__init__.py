"""Environments: `make` finds one by its id, and the wrappers change one into another."""

from jaxrl.envs.registry import list_ids, make
from jaxrl.envs.wrappers import (
    clip_actions,
    discretize_actions,
    episode_statistics,
    flatten_observations,
    frame_stack,
    rescale_actions,
    time_limit,
)

__all__ = [
    "clip_actions",
    "discretize_actions",
    "episode_statistics",
    "flatten_observations",
    "frame_stack",
    "list_ids",
    "make",
    "rescale_actions",
    "time_limit",
]
