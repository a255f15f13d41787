"""Deep deterministic policy gradients (Lillicrap et al. 2016)."""

from __future__ import annotations

from jaxrl.agents.off_policy.td3 import td3
from jaxrl.learning.preset import preset

ddpg = preset(
    td3,
    "ddpg",
    """DDPG: one critic, and targets and policy that change at every gradient step (Lillicrap et al. 2016, algorithm 1).

TD3 without its three changes: y = r + gamma Q'(s', mu'(s')), the critic regresses to y, and the policy goes up along
E[grad_a Q(s, a) grad_theta mu(s)], a = mu(s) (equations 4 to 6).""",
    num_critics=1,
    policy_delay=1,
    target_update_every=1,
    target_noise=0.0,
    noise="ornstein_uhlenbeck",
    noise_scale=0.4,
    noise_final=0.1,
    noise_decay_steps=100_000,
    random_warmup=False,
)
