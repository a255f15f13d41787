"""What every replay is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxrl.types import Array, Key, PyTree


class Sample(NamedTuple):
    """A batch drawn from a replay.

    Attributes:
      items: what was stored, leaves `[B, ...]`.
      indices: int32 `[B]`, the slots that they were drawn from.
      weights: float32 `[B]`, importance weights; 1 where sampling is uniform.
    """

    items: PyTree
    indices: Array
    weights: Array


class Replay(NamedTuple):
    """A replay: four pure functions, closed over its sizes.

    `step` counts the items added before the call. All seeds share it, so that under `vmap` the write stays one slice.

    Attributes:
      init: `init(item) -> state`; `item` is one example, of the shapes and dtypes to store.
      add: `add(state, items, step) -> state`; leaves `[K, ...]`, written in one contiguous slice. `K` is the same at
        every call and divides the capacity, so that no write wraps around.
      sample: `sample(state, key, step) -> Sample`; at least one item must have been added.
      update: `update(state, indices, priorities) -> state`; where sampling is uniform it changes nothing.
    """

    init: Callable[[PyTree], PyTree]
    add: Callable[[PyTree, PyTree, Array], PyTree]
    sample: Callable[[PyTree, Key, Array], Sample]
    update: Callable[[PyTree, Array, Array], PyTree]
