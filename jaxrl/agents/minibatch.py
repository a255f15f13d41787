"""Several passes over one trajectory in shuffled minibatches: what agents that learn on fresh experience share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from jaxrl import checks
from jaxrl.types import Array, Key, Metrics, PyTree

Carry = TypeVar("Carry")


def check_sizes(
    owner: str, *, num_envs: int, rollout_length: int, num_epochs: int, num_minibatches: int, sequences: bool = False
) -> None:
    """Checks the arguments of an agent that learns by `scan_minibatches`.

    Raises:
      JaxrlError: if one is not a whole number of at least 1, or a trajectory does not split into equal minibatches.
    """
    checks.integer(owner, num_envs=num_envs, rollout_length=rollout_length, num_epochs=num_epochs)
    checks.integer(owner, num_minibatches=num_minibatches)
    if sequences and num_envs % num_minibatches:
        raise checks.JaxrlError(
            f"{owner}: num_minibatches={num_minibatches} does not divide num_envs={num_envs}, which it must where the "
            "policy remembers: sequences are kept whole"
        )
    if num_envs * rollout_length % num_minibatches:
        raise checks.JaxrlError(
            f"{owner}: num_minibatches={num_minibatches} does not divide num_envs * rollout_length = "
            f"{num_envs * rollout_length}"
        )


def scan_minibatches(
    learn: Callable[[Carry, PyTree], tuple[Carry, Metrics]],
    carry: Carry,
    data: PyTree,
    key: Key,
    *,
    num_epochs: int,
    num_minibatches: int,
    sequences: bool = False,
) -> tuple[Carry, Metrics]:
    """Learns from one minibatch after another; each epoch shuffles all steps anew, and uses each of them once.

    Args:
      learn: `learn(carry, minibatch) -> (carry, metrics)`; the minibatch is `data` with leaves `[B, ...]`, where
        `B = T * N / num_minibatches`, or, of sequences, `[T, N / num_minibatches, ...]`.
      carry: what learning changes, such as the parameters and the optimiser's state.
      data: leaves `[T, N, ...]`.
      key: for the orders.
      num_epochs: passes over the data.
      num_minibatches: minibatches in each of them; divides `T * N`, or, of sequences, `N`.
      sequences: whether each environment's steps stay together and in order.

    Returns:
      the last carry, and the metrics, leaves `[num_epochs * num_minibatches, ...]`.

    >>> data, add = jax.numpy.arange(4).reshape(2, 2), lambda total, x: (total + x.sum(), x)
    >>> total, seen = scan_minibatches(add, 0, data, jax.random.key(0), num_epochs=3, num_minibatches=2)
    >>> int(total), seen.shape
    (18, (6, 2))
    """
    length, width = jax.tree.leaves(data)[0].shape[:2]
    num_rows = width if sequences else length * width
    if not sequences:
        data = jax.tree.map(lambda x: x.reshape(num_rows, *x.shape[2:]), data)  # [T, N, ...] -> [T * N, ...]

    def one(carry: Carry, rows: Array) -> tuple[Carry, Metrics]:
        where = (slice(None), rows) if sequences else rows
        return learn(carry, jax.tree.map(lambda x: x.at[where].get(mode="promise_in_bounds"), data))

    orders = jax.vmap(lambda k: jax.random.permutation(k, num_rows))(jax.random.split(key, num_epochs))
    rows = orders.reshape(num_epochs * num_minibatches, -1)  # [E, rows] -> [E * M, B]
    return jax.lax.scan(one, carry, rows)
