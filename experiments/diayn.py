"""Skills without a reward: DIAYN in the plane, from places drawn at random (Eysenbach et al. 2019, section 4).

A point that moves 0.1 along each axis in a step sees where it is, and so does the discriminator. A skill can be told by
the places it leads to, so the skills part and go different ways. On the left how often the discriminator's best guess
is right, in replayed steps: those of old policies too, and the first ones of episodes, which tell little. On the right
greedy episodes, a colour for each skill; every seed finds other ways.

Over 16 seeds it tells the skill from 86 % of the replayed steps at last, where chance is one in eight, and from all the
states that greedy episodes end in. A skill need not be one way: some lead to several places, none of them another's.

    python experiments/diayn.py
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from common import FIGURES, on_all_cores, show, train_seeds
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import GREY, PALETTE, draw_band, new_figure
from jaxrl.analysis.statistics import iqm_interval
from jaxrl.networks import MLP, Policy, PolicyHead
from jaxrl.types import Agent, Array, Discrete, Env, PyTree

HORIZON = 25  # steps of an episode
HIDDEN = (64, 64)
WARMUP = 1_000  # environment steps before the first gradient step
NUM_ENVS = 8
SMOOTHED = 20  # points of the curve
METRICS = ("accuracy", "skill_reward")


def main(
    seeds: int = 16, steps: int = 40_000, skills: int = 8, shown: int = 3, episodes: int = 6,
    out: pathlib.Path = FIGURES / "diayn.png",
) -> dict[str, np.ndarray]:  # fmt: skip
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
    env, shown = jaxrl.make("jaxrl/Point-v0", max_steps=HORIZON), min(shown, seeds)
    agent = jaxrl.diayn(
        num_skills=skills, gamma=0.95, hidden_sizes=HIDDEN, batch_size=64, num_envs=NUM_ENVS, replay_ratio=0.5,
        warmup_steps=WARMUP, replay_size=20_000, actor_learning_rate=1e-3, critic_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
    )  # fmt: skip
    states, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=METRICS)
    found = jax.vmap(lambda state: ways(agent, env, state, skills, episodes))(states)
    positions, guesses = jax.device_get(found)
    learnt = {name: metrics[name][:, WARMUP // NUM_ENVS :] for name in METRICS}
    whole = learnt["accuracy"].shape[1] // SMOOTHED * SMOOTHED
    numbers = {name: x[:, :whole].reshape(seeds, SMOOTHED, -1).mean(-1) for name, x in learnt.items()}
    numbers["final_accuracy"] = np.mean(guesses == np.arange(skills)[:, None], axis=(1, 2))
    numbers["ways"] = positions[:shown]

    chance, ends = f"{1 / skills:.3g}", np.linspace(WARMUP, steps, 1 + SMOOTHED)  # the stretches begin and end there
    rows = [
        (f"{ends[i]:,.0f} to {ends[i + 1]:,.0f}", numbers["accuracy"][:, i], chance, numbers["skill_reward"][:, i])
        for i in (0, SMOOTHED // 4, SMOOTHED // 2, SMOOTHED - 1)
    ]
    rows.append(("ends, greedy", numbers["final_accuracy"], chance, ""))
    titles = [f"seed {i}: greedy episodes by skill" for i in range(shown)]
    figure, (curve, *panels) = new_figure(
        f"DIAYN, {skills} skills in the plane, {seeds:,} seeds: IQM and 95 % interval", ["", *titles],
        size=(4.6 + 3.4 * shown, 3.8), width_ratios=[1.35, *[1] * shown],
    )  # fmt: skip
    draw_band(curve, (ends[1:] + ends[:-1]) / 2, *iqm_interval(numbers["accuracy"]), "the discriminator")
    curve.axhline(1 / skills, color=GREY, lw=1, ls="--", zorder=1, label="chance")
    curve.set(ylabel="skills told by one state", ylim=(0, 1))
    curve.yaxis.set_major_formatter(PercentFormatter(1, 0))
    curve.legend(frameon=False, fontsize=10, loc="center right")
    limit = np.abs(numbers["ways"]).max() * 1.05
    for axes, of_skills in zip(panels, numbers["ways"], strict=True):
        for skill_ways, color in zip(of_skills, PALETTE * skills, strict=False):
            for way in skill_ways:
                axes.plot(*way.T, color=color, lw=1, alpha=0.7)
                axes.plot(*way[-1], marker="o", ms=3.5, color=color)
        axes.spines[:].set(visible=True, color="black")
        axes.add_patch(Rectangle((-1, -1), 2, 2, fill=False, ls="--", lw=1, ec=GREY))  # where episodes begin
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], xlabel="", aspect="equal")
    title = f"DIAYN, {skills} skills in the plane, {seeds:,} seeds: IQM (95 % interval)"
    show(table(title, ("of", "accuracy", "chance", "reward"), rows), figure, out)
    return numbers


def ways(agent: Agent, env: Env, state: PyTree, skills: int, episodes: int) -> tuple[Array, Array]:
    """Greedy episodes of every skill, from the same places.

    Returns:
      positions, `[skills, episodes, HORIZON + 1, 2]`, an episode that ended staying where it did; and which skill the
      discriminator takes the last of them for, `[skills, episodes]`.
    """
    reset_key, run_key = jax.random.split(jax.random.key(1))
    env_state, obs = jax.tree.map(
        lambda x: jnp.tile(x, (skills, *(1,) * (x.ndim - 1))),  # [episodes, ...] -> [skills * episodes, ...]
        jax.vmap(env.reset)(jax.random.split(reset_key, episodes)),
    )
    skill = jnp.repeat(jnp.arange(skills), episodes)

    def one_step(carry, t):
        env_state, obs, ended = carry
        keys = jax.random.split(jax.random.fold_in(run_key, t), 1 + len(skill))
        action, _, _ = agent.act(state, skill, obs, keys[0], 0, explore=False)
        env_state, outcome = jax.vmap(env.step)(keys[1:], env_state, action)
        obs = jnp.where(ended[:, None], obs, outcome.obs)
        return (env_state, obs, ended | outcome.terminated | outcome.truncated), obs

    (_, last, _), later = jax.lax.scan(one_step, (env_state, obs, jnp.zeros(len(skill), bool)), jnp.arange(HORIZON))
    places = jnp.concatenate([obs[None], later]).reshape(HORIZON + 1, skills, episodes, 2)
    discriminator = Policy(MLP(HIDDEN, "relu"), PolicyHead(Discrete(skills)))
    guessed = discriminator.apply(state.params.discriminator, last).mode().reshape(skills, episodes)
    return jnp.moveaxis(places, 0, 2), guessed


if __name__ == "__main__":
    on_all_cores(main)
