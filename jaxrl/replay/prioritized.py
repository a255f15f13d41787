"""Prioritized experience replay (Schaul et al. 2016): what surprised more is drawn more often.

Both ways keep what decides a slot's probability in a sum tree, and correct for it with importance weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl import checks
from jaxrl.constructors import recorded
from jaxrl.replay import ring, sum_tree
from jaxrl.replay.types import NO_SLOT, Read, Replay, Sample
from jaxrl.replay.uniform import check_sizes
from jaxrl.types import Array, Key, Spec, Transition

UNSEEN = float(np.finfo(np.float32).max)  # an error above all others, and finite, as all of a sound state is
NOTHING = -1.0  # in place of the error of a slot that is not drawn


class PrioritizedState(NamedTuple):
    """The transitions; their priorities; and the highest priority that any has had so far, float32 `()`."""

    ring: ring.Ring
    tree: sum_tree.Tree
    highest: Array


class RankedState(NamedTuple):
    """The transitions; their priorities; the error of each slot; and all of these sorted, as they were a while ago.

    Attributes:
      ring: the transitions.
      tree: the priorities.
      errors: float32 `[capacity]`, |td| as last seen; `UNSEEN` where it has not been yet, `NOTHING` where nothing
        is, or what is void.
      sorted_errors: float32 `[capacity]`, `errors` in ascending order, as they were when they were last sorted.
    """

    ring: ring.Ring
    tree: sum_tree.Tree
    errors: Array
    sorted_errors: Array


State = TypeVar("State", PrioritizedState, RankedState)


@recorded
def prioritized(
    *,
    capacity: int,
    batch_size: int,
    alpha: float = 0.6,
    beta: float = 0.4,
    beta_steps: int = 100_000,
    epsilon: float = 1e-3,
    read: Read = ring.window,
) -> Replay:
    """Proportional prioritization: P(i) = p_i^alpha / sum_k p_k^alpha with p_i = |td_i| + epsilon (equation 1).

    A new transition gets the highest priority so far. Importance weights are (capacity in use * P(i))^-beta, over the
    largest of the batch (section 3.4).

    Args:
      capacity: how many transitions it holds, of all environments together; the oldest are overwritten.
      batch_size: `B`, how many are drawn at once, one from each of as many equal parts of the priorities' sum.
      alpha: how much priorities count, in [0, 1]; with 0 sampling is uniform.
      beta: how much of the bias the weights take away at the first step, in [0, 1].
      beta_steps: environment steps over which beta rises linearly to 1.
      epsilon: added to every error, > 0, so that none is never drawn again.
      read: how what was drawn is read: as it is, or with `hindsight(...)`.

    Returns:
      a `Replay`. An error that is not finite counts as a priority of 0, and so cannot reach the sums.

    Raises:
      JaxrlError: if an argument is out of its range; at `init`, if the capacity is not a multiple of what is added at
        once.
    """
    owner = "prioritized replay"
    sample = _make_sample(owner, capacity, batch_size, alpha, beta, beta_steps, read)
    checks.number(owner, 0, open_low=True, epsilon=epsilon)

    def init(trajectory: Transition, spec: Spec) -> PrioritizedState:
        return PrioritizedState(ring.init(owner, capacity, trajectory, spec), sum_tree.init(capacity), jnp.float32(1.0))

    def add(state: PrioritizedState, trajectory: Transition, step: Array) -> PrioritizedState:
        new = jnp.broadcast_to(state.highest, (trajectory.reward.size,))
        tree = sum_tree.write(state.tree, step % capacity, new)
        return PrioritizedState(ring.write(state.ring, trajectory, step), tree, state.highest)

    def update(state: PrioritizedState, indices: Array, td_errors: Array) -> PrioritizedState:
        slots = _known(indices, capacity)
        priorities = jnp.where(jnp.isfinite(td_errors), (jnp.abs(td_errors) + epsilon) ** alpha, 0.0)
        highest = jnp.max(priorities, where=slots != NO_SLOT, initial=0.0)
        tree = sum_tree.update(state.tree, slots, priorities)
        return PrioritizedState(state.ring, tree, jnp.maximum(state.highest, highest))

    def interrupt(state: PrioritizedState, step: Array) -> PrioritizedState:
        return _interrupt(state, step)[0]

    return Replay(init, add, sample, update, interrupt, capacity, batch_size)


@recorded
def ranked(
    *,
    capacity: int,
    batch_size: int,
    alpha: float = 0.7,
    beta: float = 0.5,
    beta_steps: int = 100_000,
    sort_every: int = 1_000,
    read: Read = ring.window,
) -> Replay:
    """Rank-based prioritization: P(i) ~ 1 / rank(i)^alpha, rank 1 the largest |td| (section 3.3).

    All errors are sorted now and then; in between, an error that has just been seen takes the rank that it would have
    had then. A new transition has rank 1.

    Args:
      capacity: see `prioritized`.
      batch_size: see `prioritized`.
      alpha: how much the rank counts, in [0, 1]; with 0 sampling is uniform.
      beta: see `prioritized`.
      beta_steps: see `prioritized`.
      sort_every: environment steps between two sortings of all errors; a multiple of what is added at once is exact.
      read: see `prioritized`.

    Returns:
      a `Replay`. An error that is not finite counts as the smallest.

    Raises:
      JaxrlError: as `prioritized`.
    """
    owner = "rank-based replay"
    sample = _make_sample(owner, capacity, batch_size, alpha, beta, beta_steps, read)
    checks.integer(owner, sort_every=sort_every)

    def priority(rank: Array) -> Array:
        return rank.astype(jnp.float32) ** -jnp.asarray(alpha, jnp.float32)

    def init(trajectory: Transition, spec: Spec) -> RankedState:
        nothing = jnp.full(capacity, NOTHING)
        return RankedState(
            ring.init(owner, capacity, trajectory, spec), sum_tree.init(capacity), nothing, jnp.copy(nothing)
        )

    def add(state: RankedState, trajectory: Transition, step: Array) -> RankedState:
        added, start = trajectory.reward.size, step % capacity
        errors = jax.lax.dynamic_update_slice(state.errors, jnp.full(added, UNSEEN), (start,))
        tree = sum_tree.write(state.tree, start, jnp.ones(added))

        def sort(errors: Array) -> tuple[sum_tree.Tree, Array]:
            order = jnp.argsort(-errors)
            ranks = jnp.zeros(capacity, jnp.int32).at[order].set(jnp.arange(1, capacity + 1), unique_indices=True)
            ranks = jnp.where(errors == UNSEEN, 1, ranks)
            return sum_tree.from_priorities(jnp.where(errors >= 0, priority(ranks), 0.0)), errors[order[::-1]]

        due = (step + added) // sort_every != step // sort_every
        tree, ordered = jax.lax.cond(due, sort, lambda _: (tree, state.sorted_errors), errors)
        return RankedState(ring.write(state.ring, trajectory, step), tree, errors, ordered)

    def update(state: RankedState, indices: Array, td_errors: Array) -> RankedState:
        slots = _known(indices, capacity)
        seen = jnp.where(jnp.isfinite(td_errors), jnp.abs(td_errors), 0.0)
        larger = capacity - jnp.searchsorted(state.sorted_errors, seen, side="right")
        return RankedState(
            state.ring,
            sum_tree.update(state.tree, slots, priority(1 + larger)),
            state.errors.at[slots].set(seen, mode="drop"),
            state.sorted_errors,
        )

    def interrupt(state: RankedState, step: Array) -> RankedState:
        state, slots = _interrupt(state, step)
        return state._replace(errors=state.errors.at[slots].set(NOTHING, mode="drop"))

    return Replay(init, add, sample, update, interrupt, capacity, batch_size)


def importance_weights(probabilities: Array, size: Array, beta: Array | float) -> Array:
    """w_i = (size * P(i))^-beta / max_j w_j, over a batch `[B]` (Schaul et al. 2016, section 3.4).

    The size cancels against the maximum, and is there for what the numbers mean. A probability of 0, which only an
    empty tree gives, has weight 1.
    """
    relative = jnp.where(probabilities > 0, size * probabilities, jnp.inf)
    least = relative.min()
    return jnp.where(jnp.isfinite(relative), (relative / jnp.where(jnp.isfinite(least), least, 1.0)) ** -beta, 1.0)


def _known(indices: Array, capacity: int) -> Array:
    """The slots among some indices, and `NO_SLOT` for the others: a tree has a few more leaves than there are slots."""
    return jnp.where((indices >= 0) & (indices < capacity), indices, NO_SLOT)


def _interrupt(state: State, step: Array) -> tuple[State, Array]:
    """The state whose newest steps are void, and their slots, `NO_SLOT` in place of those that ended an episode."""
    cut, slots = ring.interrupt(state.ring, step), ring.newest(state.ring.layout, step)
    void = (cut.rest.terminated & cut.rest.truncated).at[slots].get(mode="fill", fill_value=False)
    slots = jnp.where(void, slots, NO_SLOT)
    return state._replace(ring=cut, tree=sum_tree.update(state.tree, slots, jnp.zeros(slots.shape))), slots


def _make_sample(
    owner: str,
    capacity: int,
    batch_size: int,
    alpha: Array | float,
    beta: Array | float,
    beta_steps: int,
    read: Read,
) -> Callable[..., Sample]:
    """Checks the arguments that both ways have, and returns the `sample` that both have."""
    check_sizes(owner, capacity, batch_size)
    checks.number(owner, 0, 1, alpha=alpha, beta=beta)
    checks.integer(owner, beta_steps=beta_steps)
    beta_at = optax.linear_schedule(beta, 1.0, beta_steps)

    def sample(state: PrioritizedState | RankedState, key: Key, step: Array, length: int = 1) -> Sample:
        beta_now, (draw_key, read_key) = jnp.asarray(beta_at(step)), jax.random.split(key)
        indices, probabilities = sum_tree.sample(state.tree, draw_key, batch_size)
        steps, valid = read(state.ring, read_key, indices, step, length)
        weights = importance_weights(probabilities, jnp.minimum(step, capacity), beta_now)
        return Sample(steps, valid, indices, weights)

    return sample
