"""Distributed proximal policy optimisation: workers whose gradients are averaged (Heess et al. 2017)."""

from __future__ import annotations

from typing import Any

from jaxrl.agents.policy_gradient.ppo import ppo
from jaxrl.constructors import preset
from jaxrl.types import Agent


@preset(ppo)
def dppo(*, num_envs: int = 16, num_workers: int = 4, **others: Any) -> Agent:
    """Distributed PPO: workers each learn from their own environments, with averaged gradients (Heess et al. 2017).

    Args:
      num_envs: environments that run in parallel, of all workers together.
      num_workers: parts that the environments are split into; divides num_envs. Each worker draws its minibatches from
        its own part alone (so num_minibatches divides that), and their gradients are averaged.
      **others: any other argument of `ppo`.
    """
    return ppo(num_envs=num_envs, num_workers=num_workers, **others)
