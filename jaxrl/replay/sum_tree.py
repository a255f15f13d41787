"""A sum tree: priorities at its leaves, and sampling in proportion to them in a time that grows as the logarithm.

Schaul et al. (2016), appendix B.2.1. Each node has `FANOUT` children, so that a level is a few rows of memory apart and
not one bit; a level is an array `[rows, FANOUT]`, the leaves last. Parents are sums of their children, recomputed and
never moved by differences, so rounding does not pile up and duplicate indices are harmless.

    tree = init(4)
    tree = update(tree, jnp.array([0, 2]), jnp.array([1.0, 3.0]))
    indices, probabilities = sample(tree, key, batch_size=32)  # 0 and 2, a quarter and three quarters
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.replay.types import NO_SLOT
from jaxrl.types import Array, Key

FANOUT = 8

Tree = tuple[Array, ...]


def init(capacity: int) -> Tree:
    """A tree whose `capacity` leaves have priority 0; float32 levels `[rows, FANOUT]`, the first of one row.

    Raises:
      JaxrlError: if the capacity is not a positive whole number.
    """
    checks.integer("sum_tree", capacity=capacity)
    rows = [-(-capacity // FANOUT)]
    while rows[-1] > 1:
        rows.append(-(-rows[-1] // FANOUT))
    return tuple(jnp.zeros((n, FANOUT), jnp.float32) for n in reversed(rows))


def from_priorities(priorities: Array) -> Tree:
    """The tree with these priorities, `[capacity]`; see `update`."""
    tree = init(priorities.shape[0])
    return write(tree, 0, priorities)


def update(tree: Tree, indices: Array, priorities: Array) -> Tree:
    """The tree with new priorities at some leaves.

    Args:
      tree: from `init`.
      indices: int `[B]`, which leaves; where one stands several times, one of its priorities is taken, and an index
        that the tree has no place for, such as `NO_SLOT`, is left out.
      priorities: `[B]`, at least 0. Under a trace, where nothing can be raised, what is negative or not finite counts
        as 0, so that it cannot reach the sums.

    Returns:
      a tree of the same shape.

    Raises:
      JaxrlError: if a priority is negative or not finite, and not under a trace.
    """
    values = _accepted(priorities)
    indices = jnp.where((indices >= 0) & (indices < tree[-1].size), indices, NO_SLOT)  # beyond every level of a tree
    levels = []
    for level in reversed(tree):
        rows = indices // FANOUT
        level = level.at[rows, indices % FANOUT].set(values, mode="drop")
        levels.append(level)
        indices, values = rows, _sum(level.at[rows].get(mode="clip"))
    return tuple(reversed(levels))


def write(tree: Tree, start: Array | int, priorities: Array) -> Tree:
    """As `update`, for the leaves `start .. start + K - 1`: everything is read and written in slices."""
    values = _accepted(priorities)
    levels = []
    for level in reversed(tree):
        count = min((len(values) + FANOUT - 2) // FANOUT + 1, len(level))  # rows that these nodes may lie in
        first = jnp.minimum(start // FANOUT, len(level) - count)
        rows = jax.lax.dynamic_slice_in_dim(level, first, count).reshape(-1)
        rows = jax.lax.dynamic_update_slice_in_dim(rows, values, start - first * FANOUT, axis=0).reshape(-1, FANOUT)
        levels.append(jax.lax.dynamic_update_slice_in_dim(level, rows, first, axis=0))
        start, values = first, _sum(rows)
    return tuple(reversed(levels))


def _accepted(priorities: Array) -> Array:
    checks.number("sum_tree", 0, priorities=priorities)
    return jnp.where(jnp.isfinite(priorities) & (priorities > 0), priorities, 0.0).astype(jnp.float32)


def total(tree: Tree) -> Array:
    """The sum of all priorities, float32 `()`."""
    return _sum(tree[0][0])


def sample(tree: Tree, key: Key, batch_size: int) -> tuple[Array, Array]:
    """Draws leaves in proportion to their priorities, one from each of `batch_size` equal parts of their sum.

    Args:
      tree: one in which some priority is above 0; of an empty one the first leaf is drawn, with probability 0.
      key: for the draws.
      batch_size: `B`, how many.

    Returns:
      indices, int32 `[B]`, in ascending order, never of a leaf with priority 0; and the probabilities, float32 `[B]`,
      that a single draw finds each.
    """
    everything = total(tree)
    part = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
    indices, priorities = find(tree, part * everything)
    return indices, priorities / jnp.where(everything > 0, everything, 1.0)


def find(tree: Tree, at: Array) -> tuple[Array, Array]:
    """The leaves that the cumulative sum of the priorities is in, at some of its values.

    Args:
      tree: see `sample`.
      at: float32 `[B]`, in [0, total]; whatever rounding did to them, a leaf with a priority is found.

    Returns:
      indices, int32 `[B]`, and their priorities, float32 `[B]`; 0 and 0 in an empty tree.
    """
    rest, indices, priority = jnp.maximum(at, 0.0), jnp.zeros(at.shape, jnp.int32), jnp.zeros(at.shape)
    for level in tree:
        children = level.at[indices].get(mode="promise_in_bounds")  # [B, FANOUT]
        chosen, start, end = jnp.zeros_like(indices), jnp.zeros_like(rest), jnp.zeros_like(rest)
        priority = jnp.zeros_like(rest)
        for i in range(FANOUT):  # the last child that has a priority and does not begin beyond what is sought
            child = children[:, i]
            here = (child > 0) & (end <= rest)
            chosen, start = jnp.where(here, i, chosen), jnp.where(here, end, start)
            priority, end = jnp.where(here, child, priority), end + child
        # The barrier keeps XLA from computing a level again for each use that the next one makes of it.
        indices, rest, priority = jax.lax.optimization_barrier((indices * FANOUT + chosen, rest - start, priority))
    return jnp.where(priority > 0, indices, 0), priority


def _sum(children: Array) -> Array:
    """The sum over the last axis, added in pairs: the same bits wherever it is compiled."""
    while children.shape[-1] > 1:
        children = children[..., 0::2] + children[..., 1::2]
    return children[..., 0]
