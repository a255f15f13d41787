"""Overestimation: the greatest value that natural DQN expects rises above what any policy can get, double DQN's less.

A pendulum with 11 torques, whose rewards are at most 0, and so are the true values of all states: where the maximum of
Q over the actions is above 0, it is too high. The left panel has it against environment steps, at the states visited,
as the mean over each log interval. The right one has how far it is above what the states were worth to the policy that
visited them, the mean reward divided by 1 - gamma: on average over the states of one long episode, V = r + gamma V.
That counts the random actions too, so that even a true maximum would be a little above it.

Van Hasselt, Guez and Silver 2016, section 3, have such curves of Atari games.

    python experiments/overestimation.py
"""

import pathlib

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import GREY, curves, draw_bands, new_figure
from jaxrl.networks import make_q_network
from jaxrl.transforms import report
from jaxrl.types import Agent

GAMMA = 0.9
HIDDEN = (20,)
NAMES = ("natural", "double")


def main(
    seeds: int = 64, steps: int = 25_000, log_every: int = 250, out: pathlib.Path = FIGURES / "overestimation.png"
) -> dict[str, dict[str, np.ndarray]]:
    """The greatest action values of natural and double DQN on a pendulum, over many seeds.

    Args:
      seeds: how many runs of each agent.
      steps: environment steps of each run.
      log_every: environment steps that each point of a curve is the mean of.
      out: where to write the figure.

    Returns:
      by agent: `max_q`, the mean over each interval of max_a Q(s, a), and `worth`, what these states were worth;
      `[S, intervals]`.
    """
    results = jaxrl.sweep(
        watched, "Pendulum-v1", num_steps=steps, seeds=seeds, log_every=log_every, eval_every=steps, eval_episodes=1,
        env_params={"discretize_actions": 11, "scale_rewards": 0.1, "max_steps_in_episode": 2 * steps},
        double=[False, True], progress=True,
    )  # fmt: skip
    max_q, excess = results.final("max_q"), results.final("excess")
    above = [f"{share:.0%} of seeds" for share in np.mean(max_q > 0, axis=-1)]
    title = f"pendulum, {seeds:,} seeds: last tenth of training, IQM (95 % interval)"
    header = ("DQN", "max Q", "less the states' worth", "above 0")
    figure, (left, right) = new_figure(
        f"Overestimation on a pendulum, {seeds:,} seeds: IQM and 95 % interval", ("", "")
    )
    draw_bands(left, results.steps, curves(results, NAMES, "max_q"))
    draw_bands(right, results.steps, curves(results, NAMES, "excess"))
    left.axhline(0, color=GREY, ls="--", lw=1.2, label="the greatest true value")
    left.set_ylabel("max Q of the states visited")
    left.legend(frameon=False, fontsize=10)
    right.axhline(0, color=GREY, ls="--", lw=1.2)
    right.set(ylabel="max Q less their worth", ylim=(-0.3, 4))  # before the first gradient step it is higher
    show(table(title, header, zip(NAMES, max_q, excess, above, strict=True)), figure, out)
    names = ("max_q", "worth")
    return {agent: {name: results.metrics[name][i] for name in names} for i, agent in enumerate(NAMES)}


def watched(*, double: bool) -> Agent:
    """DQN that reports the values of the states it visits."""
    agent = jaxrl.dqn(
        double=double, gamma=GAMMA, learning_rate=5e-3, hidden_sizes=HIDDEN, batch_size=32, replay_size=3_000,
        warmup_steps=3_000, epsilon_decay_steps=3_000, epsilon_final=0.1, target_update_every=200, loss="squared",
    )  # fmt: skip

    def max_q(state, trajectory):
        network = make_q_network("overestimation", state.spec, "mlp", HIDDEN, "relu")
        return network.apply(state.params, trajectory.obs).max(axis=-1).mean()

    def worth(_, trajectory):
        return trajectory.reward.mean() / (1 - GAMMA)

    def excess(state, trajectory):
        return max_q(state, trajectory) - worth(state, trajectory)

    return report(agent, max_q=max_q, worth=worth, excess=excess)


if __name__ == "__main__":
    on_all_cores(main)
