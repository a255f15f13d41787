"""Deep deterministic policy gradients (Lillicrap et al. 2016)."""

from __future__ import annotations

from typing import Any

from jaxrl.agents.off_policy.td3 import td3
from jaxrl.constructors import preset
from jaxrl.types import Agent


@preset(td3)
def ddpg(
    *,
    num_critics: int = 1,
    policy_delay: int = 1,
    target_update_every: int = 1,
    target_noise: float = 0.0,
    noise: str = "ornstein_uhlenbeck",
    noise_scale: float = 0.4,
    noise_final: float = 0.1,
    noise_decay_steps: int = 100_000,
    random_warmup: bool = False,
    **others: Any,
) -> Agent:
    """DDPG: one critic, and targets and policy that change at every gradient step (Lillicrap et al. 2016, algorithm 1).

    TD3 without its three changes: y = r + gamma Q'(s', mu'(s')), the critic regresses to y, and the policy goes up
    along E[grad_a Q(s, a) grad_theta mu(s)], a = mu(s) (equations 4 to 6).

    Args:
      num_critics: how many critics; targets take the least of their values.
      policy_delay: gradient steps of the critic to one of the policy.
      target_update_every: gradient steps between updates of the target networks.
      target_noise: standard deviation of the noise on the target policy's actions, >= 0.
      noise: of exploring, added to the policy's actions: ornstein_uhlenbeck or gaussian.
      noise_scale: its standard deviation at the first step, >= 0.
      noise_final: the same once it has decayed, >= 0.
      noise_decay_steps: environment steps over which it goes from the one to the other; 0 keeps it constant.
      random_warmup: whether actions are drawn uniformly during the warm-up.
      **others: any other argument of `td3`.
    """
    return td3(
        num_critics=num_critics, policy_delay=policy_delay, target_update_every=target_update_every,
        target_noise=target_noise, noise=noise, noise_scale=noise_scale, noise_final=noise_final,
        noise_decay_steps=noise_decay_steps, random_warmup=random_warmup, **others,
    )  # fmt: skip
