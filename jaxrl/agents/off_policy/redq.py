"""SAC with many gradient steps a step: randomized ensembled double Q-learning, and its dropout variant."""

from __future__ import annotations

from typing import Any

from jaxrl.agents.off_policy.sac import sac
from jaxrl.constructors import preset
from jaxrl.types import Agent


@preset(sac)
def redq(
    *,
    replay_ratio: int | float = 20,
    num_critics: int = 10,
    target_critics: int = 2,
    policy_value: str = "mean",
    policy_delay: int = 20,
    **others: Any,
) -> Agent:
    """REDQ: ten critics, of which two make each target, and twenty gradient steps a step (Chen et al. 2021).

    Args:
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      num_critics: how many critics.
      target_critics: of how many of them, drawn anew each time, a target takes the least value; 0 is all.
      policy_value: what the policy is improved on: the critics' min or mean.
      policy_delay: gradient steps of the critics to one of policy and temperature.
      **others: any other argument of `sac`.
    """
    return sac(
        replay_ratio=replay_ratio, num_critics=num_critics, target_critics=target_critics, policy_value=policy_value,
        policy_delay=policy_delay, **others,
    )  # fmt: skip


@preset(sac)
def droq(
    *,
    replay_ratio: int | float = 20,
    policy_value: str = "mean",
    policy_delay: int = 20,
    layer_norm: bool = True,
    dropout: float = 0.01,
    **others: Any,
) -> Agent:
    """DroQ: REDQ with two critics with dropout and layer norm in place of its ten (Hiraoka et al. 2022).

    Args:
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      policy_value: what the policy is improved on: the critics' min or mean.
      policy_delay: gradient steps of the critics to one of policy and temperature.
      layer_norm: whether the critics' layers are normalised (Ba et al. 2016).
      dropout: how much of each of the critics' layers is dropped in learning, in [0, 1) (Hiraoka et al. 2022).
      **others: any other argument of `sac`.
    """
    return sac(
        replay_ratio=replay_ratio, policy_value=policy_value, policy_delay=policy_delay, layer_norm=layer_norm,
        dropout=dropout, **others,
    )  # fmt: skip
