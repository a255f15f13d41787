"""The ring that every replay keeps its transitions in: each observation once, and written in slices.

A slot holds one step of one environment, and the slots of `N` environments lie side by side, so that the next step of
the same environment is `N` slots further on. There the next observation is read. It is kept apart in two cases: for
the newest step, whose neighbour is not written yet; and where an episode was truncated, for there the neighbour belongs
to the next episode. (Only hindsight asks for what followed a terminal step; elsewhere what is read there is of no
meaning.)

From one truncated step to the next there are `Spec.truncation_gap` steps at least: with a time limit, as many as it
says. So one place for every block of that many rows is enough, and where it is follows from the time, so that this
write is a slice, too.

Where episodes are cut off at any other time, as on the host when a run resumes from a checkpoint, that place may be
taken. So the newest step is then made void, which is marked by what no other step has: it terminated, and it was
truncated. Its observation stays, as the successor of the step before it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.replay.types import NO_SLOT
from jaxrl.types import Array, Key, PyTree, Spec, Transition


@jax.tree_util.register_static
class Layout(NamedTuple):
    """The static facts of a ring.

    Attributes:
      spec: of the environment that the transitions come from.
      rows: how many steps of each environment it holds.
      num_envs: `N`.
      length: `T`, the rows that are added at once.
      block: rows that share a place for an observation that is kept apart; with 1, each has its own.
      num_blocks: how many such places there are, besides that for the newest row.
    """

    spec: Spec
    rows: int
    num_envs: int
    length: int
    block: int
    num_blocks: int


class Ring(NamedTuple):
    """The stored transitions.

    Attributes:
      layout: static.
      obs: leaves `[rows * N, ...]`.
      apart: next observations, leaves `[(num_blocks + 1) * N, ...]`, the last `N` those of the newest row.
      rest: what else there is of a transition, leaves `[rows * N, ...]`; its observations are `()`.
    """

    layout: Layout
    obs: PyTree
    apart: PyTree
    rest: Transition


def init(owner: str, capacity: int, trajectory: Transition, spec: Spec) -> Ring:
    """An empty ring for trajectories of this shape.

    Args:
      owner: the replay, for the error's text.
      capacity: how many transitions it holds.
      trajectory: an example, leaves `[T, N, ...]`.
      spec: the environment's.

    Raises:
      JaxrlError: if the capacity is not a multiple of what is added at once.
    """
    length, num_envs = trajectory.reward.shape
    if capacity % (length * num_envs):
        raise checks.JaxrlError(
            f"{owner}: capacity={capacity} is not accepted; it must be a multiple of the "
            f"{length * num_envs} transitions that are added at once"
        )
    rows, block = capacity // num_envs, 1
    if spec.goal is None:  # one may be reached at any step, and hindsight asks for what was seen there
        block = _block(length, int(min(spec.truncation_gap, rows)))
    # With blocks longer than a write, the first and the last of the blocks that the rows lie in may be there in part.
    num_blocks = rows // block if block <= length else (rows + block - 2) // block + 1
    layout = Layout(spec, rows, num_envs, length, block, num_blocks)

    def empty(example: PyTree, count: int) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((count * num_envs, *x.shape[2:]), x.dtype), example)

    rest = trajectory._replace(obs=(), next_obs=())
    return Ring(layout, empty(trajectory.obs, rows), empty(trajectory.obs, num_blocks + 1), empty(rest, rows))


def _block(length: int, most: int) -> int:
    """The most rows, at most `most`, that are a whole number of writes, or of which a write is a whole number."""
    if most >= length:
        return most // length * length
    return max(n for n in range(1, most + 1) if length % n == 0)


def write(ring: Ring, trajectory: Transition, step: Array) -> Ring:
    """The ring with a trajectory `[T, N, ...]` in place of its oldest rows; `step` as in `Replay.add`."""
    layout = ring.layout
    row = step // layout.num_envs
    at = row % layout.rows

    def put(old: PyTree, new: PyTree, first_row: Array | int) -> PyTree:
        start = first_row * layout.num_envs
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), new)  # [rows, N, ...] -> [rows * N, ...]
        return jax.tree.map(lambda o, n: jax.lax.dynamic_update_slice_in_dim(o, n, start, axis=0), old, flat)

    block_row = row // layout.block % layout.num_blocks
    apart = ring.apart
    if layout.block <= layout.length:
        kept = _truncated_rows(trajectory, layout.block)[0]
    else:
        truncated_obs, found = _truncated_rows(trajectory, layout.length)
        start = block_row * layout.num_envs

        def keep(old: Array, new: Array) -> Array:
            before = jax.lax.dynamic_slice_in_dim(old, start, layout.num_envs)[None]
            return jnp.where(found.reshape(found.shape + (1,) * (new.ndim - 2)), new, before)

        kept = jax.tree.map(keep, apart, truncated_obs)
    apart = put(apart, kept, block_row)
    apart = put(apart, jax.tree.map(lambda x: x[-1:], trajectory.next_obs), layout.num_blocks)
    rest = put(ring.rest, trajectory._replace(obs=(), next_obs=()), at)
    return Ring(layout, put(ring.obs, trajectory.obs, at), apart, rest)


def newest(layout: Layout, step: Array) -> Array:
    """The slots of the newest row, int32 `[N]`; `NO_SLOT` before there is one."""
    row = step // layout.num_envs - 1
    slots = row % layout.rows * layout.num_envs + jnp.arange(layout.num_envs)
    return jnp.where(row >= 0, slots, NO_SLOT)


def interrupt(ring: Ring, step: Array) -> Ring:
    """The ring whose newest steps are void, but for those that ended an episode anyway.

    `step` is as in `Replay.sample`; before the first one nothing changes, and twice is as once.
    """
    rest, slots = ring.rest, newest(ring.layout, step)
    cut = ~(rest.terminated | rest.truncated).at[slots].get(mode="fill", fill_value=True)
    slots = jnp.where(cut, slots, NO_SLOT)
    terminated, truncated = (x.at[slots].set(True, mode="drop") for x in (rest.terminated, rest.truncated))
    return ring._replace(rest=rest._replace(terminated=terminated, truncated=truncated))


def _truncated_rows(trajectory: Transition, block: int) -> tuple[PyTree, Array]:
    """The next observation of the truncated step of each block, `[T / block, N, ...]`; and where there is one."""
    blocks = trajectory.truncated.reshape(-1, block, *trajectory.truncated.shape[1:])  # [T, N] -> [T / block, block, N]
    which = jnp.argmax(blocks, axis=1)

    def pick(obs: Array) -> Array:
        if block == 1:
            return obs
        split = obs.reshape(-1, block, *obs.shape[1:])
        index = which.reshape(which.shape[0], 1, which.shape[1], *(1,) * (obs.ndim - 2))
        return jnp.take_along_axis(split, index, axis=1)[:, 0]

    return jax.tree.map(pick, trajectory.next_obs), blocks.any(axis=1)


def ages(layout: Layout, slots: Array, step: Array) -> Array:
    """How many rows ago each slot was written, int32; 0 for those of the newest row."""
    newest = step // layout.num_envs - 1
    return (newest - slots // layout.num_envs) % layout.rows


def later(layout: Layout, slots: Array, rows: Array | int) -> Array:
    """The slots of the same environments some rows further on (or back, if negative)."""
    row, env = slots // layout.num_envs, slots % layout.num_envs
    return (row + rows) % layout.rows * layout.num_envs + env


def gather(tree: PyTree, slots: Array) -> PyTree:
    """Rows of arrays: leaves `[*slots.shape, ...]`."""
    return jax.tree.map(lambda x: x.at[slots].get(mode="promise_in_bounds"), tree)


def next_obs(ring: Ring, slots: Array, truncated: Array, step: Array) -> PyTree:
    """The true successors of the steps in some slots; `truncated` says of each whether it was."""
    layout = ring.layout
    env, age = slots % layout.num_envs, ages(layout, slots, step)
    block = (step // layout.num_envs - 1 - age) // layout.block % layout.num_blocks
    newest = age == 0
    from_apart = gather(ring.apart, jnp.where(newest, layout.num_blocks, block) * layout.num_envs + env)
    if layout.block == 1:
        return from_apart
    apart = truncated | newest
    neighbours = gather(ring.obs, later(layout, slots, 1))
    return jax.tree.map(
        lambda a, b: jnp.where(apart.reshape(apart.shape + (1,) * (a.ndim - apart.ndim)), a, b), from_apart, neighbours
    )


def window(ring: Ring, key: Key, slots: Array, step: Array, length: int) -> tuple[Transition, Array]:
    """The steps in some slots and those that follow them.

    Args:
      ring: from which.
      key: not used; another way of reading may draw.
      slots: int32 `[B]`, of steps that have been written.
      step: environment steps so far.
      length: `L`, how many steps each.

    Returns:
      transitions, leaves `[B, L, ...]`, and which of them are valid; see `Sample`.
    """
    layout = ring.layout
    ahead = jnp.arange(length)
    all_slots = later(layout, slots[:, None], ahead)  # [B, L]
    rest = gather(ring.rest, all_slots)
    steps = rest._replace(obs=gather(ring.obs, all_slots), next_obs=next_obs(ring, all_slots, rest.truncated, step))
    valid = ahead <= last_valid(layout, rest.terminated, rest.truncated, slots, step)[:, None]
    return steps, valid & ~(rest.terminated & rest.truncated)[:, :1]


def last_valid(layout: Layout, terminated: Array, truncated: Array, slots: Array, step: Array) -> Array:
    """How many steps after each slot's the same episode has yet, int32 `[B]`, at least 0 and at most `L - 1`.

    Args:
      layout: the ring's.
      terminated: bool `[B, L]`, of the step in each slot and those that follow it.
      truncated: the same.
      slots: `[B]`.
      step: environment steps so far.
    """
    ended, length = terminated | truncated, terminated.shape[1]
    # An episode ends with the step that ended it, and before one that is void.
    ends = ended | jnp.roll(terminated & truncated, -1, axis=1).at[:, -1].set(False)
    first_end = jnp.where(ends.any(axis=1), jnp.argmax(ends, axis=1), length - 1)
    return jnp.minimum(first_end, ages(layout, slots, step)).astype(jnp.int32)
