"""Several passes over one trajectory in shuffled minibatches: what agents that learn on fresh experience share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from jaxrl import checks
from jaxrl.types import Array, Key, Metrics, PyTree

Carry = TypeVar("Carry")

WORKER = "worker"  # the name of the axis that workers are vmapped over


def check_workers(owner: str, num_workers: int, num_envs: int) -> None:
    """Checks that environments split into equal parts for workers.

    Raises:
      JaxrlError: if one is not a whole number of at least 1, or the environments do not split.
    """
    checks.integer(owner, num_envs=num_envs, num_workers=num_workers)
    if num_envs % num_workers:
        raise checks.JaxrlError(f"{owner}: num_workers={num_workers} does not divide num_envs={num_envs}")


def by_worker(tree: PyTree, num_workers: int, axis: int = 0) -> PyTree:
    """Splits the axis of the environments: the first worker has the first of them.

    >>> by_worker(jax.numpy.arange(6), 2).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return jax.tree.map(  # [..., N, ...] -> [..., W, N / W, ...]
        lambda x: x.reshape(*x.shape[:axis], num_workers, x.shape[axis] // num_workers, *x.shape[axis + 1 :]), tree
    )


def check_sizes(
    owner: str,
    *,
    num_envs: int,
    rollout_length: int,
    num_epochs: int,
    num_minibatches: int,
    sequences: bool = False,
    num_workers: int = 1,
) -> None:
    """Checks the arguments of an agent that learns by `scan_minibatches`.

    Raises:
      JaxrlError: if one is not a whole number of at least 1, or a trajectory does not split into equal minibatches.
    """
    checks.integer(owner, rollout_length=rollout_length, num_epochs=num_epochs, num_minibatches=num_minibatches)
    check_workers(owner, num_workers, num_envs)
    width, shown = num_envs, "num_envs"
    if num_workers > 1:
        width, shown = num_envs // num_workers, "num_envs / num_workers"
    if sequences and width % num_minibatches:
        raise checks.JaxrlError(
            f"{owner}: num_minibatches={num_minibatches} does not divide {shown}={width}, which it must where the "
            "policy remembers: sequences are kept whole"
        )
    if width * rollout_length % num_minibatches:
        raise checks.JaxrlError(
            f"{owner}: num_minibatches={num_minibatches} does not divide {shown} * rollout_length = "
            f"{width * rollout_length}"
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
    num_workers: int = 1,
) -> tuple[Carry, Metrics]:
    """Learns from one minibatch after another; each epoch shuffles all steps anew, and uses each of them once.

    Several workers each do so with the data of their own environments, side by side: `learn` runs under a `vmap` over
    the axis `WORKER`, and averages over it what it puts into the carry and the metrics, which all workers share.

    Args:
      learn: `learn(carry, minibatch) -> (carry, metrics)`; the minibatch is `data` with leaves `[B, ...]`, where
        `B = T * N / num_minibatches`, or, of sequences, `[T, N / num_minibatches, ...]`.
      carry: what learning changes, such as the parameters and the optimiser's state.
      data: leaves `[T, N, ...]`.
      key: for the orders.
      num_epochs: passes over the data.
      num_minibatches: minibatches in each of them; divides `T * N`, or, of sequences, `N`.
      sequences: whether each environment's steps stay together and in order.
      num_workers: divides `N`; the other sizes are then those of each worker, and its `N` is this part of all.

    Returns:
      the last carry, and the metrics, leaves `[num_epochs * num_minibatches, ...]`.

    >>> data, add = jax.numpy.arange(4).reshape(2, 2), lambda total, x: (total + x.sum(), x)
    >>> total, seen = scan_minibatches(add, 0, data, jax.random.key(0), num_epochs=3, num_minibatches=2)
    >>> int(total), seen.shape
    (18, (6, 2))
    """
    if num_workers > 1:
        sizes = {"num_epochs": num_epochs, "num_minibatches": num_minibatches, "sequences": sequences}
        work = lambda part, key: scan_minibatches(learn, carry, part, key, **sizes)  # noqa: E731
        workers = jax.vmap(work, in_axes=(1, 0), out_axes=None, axis_name=WORKER)
        return workers(by_worker(data, num_workers, axis=1), jax.random.split(key, num_workers))
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
