"""SAC with many gradient steps a step: randomized ensembled double Q-learning, and its dropout variant."""

from __future__ import annotations

from jaxrl.agents.off_policy.sac import sac
from jaxrl.learning.preset import preset

redq = preset(
    sac,
    "redq",
    """REDQ: ten critics, of which two make each target, and twenty gradient steps a step (Chen et al. 2021).""",
    num_critics=10,
    target_critics=2,
    policy_value="mean",
    policy_delay=20,
    replay_ratio=20,
)

droq = preset(
    sac,
    "droq",
    """DroQ: REDQ with two critics with dropout and layer norm in place of its ten (Hiraoka et al. 2022).""",
    dropout=0.01,
    layer_norm=True,
    policy_value="mean",
    policy_delay=20,
    replay_ratio=20,
)
