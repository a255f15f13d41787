"""A maze with traps: after how many episodes four agents know the shortest way.

An agent knows it where its greedy path from the start is as short as planning's, which is measured after each episode:
for the *first time*, and *for good*, from which episode it stays so to the end of training. Q-learning, whose targets
are greedy, always reaches the treasure. Sarsa learns the values of a policy that explores, beside traps, and in some
seeds that keeps it away. Traces find a way first, within a few episodes in the luckiest seeds; but in others they too
stay away for long, or keep to a way of 8 steps that they found early, where there is one of 6.

The book has no such figure; the agents are those of Sutton and Barto 2018, sections 6.4, 6.5 and 12.7. A second figure
draws what Q-learning has learned.

    python experiments/maze.py
"""

import pathlib

import numpy as np
import tyro
from common import FIGURES, show, train_seeds

import jaxrl
from jaxrl import planning
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import draw_bands, new_figure, plot_grid
from jaxrl.analysis.statistics import mean_interval, per_episode
from jaxrl.transforms import report

COMMON = {"learning_rate": 0.1, "gamma": 0.9, "epsilon_start": 0.1, "epsilon_final": 0.1}
AGENTS = {
    "Q-learning": jaxrl.q_learning(**COMMON),
    "Sarsa": jaxrl.sarsa(**COMMON),
    "Sarsa(0.9), accumulating": jaxrl.sarsa_lambda(lambda_=0.9, traces="accumulating", **COMMON),
    "Sarsa(0.9), replacing": jaxrl.sarsa_lambda(lambda_=0.9, traces="replacing", **COMMON),
}


def main(
    seeds: int = 256, episodes: int = 100, out: pathlib.Path = FIGURES / "maze.png",
    policy_out: pathlib.Path = FIGURES / "maze_policy.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Episodes until the greedy path through the maze is a shortest one, of four agents and many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      out: where to write the figure of the learning curves.
      policy_out: where to write the figure of the values and the greedy policy.

    Returns:
      by agent: `arrives` and `optimal`, `[S, episodes]`, whether the greedy path ends at the treasure after each
      episode, and is one of the shortest; `first` and `for_good`, `[S]`, the episode after which it is one of the
      shortest for the first time, and for good (infinite where never).
    """
    env = jaxrl.make("jaxrl/Maze-v0")
    num_states = env.spec.obs_space.n  # no path without a loop has more steps
    best = planning.value_iteration(env.model, gamma=COMMON["gamma"]).policy
    optimum = planning.path_length(env.model, best, env.spec.max_steps)

    def path_length(state, _):
        return planning.path_length(env.model, state.q.argmax(-1), num_states)

    steps, numbers, rows = episodes * env.spec.max_steps, {}, []  # however long the episodes are, these are enough
    for name, agent in AGENTS.items():
        watched = report(agent, path_length=path_length)
        states, metrics = train_seeds(watched, env, num_steps=steps, seeds=seeds, names=("path_length",))
        lengths = per_episode(metrics, "path_length", episodes)
        found = {"arrives": lengths <= num_states, "optimal": lengths == optimum}
        numbers[name] = found = found | when_true(found["optimal"])
        # Of whole episodes, and without interpolation, which knows no mean of a number and infinity.
        times = [np.quantile(found[x], (0.5, 0.05, 0.95), method="inverted_cdf") for x in ("first", "for_good")]
        cells = (f"{median:g} ({low:g} to {high:g})".replace("inf", "∞") for median, low, high in times)
        rows.append((name, *cells, *(f"{found[x][:, -1].mean():.1%}" for x in ("optimal", "arrives"))))
        if name == "Q-learning":
            plot_grid(env.spec, states.q[0], policy_out, f"Q-learning, seed 0, after {steps:,} steps")
    header = ("agent", "first time", "for good", "shortest at the end", "arrives at the end")
    title = f"episodes until the greedy path is a shortest one: median (middle 90 %) of {seeds:,} seeds"

    panels = {"arrives": "ends at the treasure", "optimal": "and is a shortest one"}
    figure, grid = new_figure(
        f"A 4 x 4 maze with traps: the greedy path of {seeds:,} seeds", list(panels.values()),
        xlabel="episode", ylabel="seeds (%), with 95 % interval", sharey=True,
    )  # fmt: skip
    for axes, kind in zip(grid, panels, strict=True):
        bands = {name: mean_interval(100.0 * found[kind]) for name, found in numbers.items()}
        draw_bands(axes, np.arange(1, episodes + 1), bands)
        axes.set_ylim(0, 101)
    grid[0].legend(frameon=False, fontsize=10, loc="lower right")
    show(table(title, header, rows), figure, out)
    print(f"figure: {policy_out}")
    return numbers


def when_true(known: np.ndarray) -> dict[str, np.ndarray]:
    """The episode after which `known`, bool `[S, episodes]`, is true for the first time, and for good."""
    first = np.where(known.any(axis=1), 1.0 + known.argmax(axis=1), np.inf)
    last_wrong = np.where(known, 0, np.arange(1, known.shape[1] + 1)).max(axis=1)
    return {"first": first, "for_good": np.where(known[:, -1], last_wrong + 1.0, np.inf)}


if __name__ == "__main__":
    tyro.cli(main)
