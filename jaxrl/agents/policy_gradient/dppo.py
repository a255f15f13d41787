"""Distributed proximal policy optimisation: workers whose gradients are averaged (Heess et al. 2017)."""

from __future__ import annotations

from jaxrl.agents.policy_gradient.ppo import ppo
from jaxrl.learning.preset import preset

dppo = preset(
    ppo,
    "dppo",
    """Distributed PPO: workers each learn from their own environments, with averaged gradients (Heess et al. 2017).""",
    num_workers=4,
    num_envs=16,
)
