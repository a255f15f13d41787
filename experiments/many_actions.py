"""Many actions: is a dueling network the better, the more actions there are?

A pendulum that takes one of 5 or of 25 torques, with natural and dueling DQN. An action's reward tells a dueling
network something of the state, so of all actions in it (Wang et al. 2016, whose figure 3 has 5, 10 and 20 actions of a
corridor). Drawn is the sum of rewards since the first step: the sooner an agent swings up, the sooner it falls no more.

Over 32 seeds it is behind with 5 torques and ahead with 25, as the paper would have it, but the intervals overlap.

    python experiments/many_actions.py
"""

import pathlib

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import draw_bands, new_figure
from jaxrl.analysis.statistics import iqm_interval
from jaxrl.transforms import report
from jaxrl.types import Agent

NAMES = ("natural", "dueling")


def main(
    seeds: int = 64, steps: int = 25_000, log_every: int = 250, torques: tuple[int, ...] = (5, 25),
    out: pathlib.Path = FIGURES / "many_actions.png",
) -> dict[int, dict[str, np.ndarray]]:  # fmt: skip
    """Accumulated reward of natural and dueling DQN on a pendulum with few and many torques, over many seeds.

    Args:
      seeds: how many runs of each agent.
      steps: environment steps of each run, a multiple of `log_every`.
      log_every: environment steps between the points of a curve.
      torques: how many levels the action has.
      out: where to write the figure.

    Returns:
      by number of torques and network: the sum of rewards since the first step, `[S, intervals]`.
    """
    numbers, rows = {}, []
    figure, panels = new_figure(
        f"Pendulum with few and many torques, {seeds:,} seeds: IQM and 95 % interval",
        [f"{count} torques" for count in torques], ylabel="accumulated reward / 10", sharey=True,
    )  # fmt: skip
    for axes, count in zip(panels, torques, strict=True):
        results = jaxrl.sweep(
            watched, "Pendulum-v1", num_steps=steps, seeds=seeds, progress=True, log_every=log_every, eval_every=steps,
            eval_episodes=1, dueling=[False, True],
            env_params={"discretize_actions": count, "scale_rewards": 0.1, "max_steps_in_episode": 2 * steps},
        )  # fmt: skip
        taken = np.diff(results.steps, prepend=0)  # the metric is a mean over each interval
        numbers[count] = dict(zip(NAMES, (results.metrics["reward"] * taken).cumsum(axis=-1), strict=True))
        shown = sorted({len(results.steps) // 2, len(results.steps)})
        rows += [(count, name, *(sums[:, i - 1] for i in shown)) for name, sums in numbers[count].items()]
        draw_bands(axes, results.steps, {name: iqm_interval(sums) for name, sums in numbers[count].items()})
    panels[0].legend(frameon=False, fontsize=10)
    header = ("torques", "DQN", *(f"after {results.steps[i - 1]:,} steps" for i in shown))
    title = f"pendulum, {seeds:,} seeds: accumulated reward, IQM (95 % interval)"
    show(table(title, header, rows, text=("DQN",)), figure, out)
    return numbers


def watched(*, dueling: bool) -> Agent:
    """DQN that reports the reward of each step; either way it has 40 hidden units, the dueling streams 20 each."""
    agent = jaxrl.dqn(
        dueling=dueling, hidden_sizes=(20,) if dueling else (40,), gamma=0.9, learning_rate=1e-3, batch_size=32,
        replay_size=3_000, warmup_steps=3_000, epsilon_decay_steps=3_000, epsilon_final=0.1, target_update_every=200,
        loss="squared",
    )  # fmt: skip
    return report(agent, reward=lambda state, trajectory: trajectory.reward.mean())


if __name__ == "__main__":
    on_all_cores(main)
