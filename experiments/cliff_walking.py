"""Walking along a cliff: Q-learning learns the shortest way, and falls off it while it explores; Sarsa walks around.

The lower part of the figure in example 6.6 of Sutton and Barto 2018, section 6.5: the sum of rewards during an episode
of Q-learning and Sarsa, and of expected Sarsa (section 6.6), averaged over seeds and smoothed over episodes. The table
has the greedy paths at the end, which are the upper part: along the edge in 13 steps, or a row or more away from it.

    python experiments/cliff_walking.py
"""

import pathlib

import numpy as np
import tyro
from common import FIGURES, show, train_seeds

import jaxrl
from jaxrl import planning
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import draw_bands, new_figure
from jaxrl.analysis.statistics import mean_interval, per_episode
from jaxrl.transforms import report

COMMON = {"learning_rate": 0.5, "gamma": 1.0, "epsilon_start": 0.1, "epsilon_final": 0.1}  # the book's
AGENTS = {"Sarsa": jaxrl.sarsa, "expected Sarsa": jaxrl.expected_sarsa, "Q-learning": jaxrl.q_learning}
LAST = 100  # episodes at the end that the table averages over


def main(
    seeds: int = 500, episodes: int = 500, steps: int = 25_000, smoothed_over: int = 10,
    out: pathlib.Path = FIGURES / "cliff_walking.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Online return and final greedy path of three agents beside a cliff, over many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      steps: environment steps of each run, enough for its episodes (an error says so where they are not).
      smoothed_over: the figure's moving average is over this many episodes.
      out: where to write the figure.

    Returns:
      by agent: `returns`, the sum of rewards, `[S, episodes]`, and `path`, the greedy path's steps after the last
      episode, `[S]` (one more than there are states where it does not arrive).
    """
    env, names = jaxrl.make("jaxrl/Cliff-v0"), ("episode_return", "path_length")
    num_states = env.spec.obs_space.n  # no path without a loop has more steps

    def path_length(state, _):
        return planning.path_length(env.model, state.q.argmax(-1), num_states)

    window = np.ones(min(smoothed_over, episodes)) / min(smoothed_over, episodes)
    numbers, rows, bands = {}, [], {}
    for name, constructor in AGENTS.items():
        agent = report(constructor(**COMMON), path_length=path_length)
        _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=names)
        returns, paths = (per_episode(metrics, metric, episodes) for metric in names)
        path = paths[:, -1]
        mean, low, high = mean_interval(returns[:, -LAST:].mean(axis=1))
        shares, never = [np.mean(path == length) for length in (13, 15, 17)], np.mean(path > num_states)
        cells = (f"{share:.1%}" for share in (*shares, max(0.0, 1 - sum(shares) - never), never))
        rows.append((name, f"{mean:.1f} ({low:.1f} to {high:.1f})", *cells))
        bands[name] = mean_interval(np.apply_along_axis(np.convolve, 1, returns, window, mode="valid"))
        numbers[name] = {"returns": returns, "path": path}

    title = f"cliff walking, {seeds:,} seeds: after {episodes} episodes, share of seeds by greedy path"
    header = ("agent", f"return, last {min(LAST, episodes)}", "13 steps", "15 steps", "17 steps", "another", "no end")
    figure, (axes,) = new_figure(
        f"Cliff walking, {seeds:,} seeds: mean and 95 % interval, moving average of {len(window)} episodes",
        xlabel="episode", ylabel="sum of rewards during an episode",
    )  # fmt: skip
    draw_bands(axes, np.arange(len(window), episodes + 1), bands)
    axes.set_ylim(-100, 0)
    axes.legend(frameon=False, fontsize=10, loc="lower right")
    show(table(title, header, rows), figure, out)
    return numbers


if __name__ == "__main__":
    tyro.cli(main)
