"""Skills without a reward: DIAYN in the plane, from places drawn at random (Eysenbach et al. 2019, section 4).

A point that moves 0.1 along each axis in a step sees where it is, and so does the discriminator. A skill can be told by
the places it leads to, so the skills part and go different ways. On the left how often the discriminator's best guess
is right, in replayed steps: those of old policies too, and the first ones of episodes, which tell little. On the right
greedy episodes, a colour for each skill; every seed finds other ways.

Over 16 seeds it tells the skill from 86 % of the replayed steps at last, where chance is one in eight, and from all the
states that greedy episodes end in. A skill need not be one way: some lead to several places, none of them another's.

    python experiments/diayn.py
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import rich
import tyro
from episodes import FIGURES, GREY, draw_band, final_cell, save, train_seeds, use_all_cores
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, PercentFormatter
from rich.table import Table

import jaxrl
from jaxrl.analysis.plot import DPI, PALETTE, style
from jaxrl.analysis.statistics import bootstrap_interval, interquartile_mean
from jaxrl.networks import MLP, Policy, PolicyHead
from jaxrl.types import Agent, Array, Discrete, Env, Key, PyTree

HORIZON = 25  # steps of an episode
HIDDEN = (64, 64)
WARMUP = 1_000  # environment steps before the first gradient step
NUM_ENVS = 8
SMOOTHED = 20  # points of the curve
METRICS = ("accuracy", "skill_reward")


def main(
    seeds: int = 16,
    steps: int = 40_000,
    skills: int = 8,
    shown: int = 3,
    episodes: int = 6,
    out: pathlib.Path = FIGURES / "diayn.png",
) -> dict[str, np.ndarray]:
    """How well a discriminator can tell the skills of DIAYN, and where these go, over many seeds.

    Args:
      seeds: how many runs, at least 2.
      steps: environment steps of each.
      skills: how many skills.
      shown: of how many seeds the skills' ways are drawn.
      episodes: ways of each skill in the figure.
      out: where to write the figure.

    Returns:
      by metric: means over each of `SMOOTHED` equal stretches after the warm-up, `[S, SMOOTHED]`; `final_accuracy`,
      `[S]`, at the last steps of new greedy episodes; and `ways`, `[shown, skills, episodes, HORIZON + 1, 2]`.
    """
    agent, env = learner(skills), jaxrl.make("jaxrl/Point-v0", max_steps=HORIZON)
    states, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=METRICS)
    numbers = {name: stretches(metrics[name]) for name in METRICS}
    found = jax.vmap(lambda state: ways(agent, env, state, jax.random.key(1), skills, episodes))(states)
    positions, guesses = jax.device_get(found)
    numbers["final_accuracy"] = np.mean(guesses == np.arange(skills)[:, None], axis=(1, 2))
    numbers["ways"] = positions[:shown]
    rich.print(tabulate(numbers, steps, skills))
    save(draw(numbers, steps, skills), out)
    return numbers


def learner(skills: int) -> Agent:
    return jaxrl.diayn(
        num_skills=skills, gamma=0.95, hidden_sizes=HIDDEN, batch_size=64, num_envs=NUM_ENVS, replay_ratio=0.5,
        warmup_steps=WARMUP, replay_size=20_000, actor_learning_rate=1e-3, critic_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
    )  # fmt: skip


def discriminate(state: PyTree, obs: Array, skills: int) -> Array:
    """The skill that the learnt discriminator thinks likeliest, int32 `[...]`, for observations `[..., 2]`."""
    network = Policy(MLP(HIDDEN, "relu"), PolicyHead(Discrete(skills)))
    return network.apply(state.params.discriminator, obs).mode()


def stretches(metric: np.ndarray) -> np.ndarray:
    """Means of a metric `[S, updates]` over equal stretches of it after the warm-up: `[S, SMOOTHED]`."""
    learnt = metric[:, WARMUP // NUM_ENVS :]
    whole = learnt.shape[1] // SMOOTHED * SMOOTHED
    return learnt[:, :whole].reshape(len(learnt), SMOOTHED, -1).mean(-1)


def ends(steps: int) -> np.ndarray:
    """The environment steps at the stretches' ends, `[1 + SMOOTHED]`; the first is where they begin."""
    return np.linspace(WARMUP, steps, 1 + SMOOTHED)


def ways(agent: Agent, env: Env, state: PyTree, key: Key, skills: int, episodes: int) -> tuple[Array, Array]:
    """Greedy episodes of every skill, from the same places.

    Args:
      agent: as `learner` makes it.
      env: where.
      state: the agent's.
      key: for the places where episodes begin.
      skills: how many skills.
      episodes: of each skill.

    Returns:
      positions, `[skills, episodes, HORIZON + 1, 2]`, an episode that ended staying where it did; and which skill the
      discriminator takes the last of them for, `[skills, episodes]`.
    """
    reset_key, run_key = jax.random.split(key)
    env_state, obs = jax.tree.map(
        lambda x: jnp.tile(x, (skills, *(1,) * (x.ndim - 1))),  # [episodes, ...] -> [skills * episodes, ...]
        jax.vmap(env.reset)(jax.random.split(reset_key, episodes)),
    )
    skill = jnp.repeat(jnp.arange(skills), episodes)

    def one_step(carry: tuple, t: Array) -> tuple[tuple, Array]:
        env_state, obs, place, ended = carry
        keys = jax.random.split(jax.random.fold_in(run_key, t), 1 + len(skill))
        action, _, _ = agent.act(state, skill, obs, keys[0], 0, explore=False)
        env_state, outcome = jax.vmap(env.step)(keys[1:], env_state, action)
        place = jnp.where(ended[:, None], place, outcome.obs)
        return (env_state, outcome.obs, place, ended | outcome.terminated | outcome.truncated), place

    carry = (env_state, obs, obs, jnp.zeros(len(skill), bool))
    (*_, last, _), places = jax.lax.scan(one_step, carry, jnp.arange(HORIZON))
    places = jnp.concatenate([obs[None], places]).reshape(HORIZON + 1, skills, episodes, 2)
    guessed = discriminate(state, last, skills).reshape(skills, episodes)
    return jnp.moveaxis(places, 0, 2), guessed


def tabulate(numbers: dict[str, np.ndarray], steps: int, skills: int) -> Table:
    seeds = len(numbers["final_accuracy"])
    table = Table(title=f"DIAYN, {skills} skills in the plane, {seeds:,} seeds: IQM (95 % interval)")
    for name in ("of", "accuracy", "chance", "reward"):
        table.add_column(name, justify="left" if name == "of" else "right")
    chance = f"{1 / skills:.3g}"
    for i in (0, SMOOTHED // 4, SMOOTHED // 2, SMOOTHED - 1):
        low, high = ends(steps)[i : i + 2]
        accuracy, reward = (final_cell(numbers[name][:, i]) for name in METRICS)
        table.add_row(f"{low:,.0f} to {high:,.0f}", accuracy, chance, reward)
    table.add_row("ends, greedy", final_cell(numbers["final_accuracy"]), chance, "")
    return table


def draw(numbers: dict[str, np.ndarray], steps: int, skills: int) -> Figure:
    """Accuracy on the left, and a panel for each seed that is shown."""
    accuracy, shown = numbers["accuracy"], numbers["ways"]
    figure = Figure(figsize=(4.6 + 3.4 * len(shown), 3.8), dpi=DPI, layout="constrained")
    title = f"DIAYN, {skills} skills in the plane, {len(accuracy):,} seeds: IQM and 95 % interval"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    curve, *panels = figure.subplots(1, 1 + len(shown), width_ratios=[1.35, *[1] * len(shown)])
    style(curve)
    middles = (ends(steps)[1:] + ends(steps)[:-1]) / 2
    band = interquartile_mean(accuracy, axis=0), *bootstrap_interval(accuracy)
    draw_band(curve, middles, *band, "the discriminator", PALETTE[0])
    curve.axhline(1 / skills, color=GREY, lw=1, ls="--", zorder=1, label="chance")
    curve.set(xlabel="environment steps", ylabel="skills told by one state", ylim=(0, 1))
    curve.xaxis.set_major_formatter(EngFormatter(sep=""))
    curve.yaxis.set_major_formatter(PercentFormatter(1, 0))
    curve.margins(x=0.01)
    curve.legend(frameon=False, fontsize=10, loc="center right")
    limit = np.abs(shown).max() * 1.05
    for i, (axes, positions) in enumerate(zip(panels, shown, strict=True)):
        draw_ways(axes, positions, limit)
        axes.set_title(f"seed {i}: greedy episodes by skill", fontsize=11)
    return figure


def draw_ways(axes: Axes, positions: np.ndarray, limit: float):
    """The ways of one seed's skills, `[skills, episodes, HORIZON + 1, 2]`, each with a dot at its end."""
    for skill, episodes in enumerate(positions):
        color = PALETTE[skill % len(PALETTE)]
        for way in episodes:
            axes.plot(*way.T, color=color, lw=1, alpha=0.7)
            axes.plot(*way[-1], marker="o", ms=3.5, color=color)
    axes.add_patch(Rectangle((-1, -1), 2, 2, fill=False, ls="--", lw=1, ec=GREY))  # where episodes begin
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
