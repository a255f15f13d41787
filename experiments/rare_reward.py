"""A rare reward: with prioritized replay DQN gets to the flag in fewer steps than with uniform replay.

A car in a valley gets -1 a step and +10 at the flag, and may try for 10,000 steps where MountainCar-v0 gives it 200, so
a random policy does arrive, after thousands of steps. Of all that is in the replay, few transitions have the reward;
prioritized replay draws them again and again (Schaul et al. 2016). Drawn are the steps of the first episodes.

    python experiments/rare_reward.py
"""

import pathlib

import jax.numpy as jnp
import numpy as np
from common import FIGURES, on_all_cores, show, train_seeds
from matplotlib.ticker import MaxNLocator

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import draw_bands, new_figure
from jaxrl.analysis.statistics import iqm_interval, per_episode
from jaxrl.types import Env

FLAG = 10.0
REPLAYS = ("uniform", "prioritized")
DQN = {
    "learning_rate": 5e-3, "gamma": 0.99, "hidden_sizes": (20,), "batch_size": 32, "replay_size": 10_000,
    "warmup_steps": 1_000, "epsilon_decay_steps": 10_000, "epsilon_final": 0.1, "target_update_every": 500,
    "loss": "squared",
}  # fmt: skip
SHOWN = (1, 2, 3, 5, 10, 15)  # the table's episodes


def main(
    seeds: int = 32, episodes: int = 20, limit: int = 10_000, out: pathlib.Path = FIGURES / "rare_reward.png"
) -> dict[str, np.ndarray]:
    """Steps to the flag of DQN with uniform and prioritized replay, over many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      limit: environment steps after which an episode is cut off; each run has as many as all of its episodes may take.
      out: where to write the figure.

    Returns:
      by replay: the length of each episode, `[S, episodes]`.
    """
    env, lengths = treasured(jaxrl.make("MountainCar-v0", max_steps_in_episode=limit)), {}
    for name in REPLAYS:
        agent, steps = jaxrl.dqn(replay=name, **DQN), episodes * limit
        _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=("episode_length",))
        lengths[name] = per_episode(metrics, "episode_length", episodes)

    title = f"mountain car: steps to the flag, IQM (95 % interval) of {seeds:,} seeds"
    shown = [i for i in sorted({*SHOWN, episodes}) if i <= episodes]
    rows = [(i, *(found[:, i - 1] for found in lengths.values())) for i in shown]
    rows.append(("all", *(found.sum(axis=1) for found in lengths.values())))
    figure, (left, right) = new_figure(
        f"Mountain car with a rare reward, {seeds:,} seeds: IQM and 95 % interval", ("", ""), xlabel="episode"
    )
    for axes, shape in ((left, np.asarray), (right, lambda x: x.cumsum(axis=1))):
        bands = {f"{name} replay": iqm_interval(shape(found)) for name, found in lengths.items()}
        draw_bands(axes, np.arange(1, episodes + 1), bands)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(ylabel="steps to the flag", yscale="log")
    left.legend(frameon=False, fontsize=10)
    right.set_ylabel("steps of all episodes so far")
    show(table(title, ("episode", *lengths), rows, text=()), figure, out)
    return lengths


def treasured(env: Env) -> Env:
    """The environment with another reward for the step that terminates."""

    def step(key, state, action):
        state, outcome = env.step(key, state, action)
        return state, outcome._replace(reward=jnp.where(outcome.terminated, FLAG, outcome.reward))

    return env._replace(step=step)


if __name__ == "__main__":
    on_all_cores(main)
