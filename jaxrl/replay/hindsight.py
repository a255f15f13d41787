"""Hindsight experience replay (Andrychowicz et al. 2017): a goal that was reached teaches like the one wanted."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import recorded
from jaxrl.replay import ring as rings
from jaxrl.replay.types import Read
from jaxrl.types import Array, Goal, Key, Transition

STRATEGIES = ("future", "final", "episode")


@recorded
def hindsight(*, strategy: str = "future", probability: float = 0.8) -> Read:
    """A way of reading a replay that puts, in part of what was drawn, a goal in place that the same episode reached.

    Observations, rewards and terminations become what they would have been with that goal (sections 3.2 and 4.5). The
    environment says how: `Spec.goal`.

    Args:
      strategy: which goal: one reached later in the episode (or by the very step), `future`; the one reached when it
        ended, `final`; one reached at any time in it, `episode`. The newest step counts as an end.
      probability: how often a goal is replaced, in [0, 1]; k replaced for each original is k / (k + 1).

    Returns:
      what `uniform`, `prioritized` and `ranked` take as `read`.

    Raises:
      JaxrlError: if an argument is out of its range; when it reads, if the environment has no goal or no time limit.

    Example:
      >>> from jaxrl.replay import uniform
      >>> replay = uniform(capacity=1000, batch_size=32, read=hindsight(strategy="final"))
    """
    checks.one_of("hindsight", STRATEGIES, strategy=strategy)
    checks.number("hindsight", 0, 1, probability=probability)

    def read(ring: rings.Ring, key: Key, slots: Array, step: Array, length: int) -> tuple[Transition, Array]:
        layout, goal = ring.layout, ring.layout.spec.goal
        if goal is None or layout.spec.max_steps is None:
            raise checks.JaxrlError(
                f"hindsight: {layout.spec.id} has no goal that could be replaced, or no time limit; environments that "
                "have both are jaxrl/BitFlip-v0, jaxrl/PointReach-v0 and jaxrl/ArmReach-v0"
            )
        whether_key, which_key = jax.random.split(key)
        first, last = _episode(ring, slots, step)
        if strategy == "future":
            first = jnp.zeros_like(first)
        elif strategy == "final":
            first = last
        ahead = jax.random.randint(which_key, slots.shape, first, last + 1)
        source = rings.later(layout, slots, ahead)
        source_obs = rings.next_obs(ring, source, rings.gather(ring.rest.truncated, source), step)
        steps, valid = rings.window(ring, key, slots, step, length)
        relabelled, still = relabel(goal, steps, goal.achieved(source_obs))
        replace = jax.random.uniform(whether_key, slots.shape) < probability

        def either(new: Array, old: Array) -> Array:
            return jnp.where(replace.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(either, relabelled, steps), either(valid & still, valid)

    return read


def relabel(goal: Goal, steps: Transition, wanted: Array) -> tuple[Transition, Array]:
    """What stretches of experience would have been, had another goal been wanted.

    Args:
      goal: the environment's functions.
      steps: leaves `[B, L, ...]`.
      wanted: goals, `[B, ...]`.

    Returns:
      the steps with other observations, rewards and ends; and, bool `[B, L]`, which of them come before the new goal
      is reached or reach it.
    """
    length = steps.reward.shape[1]
    wanted = jnp.broadcast_to(wanted[:, None], (wanted.shape[0], length, *wanted.shape[1:]))
    reward, terminated = goal.reward(goal.achieved(steps.next_obs), wanted)
    steps = steps._replace(
        obs=goal.replace(steps.obs, wanted),
        next_obs=goal.replace(steps.next_obs, wanted),
        reward=reward,
        terminated=terminated,
        truncated=(steps.truncated | steps.terminated) & ~terminated,
    )
    reached_before = jnp.cumsum(terminated, axis=1) - terminated
    return steps, reached_before == 0


def _episode(ring: rings.Ring, slots: Array, step: Array) -> tuple[Array, Array]:
    """Where the episodes of some steps begin and end, in steps from them: int32 `[B]`, at most 0, and at least 0."""
    layout = ring.layout
    longest: Any = layout.spec.max_steps  # which an environment has in which goals are replaced
    ahead = jnp.arange(longest)

    def ends(offsets: Array) -> tuple[Array, Array]:
        around = rings.later(layout, slots[:, None], offsets)  # [B, max_steps]
        return rings.gather((ring.rest.terminated, ring.rest.truncated), around)

    last = rings.last_valid(layout, *ends(ahead), slots, step)
    terminated, truncated = ends(-1 - ahead)
    before = terminated | truncated
    steps_back = jnp.where(before.any(axis=1), jnp.argmax(before, axis=1), longest - 1)
    oldest = jnp.minimum(step // layout.num_envs, layout.rows) - 1
    return -jnp.minimum(steps_back, oldest - rings.ages(layout, slots, step)), last
