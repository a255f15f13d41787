"""SAC of jaxrl beside Brax's own SAC, in one of Brax's environments: greedy returns along the way.

Both have the same environments, networks, batches, learning rates and number of gradient steps, scaled rewards and
normalised observations: by default a 13th of the steps that Brax's tutorial gives hopper, with smaller networks and
batches, so that a CPU gets through it in minutes. `--published` is what the tutorial gives hopper and walker2d, for an
accelerator; for halfcheetah it has no SAC.

    python experiments/benchmarks/brax_sac.py --env hopper --seeds 4
    python experiments/benchmarks/brax_sac.py --env hopper --seeds 4 --published
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from rich.table import Table

import jaxrl
from jaxrl import checks
from jaxrl.analysis.results import format_number
from jaxrl.analysis.statistics import final_return

REWARD_SCALE = {"hopper": 30, "walker2d": 5}  # elsewhere 1
EVALUATIONS = 10
EPISODES = 32
LAST = 4  # evaluations that a seed's result is the mean of: hopper falls at one and stands at the next


class Sizes(NamedTuple):
    """What both libraries are given."""

    num_steps: int
    num_envs: int
    gradient_steps: int  # for each step of all environments
    batch_size: int
    units: int  # of each of two layers


SMALL = Sizes(500_000, 64, 16, 128, 128)
PUBLISHED = {"hopper": Sizes(6_553_600, 128, 64, 512, 256), "walker2d": Sizes(7_864_320, 128, 32, 128, 256)}
GAMMA, LEARNING_RATE, REPLAY_SIZE, WARMUP_STEPS = 0.997, 6e-4, 2**20, 8_192


def main(env: str = "hopper", backend: str = "spring", seeds: int = 4, num_steps: int = 0, published: bool = False):
    """Trains both, one seed after the other, and prints a table.

    Args:
      env: an environment of Brax, without "brax/".
      backend: of Brax: spring, positional, generalized or mjx.
      seeds: how many runs of each.
      num_steps: environment steps of a run; 0 is what belongs to the sizes.
      published: the sizes of Brax's tutorial instead of those for a CPU.

    Raises:
      JaxrlError: where the tutorial has none.
    """
    if published:
        checks.one_of("brax_sac --published", PUBLISHED, env=env)
    sizes = PUBLISHED[env] if published else SMALL
    sizes = sizes._replace(num_steps=num_steps or sizes.num_steps)
    table = Table(title=f"SAC on brax/{env} ({backend}), {sizes.num_steps:,} steps, {seeds} seeds")
    for name in ("library", f"greedy return, last {LAST} evaluations: IQM (95 % interval)", "each seed"):
        table.add_column(name, justify="left" if name == "library" else "right")
    for name, train in (("jaxrl", train_jaxrl), ("brax", train_brax)):
        returns = []
        for seed in range(seeds):
            curve = train(env, backend, seed, sizes, REWARD_SCALE.get(env, 1))
            print(name, f"seed {seed}:", *(f"{x:.0f}" for x in curve), flush=True)
            returns.append(np.mean(curve[-LAST:]))
        iqm, low, high = (format_number(final_return(returns)[statistic]) for statistic in ("iqm", "ci_low", "ci_high"))
        interval = f" ({low} to {high})" if seeds > 1 else ""
        table.add_row(name, iqm + interval, ", ".join(map(format_number, returns)))
    rich.print(table)


def train_jaxrl(env: str, backend: str, seed: int, sizes: Sizes, reward_scale: float) -> np.ndarray:
    """The greedy return of each evaluation."""
    results = jaxrl.sweep(
        jaxrl.sac, f"brax/{env}", num_steps=sizes.num_steps, seeds=1, run_seed=seed,
        eval_every=-(-sizes.num_steps // EVALUATIONS), eval_episodes=EPISODES,
        env_params={"backend": backend, "scale_rewards": reward_scale, "reset_pool": 256},
        num_envs=sizes.num_envs, replay_ratio=sizes.gradient_steps / sizes.num_envs, batch_size=sizes.batch_size,
        hidden_sizes=(sizes.units, sizes.units), replay_size=REPLAY_SIZE, warmup_steps=WARMUP_STEPS, gamma=GAMMA,
        actor_learning_rate=LEARNING_RATE, critic_learning_rate=LEARNING_RATE, target_entropy=-0.5,
        normalize_observations=True,
    )  # fmt: skip
    returns = results.values("eval_return")[0]
    return returns[np.isfinite(returns)] / reward_scale


def train_brax(env: str, backend: str, seed: int, sizes: Sizes, reward_scale: float) -> np.ndarray:
    """The greedy return of each evaluation."""
    # Brax's SAC calls a function that JAX no longer has; on one device it only adds an axis.
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)
    from brax import envs
    from brax.training.agents.sac import networks
    from brax.training.agents.sac.train import train

    returns = []

    def progress(step: int, metrics: dict[str, Any]):
        returns.append(float(metrics["eval/episode_reward"]))

    train(
        environment=envs.get_environment(env, backend=backend), num_timesteps=sizes.num_steps, episode_length=1000,
        num_envs=sizes.num_envs, num_evals=EVALUATIONS + 1, num_eval_envs=EPISODES, deterministic_eval=True, seed=seed,
        learning_rate=LEARNING_RATE, discounting=GAMMA, batch_size=sizes.batch_size, normalize_observations=True,
        reward_scaling=reward_scale, min_replay_size=WARMUP_STEPS, max_replay_size=REPLAY_SIZE,
        grad_updates_per_step=sizes.gradient_steps, max_devices_per_host=1, progress_fn=progress,
        network_factory=functools.partial(
            networks.make_sac_networks, hidden_layer_sizes=(sizes.units, sizes.units)
        ),
    )  # fmt: skip
    return np.array(returns[1:])  # the first is of before training


if __name__ == "__main__":
    tyro.cli(main)
